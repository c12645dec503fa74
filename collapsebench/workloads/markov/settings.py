"""Settings of Markov tasks: items, training and evaluation. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.training_settings import Training


class MarkovSettings(WorkloadSettings):
    """The workload section of a Markov task.

    Attributes:
        length: states per sequence, the item of training and sampling; the first is given and the others are scored.
        rare: a transition is rare if its true probability is above 0 and at most this.
        selection_sequences: held-out sequences used to choose settings.
    """

    kind: Literal["markov"]
    length: int = Field(ge=2)
    rare: float = Field(0.02, gt=0, lt=1)
    training: Training
    selection_sequences: int = Field(ge=1)

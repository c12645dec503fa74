"""Settings of bigram tasks. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.training_settings import Training

LETTERS = " abcdefghijklmnopqrstuvwxyz"


class BigramSettings(WorkloadSettings):
    """The workload section of a bigram task: lines of ``line`` letters, ``test_lines`` of them to measure on."""

    kind: Literal["bigram"]
    line: int = Field(ge=2)
    training: Training
    test_lines: int = Field(ge=1)

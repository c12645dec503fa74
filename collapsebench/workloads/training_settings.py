"""What a task fixes about the training of its generations, whatever the modality. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from collapsebench.frozen import Frozen

if TYPE_CHECKING:
    from collapsebench.task import Policy


class Stage(Frozen):
    """Training of one generation.

    Attributes:
        updates: optimiser steps. Under policy ``accumulate`` they grow with the training set.
        learning_rate: peak, after a linear warm-up over a tenth of the updates (at most 50).
        decay: how the rate falls to 0 over the updates.
    """

    updates: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    decay: Literal["none", "linear", "cosine"]


class Training(Frozen):
    """AdamW; the optimiser starts afresh in every generation.

    Attributes:
        batch_size: items per update: token windows, images, points.
        clip_norm: gradients are scaled down to this norm; None: never.
        first: generation 0. later: every other one.
    """

    batch_size: int = Field(gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = Field(1.0, gt=0)
    first: Stage
    later: Stage

    def stage(self, generation: int) -> Stage:
        """The stage that trains this generation."""
        return self.first if generation == 0 else self.later

    def updates(self, policy: Policy, generation: int, items: int | None) -> int | None:
        """Optimiser steps on a training set of so many items; None where they depend on data that is not known."""
        updates = self.stage(generation).updates
        if policy.name != "accumulate" or generation == 0:
            return updates
        return None if items is None else round(updates * items / policy.size)  # as many epochs of a growing set

    def reduced(self, share: Callable[[int, int], int]) -> Training:
        """The same with a share of the updates; see `collapsebench.workloads.settings.WorkloadSettings.reduced`."""
        first, later = (s.model_copy(update={"updates": share(s.updates, 1)}) for s in (self.first, self.later))
        return self.model_copy(update={"first": first, "later": later})

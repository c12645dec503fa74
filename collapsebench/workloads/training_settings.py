"""Training settings of a task's generations, for any modality. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy


class Stage(Frozen):
    """Training of one generation.

    Attributes:
        updates: optimiser steps. Under policy ``accumulate`` they grow with the training set.
        epochs: passes over the training set, instead of `updates`; the last update is filled up from a further pass.
        learning_rate: peak rate, after a linear warm-up over a tenth of the updates (at most 50).
        decay: shape of the rate's decay to 0 over the updates.
    """

    updates: int | None = Field(None, gt=0)
    epochs: int | None = Field(None, gt=0)
    learning_rate: float = Field(gt=0)
    decay: Literal["none", "linear", "cosine"]

    @model_validator(mode="after")
    def _one_length(self) -> Stage:
        if (self.updates is None) == (self.epochs is None):
            raise ValueError("how long to train is given by updates or by epochs: give one of the two")
        return self


class Training(Frozen):
    """AdamW; the optimiser starts afresh in every generation.

    Attributes:
        batch_size: items per update: token windows, images, points.
        clip_norm: maximum gradient norm; None: no clipping.
        rescale: scale the loss's gradient, in every pass, to the size of cross entropy's gradient, so that merely
            rescaling a loss is not a method. Without it the size matters where gradients are as small as AdamW's ε, or
            where the workload adds a term of its own.
        first: stage of generation 0. later: stage of all others; None: same as the first.
    """

    batch_size: int = Field(gt=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = Field(1.0, gt=0)
    rescale: bool = False
    first: Stage
    later: Stage | None = None

    def stage(self, generation: int) -> Stage:
        """The stage of this generation."""
        return self.first if generation == 0 or self.later is None else self.later

    def updates(self, policy: Policy, generation: int, items: int | None) -> int | None:
        """Optimiser steps on a training set of this many items; None if they depend on unknown data."""
        stage = self.stage(generation)
        if stage.epochs is not None:
            return None if items is None else -(-stage.epochs * items // self.batch_size)
        assert stage.updates is not None
        updates = stage.updates
        if policy.name != "accumulate" or generation == 0:
            return updates
        return None if items is None else round(updates * items / policy.size)  # same number of epochs as the set grows

    def reduced(self, share: Callable[[int, int], int]) -> Training:
        """These settings with a share of the updates; see `collapsebench.workloads.settings.WorkloadSettings.reduced`.

        Epochs stay: they shrink with the training set.
        """
        return self.model_copy(
            update={
                name: stage.model_copy(update={"updates": share(stage.updates, 1)})
                for name, stage in (("first", self.first), ("later", self.later))
                if stage is not None and stage.updates is not None
            }
        )

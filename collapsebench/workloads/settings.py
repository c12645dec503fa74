"""What the workload sections of all task files have in common, for any modality. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import Metric

if TYPE_CHECKING:
    from collapsebench.task import Policy

Share = Callable[[int, int], int]


class WorkloadSettings(Frozen):
    """The workload section of a task file; every kind of workload has its own.

    What is here fits a section ``training`` as `collapsebench.workloads.training_settings.Training`; a kind with
    another one overrides `updates` and `reduced`.

    Attributes:
        kind: name of a record in `collapsebench.workloads.kinds.KINDS`.
        training: how generations are trained; has a ``batch_size``, in items.
    """

    kind: str
    if TYPE_CHECKING:
        training: Any  # a section of the kind's own

    def updates(self, policy: Policy, generation: int, items: int | None) -> int | None:
        """Optimiser steps of a generation whose training set has so many items; None: that depends on the data."""
        found: int | None = self.training.updates(policy, generation, items)
        return found

    def reduced(self, share: Share) -> Self:
        """The section on a part of the task's budget.

        Args:
            share: ``share(n, least)`` is the part of n, and at least so many, or n where that is less.
        """
        return self.model_copy(update={"training": self.training.reduced(share)})

    def check_policy(self, policy: Policy) -> None:
        """Raise `ValueError` unless the section can be run under the data policy."""

    def own_metrics(self, horizon: int) -> tuple[Metric, ...]:
        """What the section asks to measure besides the metrics of its kind, in the order of the file."""
        return ()

    @property
    def measures_fractions(self) -> bool:
        """Whether fractions of the real data are measured (`collapsebench.workloads.FractionWorkload`)."""
        return False

    def unseen(self) -> Mapping[str, str]:
        """Metrics of text that is new to a generation, each with the metric of text that generation 0 never saw.

        What the latter is under cross entropy at generation 0, is the floor of the former.
        """
        return {}

    def without_floor(self) -> tuple[str, ...]:
        """Names of its own metrics that cannot be scored because their chance level is not known."""
        return ()

"""The base class of all workload sections of task files, for any modality. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import Metric

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy

Share = Callable[[int, int], int]


class WorkloadSettings(Frozen):
    """The workload section of a task file; every kind of workload has its own subclass.

    The defaults expect a section ``training`` of type `collapsebench.workloads.training_settings.Training`. A kind
    with another training section overrides `updates` and `reduced`.

    Attributes:
        kind: name of a record in `collapsebench.workloads.kinds.KINDS`.
        training: training of the generations; has a ``batch_size``, in items.
    """

    kind: str
    if TYPE_CHECKING:
        training: Any  # every kind has its own section

    def updates(self, policy: Policy, generation: int, items: int | None) -> int | None:
        """Optimiser steps of a generation whose training set has this many items; None: depends on the data."""
        found: int | None = self.training.updates(policy, generation, items)
        return found

    def reduced(self, share: Share) -> Self:
        """The section for a part of the task's budget.

        Args:
            share: ``share(n, least)`` returns the part of n, but at least `least`, and at most n.
        """
        return self.model_copy(update={"training": self.training.reduced(share)})

    def check_policy(self, policy: Policy) -> None:
        """Raise `ValueError` if the section cannot be run under the data policy."""

    def own_metrics(self, horizon: int) -> tuple[Metric, ...]:
        """Metrics that the section adds to those of its kind, in the order of the file."""
        return ()

    @property
    def measures_fractions(self) -> bool:
        """Whether fractions of the real data are measured (`collapsebench.workloads.FractionWorkload`)."""
        return False

    def without_floor(self) -> tuple[str, ...]:
        """Names of its own metrics that cannot be scored because their chance level is unknown."""
        return ()

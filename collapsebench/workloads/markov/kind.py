"""The record of Markov tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collapsebench.data.sources import MarkovData, Splits
from collapsebench.workloads.kind import Kind, Passes
from collapsebench.workloads.markov.settings import MarkovSettings
from collapsebench.workloads.work import Sizes

if TYPE_CHECKING:
    from collapsebench.task import Task
    from collapsebench.task_spec import TaskSpec


def _sequences(spec: TaskSpec) -> int:
    assert isinstance(spec.data, MarkovData)
    return spec.data.sequences


def _sizes(task: Task) -> Sizes:
    assert isinstance(task.spec.workload, MarkovSettings)
    return Sizes(_sequences(task.spec), task.spec.workload.selection_sequences, 0)


def _evaluated(spec: TaskSpec) -> int:
    """Number of selection sequences; the distance to the truth is exact and needs no data."""
    assert isinstance(spec.workload, MarkovSettings)
    return spec.workload.selection_sequences


MARKOV = Kind(
    name="markov",
    label="Markov chain",
    settings=MarkovSettings,
    workload="collapsebench.workloads.markov.workload:MarkovWorkload",
    extra="micro",
    known_elements="collapsebench.workloads.text.known_elements:known_tokens",
    samples="text",
    unit="states",
    element="transitions",
    item_elements=lambda settings, _: settings.length,
    passes=lambda settings: Passes(settings.length, settings.length, settings.length),
    evaluated=_evaluated,
    sizes=_sizes,
    blank="collapsebench.workloads.markov.workload:blank_markov",
    sources=("markov",),
    splits=Splits,
    metrics=("transition_kl", "rare_mass", "selection_nll", "entropy_rate"),
    real_items=_sequences,
    base="shipped",
    symbols=lambda _: True,
)

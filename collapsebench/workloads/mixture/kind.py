"""The record of Gaussian-mixture tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collapsebench.data.sources import MixtureData, Splits
from collapsebench.workloads.kind import Kind, Passes
from collapsebench.workloads.mixture.settings import GmmSettings
from collapsebench.workloads.work import Sizes

if TYPE_CHECKING:
    from collapsebench.task import Task
    from collapsebench.task_spec import TaskSpec


def _points(spec: TaskSpec) -> int:
    assert isinstance(spec.data, MixtureData)
    return spec.data.points


def _sizes(task: Task) -> Sizes:
    return Sizes(_points(task.spec), 0, 0)


GMM = Kind(
    name="gmm",
    label="Gaussian mixture",
    settings=GmmSettings,
    workload="collapsebench.workloads.mixture.workload:GmmWorkload",
    extra="micro",
    known_elements="collapsebench.workloads.mixture.known_elements:known_points",
    samples="density",
    unit="points",
    element="points",
    item_elements=lambda *_: 1,
    passes=lambda _: Passes(),
    evaluated=lambda _: 0,  # metrics are integrals over the truth and need no items
    sizes=_sizes,
    blank="collapsebench.workloads.mixture.workload:blank_mixture",
    sources=("mixture",),
    splits=Splits,
    metrics=("kl_to_truth", "minority_mass", "sample_mean", "sample_variance", "model_variance"),
    real_items=_points,
)

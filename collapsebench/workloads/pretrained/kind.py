"""The record of pretrained-language-model tasks."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from collapsebench.data.sources import Splits
from collapsebench.workloads.kind import Kind, Option, Passes
from collapsebench.workloads.pretrained.settings import PretrainedSettings
from collapsebench.workloads.work import Sizes

if TYPE_CHECKING:
    from collapsebench.task import Task
    from collapsebench.task_spec import TaskSpec


def _windows(spec: TaskSpec) -> int:
    """Number of training windows, which follows from the policy."""
    assert isinstance(spec.workload, PretrainedSettings)
    return spec.workload.real_windows(spec.policy)


def _evaluated(spec: TaskSpec) -> int:
    """Number of evaluation windows. Tokens of the KR-test and the harness are unknown beforehand and not counted."""
    assert isinstance(spec.workload, PretrainedSettings)
    return sum(spec.workload.measured(spec.policy, spec.horizon))


def _sizes(task: Task) -> Sizes:
    assert isinstance(task.spec.workload, PretrainedSettings)
    measured = task.spec.workload.measured(task.spec.policy, task.spec.horizon)
    return Sizes(_windows(task.spec), sum(measured) - measured.test, measured.test)


def _options(spec: TaskSpec) -> frozenset[Option]:
    return frozenset({"model", "data"} if spec.data.source == "hub-splits" else {"model"})


_METRICS = (
    "perplexity", "next_token_accuracy", "selection_perplexity", "token_loss", "token_loss_p50",
    "token_loss_p90", "token_loss_p99", "prediction_entropy", "confident_share", "distinct_1", "distinct_2",
    "distinct_4", "repetition", "unigram_kl",
)  # fmt: skip

PRETRAINED = Kind(
    name="pretrained-lm",
    label="text (pretrained models)",
    settings=PretrainedSettings,
    workload="collapsebench.workloads.pretrained.workload:PretrainedWorkload",
    extra="pretrained",
    known_elements="collapsebench.workloads.text.known_elements:known_tokens",
    samples="text",
    unit="tokens",
    element="tokens",
    item_elements=lambda settings, _: settings.block,
    passes=lambda settings: Passes(settings.block, settings.block, settings.block),
    evaluated=_evaluated,
    sizes=_sizes,
    blank="collapsebench.workloads.pretrained.blank:blank_pretrained",
    sources=("hub-splits", "local-splits"),
    splits=Splits,
    metrics=_METRICS,
    real_items=_windows,
    options=_options,
    supplies="collapsebench.workloads.pretrained.supplies:pretrained_supplies",
    check_room="collapsebench.workloads.pretrained.room:check_room",
    prepare="collapsebench.workloads.pretrained.data:training_windows",
    symbols=lambda _: True,
    base="given",
    parallel=True,
    steps="sampler.new_tokens",
    sequences=lambda settings: Fraction(settings.block, settings.sampler.new_tokens),
)

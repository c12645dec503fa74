"""The record of text tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collapsebench.data.sources import Splits
from collapsebench.workloads.kind import Kind, Passes
from collapsebench.workloads.text.settings import TextSettings
from collapsebench.workloads.work import Sizes, fraction_items

if TYPE_CHECKING:
    from collapsebench.task import Task
    from collapsebench.task_spec import TaskSpec


def _evaluated(spec: TaskSpec) -> int:
    """Number of evaluation windows. Knowledge pairs are not counted, since their length is unknown beforehand."""
    assert isinstance(spec.workload, TextSettings)
    evaluation = spec.workload.evaluation
    return evaluation.test_windows + evaluation.selection_windows + 2 * _fraction_windows(spec)


def _fraction_windows(spec: TaskSpec) -> int:
    """Number of evaluation windows of the oldest fraction; as many are taken from the newest."""
    assert isinstance(spec.workload, TextSettings)
    wanted, there = spec.workload.evaluation.fraction_windows or 0, fraction_items(spec)
    return wanted if there is None else min(wanted, there)


def _sizes(task: Task) -> Sizes:
    assert isinstance(task.spec.workload, TextSettings)
    evaluation = task.spec.workload.evaluation
    return Sizes(None, evaluation.selection_windows, evaluation.test_windows)


_METRICS = (
    "perplexity", "next_token_accuracy", "pair_accuracy", "selection_perplexity", "token_loss", "token_loss_p50",
    "token_loss_p90", "token_loss_p99", "prediction_entropy", "confident_share", "distinct_1", "distinct_2",
    "distinct_4", "repetition", "unigram_kl",
)  # fmt: skip

TEXT = Kind(
    name="text",
    label="text",
    settings=TextSettings,
    workload="collapsebench.workloads.text.workload:TextWorkload",
    extra="micro",
    known_elements="collapsebench.workloads.text.known_elements:known_tokens",
    samples="text",
    unit="tokens",
    element="tokens",
    item_elements=lambda settings, _: settings.block,
    passes=lambda settings: Passes(settings.block, settings.block, settings.block),
    evaluated=_evaluated,
    sizes=_sizes,
    blank="collapsebench.workloads.text.blank:blank_text",
    sources=("enwiki-2016", "world-english-bible", "local", "hub"),
    symbols=lambda _: True,
    base="shipped",
    splits=Splits,
    metrics=_METRICS,
    steps="block",
)

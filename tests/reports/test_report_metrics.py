"""The report shows every metric that a run measured, those of a task's own benchmarks and fractions included."""

from __future__ import annotations

import html
import re

import pytest
from tiny_task import write_tiny_task

from collapsebench.api import compare
from collapsebench.reports.comparison import Comparison
from collapsebench.reports.report import write_report
from collapsebench.task import load_task

pytest.importorskip("lm_eval")

HARNESS = [
    {"name": "pairs", "file": "pairs.jsonl", "format": "blimp", "chance": 0.5},
    {"name": "few", "file": "pairs.jsonl", "format": "blimp", "limit": 5},
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A comparison of one method on a task with two benchmarks and a knowledge test."""
    folder = tmp_path_factory.mktemp("benchmarks")
    changes = {"horizon": 2, "policy.size": 180, "workload.sampler.method": "draw", "seeds": [0]}
    file = write_tiny_task(folder, "pretrained-lm", **changes, **{"workload.evaluation.harness": HARNESS})
    return compare(load_task(file), ["ce"], out=folder / "runs", device="cpu", engine="inline")


def test_report_shows_every_metric_that_was_measured_grouped_in_the_tasks_order(compared: Comparison) -> None:
    write_report(compared)
    page = html.unescape((compared.folder / "report.html").read_text("utf-8"))
    shown = re.findall(r"<details><summary>(.*?)</summary>", page)
    spec, measured = compared.task.spec, set(compared.raw["metric"])
    assert {"harness_pairs", "harness_few", "knowledge_fraction_1"} <= measured
    assert measured <= set(spec.metrics)
    scored_first = sorted(
        (spec.metric(name) for name in spec.metrics if name in measured),
        key=lambda metric: 0 if metric.name in spec.scored else 1 if metric.direction else 2,
    )
    titles = [metric.title for metric in scored_first]
    assert [title for title in shown if title in titles] == titles
    assert "mFI: pairs (acc)" in page, "and what is scored by its title"

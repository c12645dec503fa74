"""What a generation works on: the loop does, and progress, estimate and validation expect, what one function says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console
from rich.progress import Progress
from tiny_task import KINDS, write_tiny_task

from collapsebench.api import run
from collapsebench.authoring.estimate import estimate
from collapsebench.methods import load_method
from collapsebench.publishing.consistency import allowed_counts
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.cells import Cell
from collapsebench.running.progress import Event
from collapsebench.running.progress_account import plan_of
from collapsebench.running.progress_display import _Board
from collapsebench.task import Task, load_task
from collapsebench.task_spec import Policy, TaskSpec
from collapsebench.workloads.work import Sizes, planned_elements, real_share, work_of

POLICIES = get_args(Policy.model_fields["name"].annotation)
LAST = 2
WORKING = ("train", "sample", "evaluate")

_FEW_UPDATES = {"workload.training.first.updates": 3, "workload.training.later.updates": 2}
_FEW_PASSES: dict[str, dict[str, Any]] = {
    "text": _FEW_UPDATES,
    "pretrained-lm": {
        "workload.sampler.method": "draw",
        "workload.evaluation.knowledge": None,
        "workload.evaluation.harness": [],
        "scored": {"oldest_perplexity": {"reference": 200.0, "floor": 300.0}},
    },
    "vae": _FEW_UPDATES | {"workload.evaluation.samples": 16},
    "diffusion": _FEW_UPDATES | {"workload.evaluation.samples": 16, "workload.schedule.sample_steps": 2},
    "gmm": _FEW_UPDATES,
    "markov": _FEW_UPDATES,
}


def changes(kind: str, policy: str) -> dict[str, Any]:
    """What makes the tiny task of a kind one under this policy, with as few updates as show a difference."""
    given: dict[str, Any] = {"name": policy, "size": 20} | ({"real_share": 0.3} if "mix" in policy else {})
    return {"horizon": LAST, "policy": given} | _FEW_PASSES[kind]


def possible() -> Iterator[tuple[str, str]]:
    """Every kind with every policy that it allows."""
    for kind in KINDS:
        yield from ((kind, p) for p in POLICIES if kind != "pretrained-lm" or p == "regenerate-fresh")


@pytest.fixture(scope="module", params=possible(), ids="-".join)
def chain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Task, RunDirectory, list[Event]]:
    """A finished chain: its task, its directory, and what it reported."""
    folder, events = tmp_path_factory.mktemp("work"), []
    task = load_task(write_tiny_task(folder, request.param[0], **changes(*request.param)))
    return task, RunDirectory(run(task, "ce", out=folder / "runs", device="cpu", listener=events.append)), events


def real_items(events: list[Event]) -> int:
    (found,) = [event.real_items for event in events if event.phase == "prepared"]
    assert found is not None
    return found


def test_loop_reports_what_is_planned(chain: tuple[Task, RunDirectory, list[Event]]) -> None:
    task, _, events = chain
    reported: Counter[tuple[int, str]] = Counter()
    for event in events:
        reported[event.generation, event.phase] += event.elements
    passes, real = task.spec.kind.passes(task.spec.workload), real_items(events)
    for g in range(LAST + 1):
        work = work_of(task.spec, g, real)
        assert [reported[g, phase] for phase in WORKING] == [
            work.trained * passes.trained, work.drawn * passes.drawn, work.evaluated * passes.evaluated
        ]  # fmt: skip
        assert planned_elements(task.spec, g, real) == sum(reported[g, phase] for phase in WORKING)


def test_loop_trains_on_and_draws_what_is_counted(chain: tuple[Task, RunDirectory, list[Event]]) -> None:
    task, store, events = chain
    real = real_items(events)
    elements = task.spec.kind.item_elements(task.spec.workload, 1)
    for g in range(LAST + 1):
        work, written = work_of(task.spec, g, real), store.read(g, "metrics.json")
        assert written["elements_trained"] == work.trained * elements
        assert written["elements_sampled"] == work.drawn * elements
        trained, sampled = allowed_counts(task.spec, g)
        assert not trained or written["elements_trained"] in trained
        assert not sampled or written["elements_sampled"] in sampled


def test_estimate_counts_the_same_work(chain: tuple[Task, RunDirectory, list[Event]]) -> None:
    task, store, events = chain
    for g, spent in enumerate(estimate(task, sizes=Sizes(real_items(events), 20, 40)).generations):
        written = store.read(g, "metrics.json")
        assert (spent.trained, spent.sampled) == (written["elements_trained"], written["elements_sampled"])


def test_bar_ends_where_it_was_planned_to(chain: tuple[Task, RunDirectory, list[Event]], tmp_path: Path) -> None:
    task, _, events = chain
    cell = Cell(task, load_method("ce"), 0, tmp_path, LAST, "cpu")
    board = _Board([cell], Progress(console=Console(file=(tmp_path / "shown").open("w"))))
    for event in events:
        assert board.progress.tasks[0].completed <= board.account.total
        board.update(event)
    assert board.progress.tasks[0].completed == board.account.total == sum(plan_of(cell, real_items(events)))


def test_updates_grow_with_what_accumulates(tmp_path: Path) -> None:
    spec = load_task(write_tiny_task(tmp_path, "gmm", horizon=9, **{"policy.name": "accumulate"})).spec
    # 200 real points and 100 more in every generation, each trained on as often as in the first
    assert [work_of(spec, g).updates for g in range(4)] == [60, 60, 80, 100]
    assert [work_of(spec, g, 1000).updates for g in (0, 1, 9)] == [60, 220, 380]


def test_work_that_depends_on_the_data_is_not_guessed(tmp_path: Path) -> None:
    def work(policy: str) -> TaskSpec:
        return load_task(write_tiny_task(tmp_path / policy, "text", **changes("text", policy))).spec

    assert [work_of(work("accumulate"), g).updates for g in (0, 1)] == [3, None]
    assert work_of(work("accumulate"), 1, real=100).updates == 12
    fresh = work_of(work("regenerate-fresh"), 1)
    assert (fresh.items, fresh.updates, fresh.drawn) == (None, 2, None)
    assert work_of(work("regenerate-fresh"), 1, real=100).drawn == 66
    assert planned_elements(work("accumulate"), 1) == (2 * 8 + 20 + 24 + 12) * 16  # at least


def test_share_of_real_items_is_what_the_policy_gives(chain: tuple[Task, RunDirectory, list[Event]]) -> None:
    task, store, events = chain
    for g in range(LAST + 1):
        share = real_share(task.spec, g, real_items(events))
        assert (share is None) == (g > 0 and task.spec.policy.name == "accumulate-subsample")
        assert share is None or store.read(g, "metrics.json")["real_share"] == pytest.approx(share)

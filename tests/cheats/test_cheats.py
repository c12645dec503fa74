"""Rule 2 of a ranked task: who learns less loses to cross entropy, who is the same ties with it, and no leak pays."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_task import write_based_task, write_tiny_task

sys.path.insert(0, str(Path(__file__).parent))

from judging import CHEATS, HERE, Cheat, Judgement, Verdict, judge, ranked_micro_tasks, verified
from run import page, table

from collapsebench.api import prepare
from collapsebench.errors import DataError, UserError
from collapsebench.methods import load_method
from collapsebench.running.preflight import check_supplies
from collapsebench.scoring.fidelity import ALL
from collapsebench.task import Task, load_task

pytestmark = pytest.mark.usefixtures("one_thread")
RANKED = list(ranked_micro_tasks())


def one_of_each_family(tasks: list[Task]) -> list[str]:
    """The first task by name of those that share a kind of workload and a base model."""
    first: dict[object, str] = {}
    for task in tasks:
        first.setdefault((task.spec.kind.name, task.spec.base and task.spec.base.sha256), task.spec.name)
    return list(first.values())


FAMILIES = one_of_each_family(RANKED)
# Fidelity is 1 at what cross entropy reached at generation 0, and 0 at what the stationary distribution has.
JUDGED: dict[str, Any] = {
    "seeds": [0, 1, 2],
    "horizon": 1,
    "init": "scratch",
    "data.sequences": 2000,
    "policy.size": 256,
    "workload.length": 17,
    "workload.training.rescale": True,
    "workload.training.first": {"epochs": 8, "learning_rate": 0.15, "decay": "cosine"},
    "workload.training.later": None,
    "scored": {"transition_kl": {"reference": 0.0246, "floor": 0.928}},
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    """The cheats on a tiny task that starts from nothing: two generations, three seeds."""
    folder = tmp_path_factory.mktemp("cheats")
    task = load_task(write_tiny_task(folder, "markov", **JUDGED))
    return judge(task, folder / "runs", task.spec.seeds, task.spec.horizon, "inline")


@pytest.mark.parametrize("cheat", [c for c in CHEATS if c.group != "distortion"], ids=lambda cheat: cheat.loss)
def test_rule_2_holds_for_every_cheat(judged: Judgement, cheat: Cheat) -> None:
    (verdict,) = [v for v in judged.verdicts if v.cheat == cheat]
    assert verdict.holds, verdict


def test_base_model_that_holds_the_truth_in_another_shape_is_found(tmp_path: Path) -> None:
    task = load_task(write_based_task(tmp_path, "markov", **(JUDGED | {"init": "base"})))  # the truth, squared
    trial = prepare(task, ["ce", f"{HERE}/anchors.py:Anchored"], [0], tmp_path / "runs", 1, "cpu")
    trial.run("inline")
    last = trial.comparison().raw.query("generation == 1 and metric == 'transition_kl'").set_index("method")["value"]
    assert last["Anchored"] < last["ce"] / 2


def test_tables_as_parameters_are_refused_and_nothing_else_is(judged: Judgement) -> None:
    refused = {v.cheat.loss.partition(":")[2] for v in judged.verdicts if v.outcome == "refused"}
    assert refused == {"Table", "TableInText", "TableInDigits", "TableInManyParameters"}


def test_loss_that_a_task_has_no_logits_for_is_refused_and_that_is_fine() -> None:
    anchored = next(cheat for cheat in CHEATS if cheat.loss == "anchors.py:Anchored")
    with pytest.raises(UserError, match="has no logits"):
        load_method(anchored.spec, "vae")
    assert Verdict(anchored, "refused").holds


def test_there_is_nothing_behind_log_p(judged: Judgement) -> None:
    (walker,) = [v for v in judged.verdicts if "GraphWalker" in v.cheat.loss]
    assert (walker.difference, walker.low, walker.high) == (0, 0, 0)


def test_memory_on_the_class_does_not_reach_the_next_generation(judged: Judgement) -> None:
    found = {v.cheat.loss.partition(":")[2]: v for v in judged.verdicts}
    on_class, on_torch = found["MemoryOnClass"].difference, found["MemoryOnTorch"].difference
    assert on_class == pytest.approx(0, abs=1e-4)  # up to rounding, as it asks for the logits
    assert abs(on_torch) > 0.003  # what one process cannot prevent, and `verify` finds


def test_table_says_what_became_of_every_cheat(judged: Judgement) -> None:
    written = table(judged)
    assert all(f"| {cheat.loss.partition(':')[2]} |" in written for cheat in CHEATS)
    assert "**broken**" not in written


def installed(name: str) -> Task:
    task = load_task(name)
    try:
        check_supplies(task)
    except DataError as reason:
        pytest.skip(str(reason))
    return task


# At much less of the budget a second generation is worse than the base model, and there is nothing to win by learning.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "markov-micro" else pytest.mark.slow) for n in FAMILIES]
)
def test_learning_nothing_loses_on_a_ranked_task_at_a_quarter_of_its_budget(name: str, tmp_path: Path) -> None:
    installed(name)
    trial = prepare(load_task(name, 0.25), ["ce", f"{HERE}/learning_less.py:Frozen"], [0], tmp_path, 1, "cpu")
    trial.run("inline")
    scores = trial.comparison().scores
    mfi = scores[scores["metric"] == ALL].set_index("method")["mfi"]
    assert mfi["ce"] > mfi["Frozen"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_rule_2_holds_on_a_ranked_task(name: str, tmp_path: Path) -> None:
    task = installed(name)
    found = judge(task, tmp_path, task.spec.seeds[:5], task.spec.horizon)
    print(table(found))
    assert [v for v in found.verdicts if v.holds is False] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MemoryOnTorch", "MemoryInFile"])
def test_a_memory_that_one_process_cannot_prevent_is_found_by_verification(name: str, tmp_path: Path) -> None:
    task = load_task(write_tiny_task(tmp_path / "task", "markov", **JUDGED))
    cheat = Cheat(f"leaks.py:{name}", "leak")
    trial = prepare(task, [cheat.spec], [0], tmp_path / "runs", 1, "cpu")
    trial.run("inline")
    assert verified(Verdict(cheat, "better"), trial.cells[0]).outcome == "caught"


def test_page_keeps_the_sections_of_other_tasks() -> None:
    first = page("", {"b": "## b@1\n\nold\n", "c": "## c@1\n\nkept\n"})
    second = page(first, {"b": "## b@2\n\nnew\n", "a": "## a@1\n\nadded\n"})
    assert [line for line in second.splitlines() if line.startswith("#")] == ["# Cheats", "## a@1", "## b@2", "## c@1"]
    assert "old" not in second
    assert page(second, {}) == second

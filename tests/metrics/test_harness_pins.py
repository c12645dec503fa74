"""Benchmarks with lm-eval's name at a pinned revision: what is asked of the hub, of a task and of all of a group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_task import paragraphs, write_language_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from collapsebench.errors import DataError, TaskError
from collapsebench.metrics import harness_tasks
from collapsebench.metrics.harness import HarnessResult, evaluate_harness
from collapsebench.metrics.harness_settings import FORMATS, HarnessTask
from collapsebench.task import load_task

TaskManager = pytest.importorskip("lm_eval.tasks", reason="lm-eval is not installed").TaskManager
datasets = pytest.importorskip("datasets")

torch.set_num_threads(1)

REVISION = "0123456789" * 4
OTHER = "fedcba9876" * 4
SETS = ("agreement", "order")
PINNED: dict[str, Any] = {"metric": "acc", "dataset": "some/pairs", "revision": REVISION}
N = 6


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("model")
    write_language_model(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of the hub, where lm-eval knows two tasks on it and a group of both. No network."""
    asked: list[dict[str, Any]] = []

    def load_dataset(**options: Any) -> Any:
        asked.append(options)
        texts = paragraphs(N, len(options["data_dir"]))
        rows = [{"sentence_good": text.split(". ")[0], "sentence_bad": text.split(". ")[1]} for text in texts]
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})

    for name in SETS:
        write(tmp_path, f"pairs_{name}", dataset_kwargs={"data_dir": name})
    write(tmp_path, "elsewhere", dataset_path="some/others", dataset_kwargs={"data_dir": "elsewhere"})
    aggregate = [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}]
    members: dict[str, list[Any]] = {
        "pairs": [f"pairs_{name}" for name in SETS],
        "mixed": ["pairs_order", "elsewhere"],
        "nested": ["pairs_order", "pairs"],
        "changing": ["pairs_order", {"task": "pairs_agreement", "num_fewshot": 0}],
    }
    for name, tasks in members.items():
        group = {"group": name, "task": tasks, "aggregate_metric_list": aggregate}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(group), "utf-8")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(harness_tasks, "lm_eval_tasks", lambda: manager)
    monkeypatch.setattr(harness_tasks, "hub_silence", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def write(folder: Path, name: str, **more: Any) -> None:
    """Write a task of lm-eval that includes a common part, as lm-eval's own tasks do."""
    common = FORMATS["blimp"].definition | {"dataset_path": "some/pairs", "test_split": "train"}
    (folder / "common_yaml").write_text(yaml.safe_dump(common), "utf-8")
    content = {"include": "common_yaml", "task": name, "dataset_name": name, **more}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), "utf-8")


def evaluate(loaded: tuple[Any, Any], **spec: Any) -> HarnessResult:
    task = HarnessTask(**({"name": "mine"} | spec))
    return evaluate_harness(*loaded, [task], Path(), batch_size=4, max_length=200)["harness_mine"]


def request(name: str, revision: str | None = REVISION) -> dict[str, Any]:
    """The request of a task to the hub, including the task's own arguments."""
    pin = {} if revision is None else {"revision": revision}
    return {"path": "some/pairs", "name": f"pairs_{name}", "data_dir": name, **pin}


def test_a_task_is_read_at_its_revision_and_otherwise_as_lm_eval_has_it(loaded: Any, asked: list[Any]) -> None:
    found = evaluate(loaded, task="pairs_order", **PINNED)
    assert asked == [request("order")]
    assert found == evaluate(loaded, task="pairs_order", metric="acc")
    assert asked[1:] == [request("order", None)]
    assert found.n == N


@pytest.mark.parametrize(
    ("subset", "names"),
    [(None, SETS), (("order",), ("order",)), (("pairs_order", "agreement"), ("order", "agreement"))],
)
def test_each_member_of_a_group_is_read_at_the_revision(subset: Any, names: Any, loaded: Any, asked: list[Any]) -> None:
    found = evaluate(loaded, task="pairs", subset=subset, **PINNED)
    assert asked == [request(name) for name in names]
    assert list(found.items) == [f"pairs_{name}" for name in names]
    assert found.n == N * len(names)
    assert found == evaluate(loaded, task="pairs", subset=subset, metric="acc")
    assert asked[len(names) :] == [request(name, None) for name in names]


def test_two_revisions_of_one_task_do_not_get_into_each_others_way(loaded: Any, asked: list[Any]) -> None:
    for revision in (REVISION, OTHER, REVISION):
        evaluate(loaded, task="pairs", **(PINNED | {"revision": revision}))
    assert [options["revision"] for options in asked] == [REVISION] * 2 + [OTHER] * 2 + [REVISION] * 2


@pytest.mark.parametrize("task", ["pairs", "pairs_order"])
def test_a_dataset_that_is_not_that_of_the_task_is_refused(task: str, loaded: Any, asked: list[Any]) -> None:
    with pytest.raises(TaskError, match=r"'mine': the items of .* are those of some/pairs, not of other/pairs"):
        evaluate(loaded, task=task, **(PINNED | {"dataset": "other/pairs"}))
    assert asked == []


def test_a_group_with_another_dataset_in_it_is_refused(loaded: Any, asked: list[Any]) -> None:
    with pytest.raises(TaskError, match=r"'mine': the items of lm-eval's elsewhere are those of some/others"):
        evaluate(loaded, task="mixed", **PINNED)
    assert evaluate(loaded, task="mixed", subset=("pairs_order",), **PINNED).n == N


@pytest.mark.parametrize(
    ("task", "told"), [("nested", r"groups of tasks; nested has \['pairs'\]"), ("changing", "subset")]
)
def test_a_group_that_cannot_be_pinned_is_refused(task: str, told: str, loaded: Any, asked: list[Any]) -> None:
    with pytest.raises(TaskError, match=f"'mine': .*{told}"):
        evaluate(loaded, task=task, **PINNED)
    assert asked == []
    assert evaluate(loaded, task=task, metric="acc").n > N, "without a revision it is lm-eval's own matter"


@pytest.mark.slow
def test_registered_benchmarks_ask_for_their_datasets_at_their_revisions(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def load_dataset(path: str, revision: str, **_: Any) -> Any:
        asked.append((path, revision))
        raise ConnectionError("seen enough")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(harness_tasks, "hub_silence", lambda: None)
    benchmarks = load_task("text-wikitext2-smollm2").spec.workload.evaluation.harness
    for benchmark in benchmarks:
        with pytest.raises(DataError, match=rf"dataset {benchmark.dataset}\) cannot be loaded: .*seen enough"):
            evaluate_harness(*loaded, [benchmark], Path(), batch_size=4, max_length=200)
    assert asked == [(benchmark.dataset, benchmark.revision) for benchmark in benchmarks]

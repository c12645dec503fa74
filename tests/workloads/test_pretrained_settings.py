"""What a task file with a pretrained model may say, what a share of its budget leaves, and what it can measure."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_task import tiny_spec

from collapsebench.errors import TaskError
from collapsebench.metrics.catalogue import KNOWLEDGE
from collapsebench.task import Task, load_task
from collapsebench.workloads.pretrained.kind import PRETRAINED
from collapsebench.workloads.pretrained.settings import FineTuning
from collapsebench.workloads.work import planned_elements

REVISION = "0123456789" * 4
HUB = {"hub": "some/model", "revision": REVISION, "path": None}
PAIRS = {"name": "pairs", "file": "pairs.jsonl", "format": "blimp", "chance": 0.5}
TEXTS = {"name": "texts", "file": "text.txt", "format": "text"}
MIXED = {"policy": {"name": "mix", "size": 64, "real_share": 0.5}}
UNDIVIDED = {"workload.evaluation.oldest_windows": None, "workload.evaluation.knowledge": None}
SCORED = {"oldest_perplexity": {"reference": 3.0, "floor": 5.0}}


def load(folder: Path, budget: float = 1.0, **changes: Any) -> Task:
    """The tiny task with changes; None leaves an entry out. What its file names does not exist."""
    spec = tiny_spec("pretrained-lm", **{path: value for path, value in changes.items() if value is not None})
    for path in (path for path, value in changes.items() if value is None):
        *parents, key = path.split(".")
        section = spec
        for parent in parents:
            section = section[parent]
        section.pop(key, None)
    (folder / "task.yaml").write_text(json.dumps(spec), "utf-8")
    return load_task(folder / "task.yaml", budget)


def model(**changes: Any) -> dict[str, Any]:
    """Changes of the model's section."""
    return {f"workload.model.{key}": value for key, value in changes.items()}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (model(path=None), "workload.model: model: name either hub and revision, or path"),
        (model(**HUB) | model(path="model"), "workload.model: model: name either hub and revision, or path"),
        (model(**HUB) | model(revision=None), "workload.model: model: name either hub and revision, or path"),
        (model(revision=REVISION), "workload.model: model: name either hub and revision, or path"),
        (model(**HUB) | model(revision="main"), "workload.model.revision: "),
        (model(**HUB) | model(hub="model"), "workload.model.hub: "),
        (model(parameters=0), "workload.model.parameters: "),
        (model(architecture=None), "workload.model.architecture: "),
        ({"workload.training.micro_batch": 3}, "workload.training: batch_size must be a multiple of micro_batch 3"),
        ({"workload.training.epochs": 0}, "workload.training.epochs: "),
        ({"workload.training.precision": "int8"}, "workload.training.precision: "),
        ({"workload.block": 20}, "workload: block must be a multiple of sampler.new_tokens 8"),
        ({"workload.sampler.method": "greedy"}, "workload.sampler.method: "),
        ({"workload.sampler.top_p": 1.5}, "workload.sampler.top_p: "),
        ({"workload.evaluation.harness": [PAIRS, PAIRS]}, "workload.evaluation: harness: the names ['pairs'] occur"),
        ({"workload.evaluation.harness": [PAIRS | {"limit": 0}]}, "workload.evaluation.harness.0.limit: "),
        (
            {"workload.evaluation.knowledge": {"file": "k.json", "url": "https://host.example/k.json"}},
            "workload.evaluation.knowledge: knowledge: a url needs the sha256 of its file",
        ),
        (
            {"workload.evaluation.knowledge": {"file": "k.json", "url": "http://host.example/k", "sha256": "0" * 64}},
            "workload.evaluation.knowledge.url: ",
        ),
        ({"workload.evaluation.knowledge": {"file": "k.json", "sha256": "0"}}, "workload.evaluation.knowledge.sha256"),
        ({"policy.name": "replace"}, "(task): policy: of a pretrained-lm task, name must be regenerate-fresh or mix"),
        ({"workload.evaluation.oldest_windows": None}, "(task): workload.evaluation.oldest_windows is needed"),
        (MIXED, "(task): workload.evaluation: under mix there are no fractions, nor a KR-test about them"),
        (MIXED | UNDIVIDED, "(task): workload.sampler: under mix a window of 16 tokens is continued by another one"),
        (
            MIXED | UNDIVIDED | {"workload.sampler.new_tokens": 16, "workload.sampler.context": 17},
            "(task): workload.sampler: under mix a window of 16 tokens is continued by another one",
        ),
        ({"workload.model.architecture.family": "gpt2"}, "workload.model.architecture: architecture: positions is"),
        ({"workload.model.architecture.positions": 64}, "workload.model.architecture: architecture: positions is"),
        ({"data": {"source": "local", "path": "x.txt"}}, "(task): data: local cannot feed a pretrained-lm task"),
        ({"scored": {"token_loss": {}}}, "(task): scored: unknown metrics ['token_loss']"),
        ({"scored": {f"{KNOWLEDGE}1": {}}}, f"(task): scored: unknown metrics ['{KNOWLEDGE}1']"),
        ({"scored": {"harness_absent": {}}}, "(task): scored: unknown metrics ['harness_absent']"),
        (
            {"scored": {"harness_texts": {}}, "workload.evaluation.harness": [TEXTS]},
            "(task): scored: unknown metrics ['harness_texts']",
        ),
    ],
)
def test_a_section_that_contradicts_itself_is_told_where_and_why(
    changes: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError) as caught:
        load(tmp_path, **changes)
    assert f"\n  {told}" in str(caught.value)


def test_weights_of_the_hub_and_of_a_folder_are_both_possible(tmp_path: Path) -> None:
    assert load(tmp_path, **model(**HUB)).spec.workload.model.path is None
    assert load(tmp_path).spec.workload.model.hub is None


# What is measured


def test_a_task_measures_what_it_names_and_every_fraction_of_its_text(tmp_path: Path) -> None:
    task = load(tmp_path, horizon=3, **{"workload.evaluation.harness": [TEXTS, PAIRS]})
    assert task.spec.metrics == (
        *PRETRAINED.metrics,
        "oldest_perplexity",
        "knowledge_retention",
        "knowledge_retention_all",
        *(f"{KNOWLEDGE}{g}" for g in (1, 2, 3)),
        "harness_texts",
        "harness_pairs",
    )
    assert [task.spec.metric(name).name for name in task.spec.metrics] == list(task.spec.metrics)
    without = load(
        tmp_path, scored=SCORED, **{"workload.evaluation.knowledge": None, "workload.evaluation.harness": []}
    )
    assert without.spec.metrics == (*PRETRAINED.metrics, "oldest_perplexity")


def test_a_task_that_measures_its_newest_fraction_can_score_it(tmp_path: Path) -> None:
    newest = {"newest_perplexity": {}, "knowledge_newest": {}}
    with pytest.raises(TaskError, match="unknown metrics"):
        load(tmp_path, scored=newest)
    spec = load(tmp_path, scored=newest, **{"workload.evaluation.newest_windows": 12}).spec
    measured = set(spec.metrics) - set(load(tmp_path).spec.metrics)
    assert measured == {"newest_perplexity", "knowledge_newest"}
    assert [spec.metric(name).direction for name in sorted(measured)] == ["higher", "lower"]
    assert {spec.metric(name).floor for name in measured} == {"unseen"}


def test_a_knowledge_test_that_is_not_made_cannot_be_scored(tmp_path: Path) -> None:
    scored = {"knowledge_retention": {"reference": 0.8, "floor": 0.5}}
    with pytest.raises(TaskError, match=r"unknown metrics \['knowledge_retention'\]"):
        load(tmp_path, scored=scored, **{"workload.evaluation.knowledge": None})
    assert "knowledge_retention" in load(tmp_path, scored=scored).spec.scored


def test_a_fractions_knowledge_is_a_share_without_a_better_end(tmp_path: Path) -> None:
    spec = load(tmp_path).spec
    about = spec.metric(f"{KNOWLEDGE}2")
    assert (about.title, about.direction, about.bounds, about.counted) == ("KR-test (fraction 2)", None, (0, 1), True)
    assert spec.metric("knowledge_retention").direction == "higher", "the oldest one is scored"
    for name in (f"{KNOWLEDGE}x", f"{KNOWLEDGE}", "absent"):
        with pytest.raises(KeyError):
            spec.metric(name)


def test_a_benchmarks_metric_is_what_the_task_declares(tmp_path: Path) -> None:
    spec = load(tmp_path, **{"workload.evaluation.harness": [TEXTS, PAIRS]}).spec
    pairs, texts = spec.metric("harness_pairs"), spec.metric("harness_texts")
    assert (pairs.direction, pairs.bounds, pairs.scale, pairs.counted) == ("higher", (0, 1), "linear", True)
    assert (texts.direction, texts.bounds, texts.scale, texts.counted) == ("lower", (1, math.inf), "log", False)


def test_a_benchmark_without_a_chance_level_has_no_floor_and_is_never_scored(tmp_path: Path) -> None:
    harness = {"workload.evaluation.harness": [PAIRS | {"chance": None}]}
    with pytest.raises(TaskError, match=r"unknown metrics \['harness_pairs'\]; .* can score \[.*'oldest_perplexity'"):
        load(tmp_path, scored={"harness_pairs": {"reference": 0.6, "floor": 0.5}}, **harness)
    assert "harness_pairs" in load(tmp_path, scored=SCORED, **harness).spec.metrics


# A share of the budget


def test_a_share_of_the_budget_shrinks_text_and_evaluation_and_nothing_else(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "policy.size": 4000,
        "workload.evaluation.test_windows": 1000,
        "workload.evaluation.selection_windows": 500,
        "workload.evaluation.oldest_windows": 20,
        "workload.evaluation.harness": [PAIRS | {"limit": 300}, TEXTS | {"limit": 20}, TEXTS | {"name": "whole"}],
    }
    whole, part = load(tmp_path, **changes), load(tmp_path, 0.1, **changes)
    assert part.id == "tiny-lm@1+budget-0.1"
    assert part.sha256 != whole.sha256
    before, after = whole.spec.workload, part.spec.workload
    evaluation = after.evaluation
    assert part.spec.policy.size == 400
    assert (evaluation.test_windows, evaluation.selection_windows, evaluation.oldest_windows) == (100, 50, 8)
    assert [task.limit for task in evaluation.harness] == [30, 5, None]
    assert after.model_copy(update={"evaluation": before.evaluation}) == before
    kept = {name: getattr(before.evaluation, name) for name in ("knowledge", "max_length", "batch_size")}
    assert {name: getattr(evaluation, name) for name in kept} == kept


def test_what_is_small_already_is_not_enlarged(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"workload.evaluation.test_windows": 3, "policy.size": 10, "horizon": 1}
    changes["workload.evaluation.harness"] = [PAIRS | {"limit": 2}]
    part = load(tmp_path, 1e-6, **changes).spec
    assert (part.policy.size, part.workload.evaluation.test_windows) == (10, 3)
    assert part.workload.evaluation.harness[0].limit == 2


@pytest.mark.parametrize(
    ("epochs", "windows", "updates"), [(1, 64, 8), (1, 71, 8), (2, 68, 17), (3, 7, 2), (1, 7, 1), (1, 0, 1)]
)
def test_updates_are_the_whole_batches_of_all_epochs(epochs: int, windows: int, updates: int) -> None:
    training = FineTuning(epochs=epochs, batch_size=8, micro_batch=4, learning_rate=1e-3)
    assert training.updates(windows) == updates


def test_planned_tokens_grow_with_the_stream(tmp_path: Path) -> None:
    spec = load(tmp_path).spec
    windows = 24 + 12 + 12
    for generation, seen in enumerate((16, 32, 48, 64)):
        assert planned_elements(spec, generation) == (seen + seen + windows) * 16

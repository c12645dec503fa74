"""What a task file may say about a benchmark of lm-eval, and where its items are found."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from harness_items import (
    PAIRS,
    QUESTIONS,
    SETS,
    SUMS,
    TEXTS,
    Evaluate,
    N,
    lines,
    minimal_pairs,
    sums,
    write_yaml,
)
from pydantic import ValidationError
from real_data import REAL_DATA

from collapsebench.errors import DataError, TaskError
from collapsebench.metrics import harness_tasks
from collapsebench.metrics.harness_settings import FORMATS, HarnessTask, read_sets

pytest.importorskip("lm_eval", reason="lm-eval is not installed")
TaskManager = pytest.importorskip("lm_eval.tasks").TaskManager

torch.set_num_threads(1)

needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is absent")

# ---------------------------------------------------------------------------------------------------------- definitions

CONFIG = {
    "output_type": "multiple_choice",
    "doc_to_text": "query",
    "doc_to_target": "gold",
    "doc_to_choice": "choices",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


def own(**changes: Any) -> dict[str, Any]:
    """A benchmark of the user's own over the questions."""
    return {"name": "mine", "file": "questions.jsonl", "metric": "acc", "config": CONFIG | changes}


def test_a_config_of_ones_own_gives_the_same_as_the_format(evaluate: Evaluate) -> None:
    config = own(doc_to_text="{{query}}", doc_to_target="{{gold}}")
    assert evaluate(config).items["mine"] == evaluate(QUESTIONS).items["questions"]
    assert config == own(doc_to_text="{{query}}", doc_to_target="{{gold}}"), "lm-eval changes what it is given"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (own(doc_to_txt="query"), "doc_to_txt"),
        (own(output_type="multiple_choices"), "multiple_choices"),
        (own(doc_to_text="{{question}}"), "'question' is undefined"),
        (own(doc_to_choice="{{choices"), "TemplateSyntaxError"),
        (own(metric_list=[{"metric": "accuracy"}]), "no metric 'accuracy'; it has acc, "),
        (own(metric_list=[{"metric": "acc", "aggregation": "average"}]), "no aggregation 'average'; it has"),
        (own(metric_list=[{"metric": "acc", "hf_evaluate": True}]), "hf_evaluate is not allowed"),
        (own(filter_list=[{"name": "none", "filter": [{"function": "no such"}]}]), "no such"),
        (own() | {"metric": "acc_norm"}, "no single metric 'acc_norm'; choose one of.*acc,none"),
        (own() | {"metric": "acc,strict"}, "no single metric 'acc,strict'"),
        (own() | {"num_fewshot": N + 5}, "Sample larger than population"),
        (
            own(metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": False}]),
            "better when higher, its definition",
        ),
    ],
)
def test_a_broken_definition_is_named(spec: dict[str, Any], message: str, evaluate: Evaluate) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        evaluate(spec)
    assert "'mine'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_the_model_cannot_read_at_once_is_explained(evaluate: Evaluate) -> None:
    with pytest.raises(TaskError, match=r"'questions'.*the 8 tokens"):
        evaluate(QUESTIONS, max_length=8)
    with pytest.raises(TaskError, match=r"'sums'.*the 100 tokens"):
        evaluate(SUMS, max_length=100)


def test_a_metric_that_would_be_bootstrapped_has_no_error(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api import metrics

    def forbidden(*_: Any, **__: Any) -> float:
        raise AssertionError("bootstrapped")

    monkeypatch.setattr(metrics, "bootstrap_stderr", forbidden)
    both = [
        {"metric": name, "aggregation": how, "higher_is_better": True}
        for name, how in (("acc", "mean"), ("mcc", "matthews_corrcoef"))
    ]
    assert evaluate(own(metric_list=both)).stderr is None
    assert evaluate(own(metric_list=both[:1])).stderr is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "one way"),
        ({"file": None}, "one way"),
        ({"task": "blimp"}, "one way"),
        ({"config": CONFIG}, "one way"),
        ({"format": None, "config": CONFIG}, "name the metric"),
        ({"format": None, "file": None, "task": "blimp"}, "name the metric"),
        ({"format": None, "config": CONFIG | {"dataset_path": "x", "class": "y"}}, "must not say class, dataset_path"),
        ({"format": None, "config": {"doc_to_text": "query"}}, "output_type"),
        ({"format": None, "config": CONFIG | {"metric_list": ["acc"]}}, "metric_list"),
        ({"format": "multiple-choice", "subset": ["order"]}, "subset"),
        ({"subset": ["order", "order"]}, "twice"),
        ({"metric": "acc_norm"}, "format blimp has the metrics acc"),
        ({"format": "gsm8k", "metric": "exact_match"}, "strict-match; exact_match,flexible-extract"),
        ({"num_fewshot": 2}, "num_fewshot"),
        ({"chance": 1.5}, "chance must lie"),
        ({"format": "text", "chance": 0.5}, "chance must lie within"),
        ({"name": "Pairs"}, "name"),
        ({"limit": 0}, "limit"),
        ({"shuffle": True}, "shuffle"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HarnessTask(**(PAIRS | changes))


REMOTE: dict[str, Any] = {"name": "pairs", "task": "pairs", "metric": "acc"}
PLACE = {"dataset": "some/pairs", "revision": "0123456789" * 4}
LOCAL = {"file": "pairs.zip", "format": "blimp"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (REMOTE | {"dataset": "some/pairs"}, "dataset and revision go together"),
        (REMOTE | {"revision": PLACE["revision"]}, "dataset and revision go together"),
        (REMOTE | PLACE | {"dataset": "pairs"}, "dataset"),
        (REMOTE | PLACE | {"revision": "main"}, "revision"),
        (PAIRS | PLACE, "like local with task"),
        (PAIRS | {"local": LOCAL}, "like local with task"),
        (REMOTE | {"local": LOCAL | {"format": "text"}}, "local: format text does not have the metric acc"),
        (REMOTE | {"local": LOCAL, "metric": "acc_norm"}, "local: format blimp does not have the metric acc_norm"),
        (REMOTE | {"local": LOCAL | {"format": "csv"}}, "local.format"),
        (REMOTE | {"local": LOCAL | {"limit": 3}}, "local.limit"),
        (REMOTE | {"local": LOCAL | {"format": "multiple-choice"}, "subset": ["order"]}, "local: .* has no sets"),
        (REMOTE | {"local": LOCAL, "num_fewshot": 2}, "local: num_fewshot must be 0 or absent for format blimp"),
    ],
)
def test_places_of_items_that_contradict_each_other_are_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HarnessTask(**spec)
    HarnessTask(**REMOTE, **PLACE, local=LOCAL, subset=("order",), num_fewshot=0)


def test_a_benchmark_declares_its_metric() -> None:
    pairs = HarnessTask(**PAIRS).declared_metric
    assert (pairs.name, pairs.direction, pairs.bounds, pairs.scale) == ("harness_pairs", "higher", (0.0, 1.0), "linear")
    assert pairs.counted
    text = HarnessTask(**TEXTS).declared_metric
    assert (text.direction, text.bounds, text.scale, text.counted) == ("lower", (1.0, math.inf), "log", False)
    bits = HarnessTask(**TEXTS, metric="bits_per_byte").declared_metric
    assert (bits.direction, bits.unit, bits.scale) == ("lower", "bits/byte", "linear")
    named = HarnessTask(name="blimp", task="blimp", metric="acc", chance=0.5).declared_metric
    assert (named.direction, named.bounds, named.counted) == ("higher", (0.0, 1.0), False)


# ---------------------------------------------------------------------------------------------------------------- files


def test_the_same_items_are_found_in_a_zip_a_member_and_a_folder(data: Path, tmp_path: Path) -> None:
    expected = read_sets(HarnessTask(**PAIRS), data)
    assert sorted(expected) == sorted(SETS)
    assert [list(row) for row in expected["order"]] == [["sentence_good", "sentence_bad"]] * N
    with zipfile.ZipFile(data / "pairs.zip") as archive:
        archive.extractall(tmp_path)
    assert read_sets(HarnessTask(**(PAIRS | {"file": "data"})), tmp_path) == expected
    member = HarnessTask(**(PAIRS | {"file": "pairs.zip/data/order.jsonl"}))
    assert read_sets(member, data) == {"order": expected["order"]}
    (tmp_path / "order.json").write_text(json.dumps(expected["order"]), "utf-8")
    whole = HarnessTask(**(PAIRS | {"file": str(tmp_path / "order.json")}))
    assert read_sets(whole, data) == {"order": expected["order"]}


@pytest.mark.parametrize(
    ("spec", "content", "message"),
    [
        (PAIRS, '{"sentence_good": "A."}\n', "row 0: sentence_bad is missing; format blimp needs"),
        (QUESTIONS, lines([{"query": "", "choices": ["a", "b"], "gold": 2}]), "row 0: gold is 2"),
        (QUESTIONS, lines([{"query": "q", "choices": ["a", ""], "gold": 0}]), "row 0: choices is"),
        (QUESTIONS, lines([{"query": "q", "choices": ["a", "b"], "gold": True}]), "row 0: gold is True"),
        (SUMS, lines([*sums()[:2], {"question": "?", "answer": 3}]), "row 2: answer is 3"),
        (TEXTS, lines([{"text": ""}]), "row 0: text is ''"),
        (TEXTS, '{"text": "a"}\n{"text": \n', "is not JSON"),
        (TEXTS, "\n", "one or more JSON objects"),
        (TEXTS, "[1]\n", "one or more JSON objects"),
    ],
)
def test_a_wrong_row_is_named(spec: dict[str, Any], content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(content, "utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_sets(HarnessTask(**(spec | {"file": "items.jsonl"})), tmp_path)
    assert "items.jsonl" in str(caught.value)


def test_files_that_are_not_what_is_wanted_are_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no files at .*absent"):
        read_sets(HarnessTask(**(PAIRS | {"file": "absent.zip"})), data)
    with pytest.raises(DataError, match=r"2 files at .*one file"):
        read_sets(HarnessTask(**(QUESTIONS | {"file": "pairs.zip"})), data)
    with pytest.raises(DataError, match=r"no sets \['word_order'\]; it has \['agreement', 'order'\]"):
        read_sets(HarnessTask(**(PAIRS | {"subset": ("order", "word_order")})), data)
    (tmp_path / "broken.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match=r"broken.zip cannot be read"):
        read_sets(HarnessTask(**(PAIRS | {"file": "broken.zip"})), tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.jsonl cannot be read"):
        read_sets(HarnessTask(**(TEXTS | {"file": "latin.jsonl"})), tmp_path)
    for name, n in (("a", 3), ("b", 4)):
        (tmp_path / "sets").mkdir(exist_ok=True)
        (tmp_path / "sets" / f"{name}.jsonl").write_text(lines(minimal_pairs(0)[:n]), "utf-8")
    with pytest.raises(DataError, match=r"same size.*'a': 3, 'b': 4"):
        read_sets(HarnessTask(**(PAIRS | {"file": "sets"})), tmp_path)


@needs_real_data
def test_the_real_files_are_read_whole() -> None:
    pairs = read_sets(HarnessTask(name="blimp", file="blimp/BLiMP.zip", format="blimp"), REAL_DATA)
    assert (len(pairs), {len(rows) for rows in pairs.values()}) == (67, {1000})
    hellaswag = HarnessTask(name="h", file="hellaswag/hellaswag_val1000.jsonl", format="multiple-choice")
    assert [len(rows) for rows in read_sets(hellaswag, REAL_DATA).values()] == [1000]
    gsm8k = HarnessTask(name="g", file="gsm8k/test.jsonl", format="gsm8k")
    assert [len(rows) for rows in read_sets(gsm8k, REAL_DATA).values()] == [1319]


# -------------------------------------------------------------------------------------------- tasks with lm-eval's name


@pytest.fixture
def named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """lm-eval knows a group, a task and a tag over local files, and one task whose data is on the hub. No network."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(harness_tasks, "hub_silence", lambda: "HF_HUB_OFFLINE is set")
    with zipfile.ZipFile(data / "pairs.zip") as archive:
        archive.extractall(tmp_path)
    for name in SETS:
        write_yaml(tmp_path, f"pairs_{name}", tmp_path / "data" / f"{name}.jsonl", "blimp", tag="all_pairs")
    aggregate = [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}]
    group = {"group": "pairs", "task": [f"pairs_{name}" for name in SETS], "aggregate_metric_list": aggregate}
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(group), "utf-8")
    remote = FORMATS["blimp"].definition | {"task": "remote", "dataset_path": "nyu-mll/blimp", "test_split": "train"}
    (tmp_path / "remote.yaml").write_text(yaml.safe_dump(remote), "utf-8")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    monkeypatch.setattr(harness_tasks, "lm_eval_tasks", lambda: manager)
    return


@pytest.mark.usefixtures("named")
def test_a_group_of_lm_eval_gives_the_same_as_its_files(evaluate: Evaluate) -> None:
    by_name = {"name": "pairs", "task": "pairs", "metric": "acc"}
    assert evaluate(by_name) == evaluate(PAIRS)
    for subset in (("order",), ("pairs_order",)):
        part = evaluate(by_name, subset=subset, limit=4)
        assert part == evaluate(PAIRS, subset=("order",), limit=4)
    alone = evaluate({"name": "order", "task": "pairs_order", "metric": "acc"})
    assert alone.items == {"pairs_order": evaluate(PAIRS).items["pairs_order"]}


@pytest.mark.usefixtures("named")
def test_a_name_that_lm_eval_does_not_have_is_an_error(evaluate: Evaluate) -> None:
    with pytest.raises(TaskError, match=r"'mine'.*no task 'pair_order'.*'pairs_order'"):
        evaluate({"name": "mine", "task": "pair_order", "metric": "acc"})
    with pytest.raises(TaskError, match=r"'mine'.*is a tag"):
        evaluate({"name": "mine", "task": "all_pairs", "metric": "acc"})
    with pytest.raises(TaskError, match=r"'mine'.*members.*pairs_order"):
        evaluate({"name": "mine", "task": "pairs", "metric": "acc", "subset": ("order", "nonsense")})
    with pytest.raises(TaskError, match=r"'mine'.*members"):
        evaluate({"name": "mine", "task": "pairs_order", "metric": "acc", "subset": ("order",)})


@pytest.mark.usefixtures("named")
def test_data_that_the_hub_does_not_give_is_named_with_a_way_out(evaluate: Evaluate) -> None:
    with pytest.raises(DataError, match=r"dataset nyu-mll/blimp.*HF_HUB_OFFLINE.*a file with a format"):
        evaluate({"name": "blimp", "task": "remote", "metric": "acc"})


@pytest.mark.parametrize("reason", [None, "no route to host"])
def test_a_silent_hub_is_not_asked_and_its_cache_used(reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    flags = (datasets.config, huggingface_hub.constants)
    for flag in flags:
        monkeypatch.setattr(flag, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(harness_tasks, "hub_silence", lambda: reason)
    with harness_tasks._hub_or_its_cache():
        assert [flag.HF_HUB_OFFLINE for flag in flags] == [reason is not None] * 2
    assert [flag.HF_HUB_OFFLINE for flag in flags] == [False, False]

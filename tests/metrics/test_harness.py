"""Benchmarks of lm-eval on a model in memory: its numbers by hand and by its command line."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import statistics
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from harness_items import (
    MAX_LENGTH,
    PAIRS,
    QUESTIONS,
    SETS,
    SUMS,
    TEXTS,
    Evaluate,
    N,
    all_formats,
    lines,
    log_likelihood,
    log_softmax,
    minimal_pairs,
    new_model,
    questions,
    random_states,
    sums,
    write_yaml,
)
from real_data import REAL_DATA
from tiny_task import paragraphs
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.metrics import harness_tasks
from collapsebench.metrics.harness import evaluate_harness
from collapsebench.metrics.harness_settings import FORMATS, HarnessTask, read_sets
from collapsebench.metrics.language_model import continuation_log_probs, predict

HFLM = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed").HFLM

torch.set_num_threads(1)

needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is absent")

# --------------------------------------------------------------------------------------------------------------- values


def test_minimal_pairs_are_won_by_the_sentence_of_higher_log_likelihood(
    evaluate: Evaluate, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = {}
    for seed, name in enumerate(SETS):
        pairs = [(pair["sentence_good"], pair["sentence_bad"]) for pair in minimal_pairs(seed)]
        # with lm-eval's space between the empty context and the sentence
        margins = [
            log_likelihood(model, tokenizer, "", " " + good) - log_likelihood(model, tokenizer, "", " " + bad)
            for good, bad in pairs
        ]
        assert min(map(abs, margins)) > 1e-3, "no ties, so that rounding decides nothing"
        expected[f"pairs_{name}"] = tuple(float(margin > 0) for margin in margins)
    found = evaluate(PAIRS)
    assert found.items == expected
    assert found.n == 2 * N
    means = [statistics.mean(column) for column in expected.values()]
    assert 0 < min(means) <= max(means) < 1, "a test of nothing"
    assert found.value == pytest.approx(statistics.mean(means), rel=1e-12)
    errors = [statistics.stdev(column) / math.sqrt(N) for column in expected.values()]
    assert found.stderr == pytest.approx(math.hypot(*errors) / 2, rel=1e-12)


@pytest.mark.parametrize("metric", ["acc", "acc_norm"])
def test_choices_are_compared_by_log_likelihood_or_per_character(
    metric: str, evaluate: Evaluate, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = []
    for row in questions():
        scores = [log_likelihood(model, tokenizer, row["query"], " " + choice) for choice in row["choices"]]
        if metric == "acc_norm":
            scores = [score / len(choice) for score, choice in zip(scores, row["choices"], strict=True)]
        expected.append(float(np.argmax(scores) == row["gold"]))
    found = evaluate(QUESTIONS, metric=metric)
    assert found.items == {"questions": tuple(expected)}
    assert 0 < found.value < 1, "a test of nothing"
    assert found.value == pytest.approx(statistics.mean(expected))
    assert found.stderr == pytest.approx(statistics.stdev(expected) / math.sqrt(N))
    assert found.n == N


def test_written_answers_are_the_greedy_ones(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    rows = [{"prompt": text[: 20 + 7 * i], "answer": "never written"} for i, text in enumerate(paragraphs(6, 21))]
    for row in rows[::2]:
        ids = tokenizer(row["prompt"])["input_ids"]
        for _ in range(5):
            ids.append(int(log_softmax(model, ids)[-1].argmax()))
        row["answer"] = tokenizer.decode(ids[-5:])
    (tmp_path / "rows.jsonl").write_text(lines(rows), "utf-8")
    config = {
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 5, "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    task = HarnessTask(name="copy", file="rows.jsonl", config=config, metric="exact_match")
    for size in (1, 4):
        found = evaluate_harness(model, tokenizer, [task], tmp_path, batch_size=size, max_length=MAX_LENGTH)
        assert found["harness_copy"].items == {"copy": (1.0, 0.0, 1.0, 0.0, 1.0, 0.0)}


def test_perplexities_are_those_of_the_whole_text(
    evaluate: Evaluate, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = paragraphs(5, 11)
    log_p = [log_likelihood(model, tokenizer, "", text) for text in texts]
    found = evaluate(TEXTS)
    assert found.items["texts"] == pytest.approx(log_p, rel=1e-5)
    assert found.value == pytest.approx(math.exp(-sum(log_p) / sum(len(text.split()) for text in texts)), rel=1e-4)
    assert (found.stderr, found.n) == (None, 5)
    size = sum(len(text.encode()) for text in texts)
    found = evaluate(TEXTS, metric="bits_per_byte")
    assert found.value == pytest.approx(-sum(log_p) / size / math.log(2), rel=1e-5)


@pytest.mark.parametrize("max_length", [48, 101])
def test_our_perplexity_equals_rolling_log_likelihood(
    max_length: int, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path
) -> None:
    """EOS before the first token; windows that share one token; the last one filled up with context on its left."""
    text = (data / "text.txt").read_text("utf-8")
    stream = torch.tensor([tokenizer.eos_token_id, *tokenizer(text)["input_ids"]])
    n = len(stream) - 1
    whole, rest = divmod(n, max_length)
    assert whole > 2
    assert rest > 2
    windows = stream[: whole * max_length + 1].unfold(0, max_length + 1, max_length)
    last = stream[None, -(max_length + 1) :]
    spans = torch.tensor([[max_length + 1 - rest, max_length + 1]])
    loss = predict(model, windows, 3).loss.double().sum() - continuation_log_probs(model, last, spans, 1).sum()
    lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=3, max_length=max_length)
    task = HarnessTask(name="text", file="text.txt", format="text")
    found = evaluate_harness(model, tokenizer, [task], data, batch_size=3, max_length=max_length)
    (rolling,) = found["harness_text"].items["text"]
    (direct,) = lm.loglikelihood_rolling([_Request(text)], disable_tqdm=True)
    assert rolling == direct
    assert math.exp(loss / n) == pytest.approx(math.exp(-rolling / n), rel=1e-4)
    assert loss.item() == pytest.approx(-rolling, rel=1e-6)


class _Request:
    def __init__(self, text: str) -> None:
        self.args = (text,)


# Probabilities of the choices, so that a difference would show: Brier's score.
BRIER: dict[str, Any] = {
    "name": "brier",
    "file": "questions.jsonl",
    "metric": "brier_score",
    "config": FORMATS["multiple-choice"].definition | {"metric_list": [{"metric": "brier_score"}]},
}


def test_results_do_not_depend_on_the_batch_size(evaluate: Evaluate) -> None:
    one = [evaluate(spec, batch_size=1) for spec in (PAIRS, QUESTIONS, TEXTS, BRIER)]
    assert one[3].items == {"brier": ()}  # its values per item are distributions
    assert one[3].n == N
    for size in (3, 8):
        for spec, expected in zip((PAIRS, QUESTIONS, TEXTS, BRIER), one, strict=True):
            found = evaluate(spec, batch_size=size)
            assert found.value == pytest.approx(expected.value, rel=1e-5)
            for name, column in expected.items.items():
                assert found.items[name] == pytest.approx(column, rel=1e-5)


def test_a_subset_and_a_limit_select_the_first_items_of_named_sets(evaluate: Evaluate) -> None:
    whole, part = evaluate(PAIRS), evaluate(PAIRS, subset=("agreement",), limit=5)
    assert part.items == {"pairs_agreement": whole.items["pairs_agreement"][:5]}
    assert part.n == 5
    assert part.value == statistics.mean(part.items["pairs_agreement"])
    assert evaluate(QUESTIONS, limit=3).items["questions"] == evaluate(QUESTIONS).items["questions"][:3]
    assert evaluate(PAIRS, limit=1).stderr is None  # one item has no deviation


def test_benchmarks_do_not_depend_on_their_company(
    evaluate: Evaluate, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path
) -> None:
    tasks = [HarnessTask(**spec) for spec in (TEXTS, PAIRS, QUESTIONS)]
    found = evaluate_harness(model, tokenizer, tasks, data, batch_size=4, max_length=MAX_LENGTH)
    assert list(found) == ["harness_texts", "harness_pairs", "harness_questions"]
    assert list(found.values()) == [evaluate(spec) for spec in (TEXTS, PAIRS, QUESTIONS)]


def test_every_token_is_reported(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path) -> None:
    told: list[int] = []
    task = HarnessTask(**TEXTS)
    evaluate_harness(model, tokenizer, [task], data, batch_size=1, max_length=MAX_LENGTH, on_batch=told.append)
    assert sum(told) == sum(len(tokenizer(text)["input_ids"]) for text in paragraphs(5, 11))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that are given to the model, instead of writing after them: every third answer is right."""
    prompts: list[str] = []

    def generate_until(_: Any, requests: list[Any], **__: Any) -> list[str]:
        prompts.extend(request.args[0] for request in requests)
        endings = [" #### {}", " so {} it is", " I do not know"]
        return [endings[i % 3].format(2 * (i + 1)) for i in range(len(requests))]

    monkeypatch.setattr(HFLM, "generate_until", generate_until)
    return prompts


def test_sums_are_read_from_the_answer_by_the_filter_that_is_named(evaluate: Evaluate, written: list[str]) -> None:
    assert evaluate(SUMS).items == {"sums": (1.0, 0.0, 0.0) * 4}
    assert evaluate(SUMS, metric="exact_match,flexible-extract").items == {"sums": (1.0, 1.0, 0.0) * 4}


def test_examples_never_hold_the_question_and_are_always_the_same(evaluate: Evaluate, written: list[str]) -> None:
    evaluate(SUMS)
    random.seed(99)
    evaluate(SUMS)
    assert written[:N] == written[N:]
    for prompt, row in zip(written[:N], sums(), strict=True):
        assert prompt.count("Question:") == 6
        assert prompt.count(f"Question: {row['question']}\nAnswer:") == 1
        assert prompt.endswith(f"Question: {row['question']}\nAnswer:")
    assert len({prompt.rpartition("Question:")[0] for prompt in written}) > 1
    evaluate(SUMS, num_fewshot=0, limit=2)
    assert written[2 * N :] == [f"Question: {row['question']}\nAnswer:" for row in sums()[:2]]


# ----------------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_diverged_model_scores_nan(weight: float, tokenizer: PreTrainedTokenizerFast, data: Path) -> None:
    model = new_model()
    with torch.no_grad():
        model.model.norm.weight[3] = weight
    before = random_states()
    found = evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert random_states() == before
    assert [math.isnan(result.value) for result in found.values()] == [True] * 4
    assert {(result.stderr, result.n) for result in found.values()} == {(None, 0)}


def test_an_infinite_perplexity_is_nan(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HFLM, "loglikelihood_rolling", lambda _, requests: [-1e9 for _ in requests])
    assert math.isnan(evaluate(TEXTS).value)


# ----------------------------------------------------------------------------------------------------- its command line


@pytest.mark.slow
def test_items_are_those_of_the_command_line(
    evaluate: Evaluate, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    with zipfile.ZipFile(data / "pairs.zip") as archive:
        archive.extractall(tmp_path)
    for name in SETS:
        write_theirs(tasks, f"pairs_{name}", tmp_path / "data" / f"{name}.jsonl", "blimp/_template_yaml")
    raw, processed = endings()
    (tmp_path / "raw.jsonl").write_text(lines(raw), "utf-8")
    (tmp_path / "processed.jsonl").write_text(lines(processed), "utf-8")
    write_theirs(tasks, "endings", tmp_path / "raw.jsonl", "hellaswag/hellaswag.yaml")
    write_yaml(tasks, "our_questions", data / "questions.jsonl", "multiple-choice", num_fewshot=2)
    write_yaml(tasks, "our_sums", data / "sums.jsonl", "gsm8k")
    write_yaml(tasks, "our_texts", data / "texts.jsonl", "text")
    names = [*(f"pairs_{name}" for name in SETS), "endings", "our_questions", "our_sums", "our_texts"]
    theirs = command_line(tmp_path, tasks, names)
    pairs = evaluate(PAIRS)
    for name in SETS:
        assert pairs.items[f"pairs_{name}"] == theirs[f"pairs_{name}"]["acc,none"]
    for metric in ("acc", "acc_norm"):
        ours = evaluate(QUESTIONS | {"file": str(tmp_path / "processed.jsonl")}, metric=metric)
        assert ours.items["questions"] == theirs["endings"][f"{metric},none"]
        ours = evaluate(QUESTIONS, metric=metric, num_fewshot=2)
        assert ours.items["questions"] == theirs["our_questions"][f"{metric},none"]
        assert ours.stderr == pytest.approx(theirs["our_questions"][f"{metric}_stderr,none"], rel=1e-12)
    for metric in FORMATS["gsm8k"].metrics:
        assert evaluate(SUMS, metric=metric).items["sums"] == theirs["our_sums"][metric]
    assert evaluate(TEXTS).value == pytest.approx(theirs["our_texts"]["value of word_perplexity,none"], rel=1e-6)


def write_theirs(folder: Path, name: str, file: Path, definition: str) -> None:
    """A task of lm-eval in its own words, over a file instead of its dataset."""
    definitions = Path(import_module("lm_eval.tasks").__file__ or "").parent
    place = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(file)}}}
    splits = {"training_split": None, "validation_split": None, "test_split": "test"}
    content = {"include": str(definitions / definition), "task": name, **place, **splits}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), "utf-8")


def endings() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Items of HellaSwag's columns, and what lm-eval makes of them."""
    raw, processed = [], []
    for row in questions(5):
        first = {"activity_label": "Mills", "ctx_a": f"{row['query']} [title]", "ctx_b": "it was"}
        raw.append(first | {"endings": row["choices"], "label": str(row["gold"])})
        processed.append(row | {"query": f"Mills: {row['query']}. It was"})
    return raw, processed


def command_line(folder: Path, tasks: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Task → metric → per item, and ``metric_stderr`` and ``value of metric``."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu", "--batch_size", "5"),
            *("--model_args", f"pretrained={folder / 'model'},dtype=float32,max_length={MAX_LENGTH}"),
            *("--include_path", str(tasks), "--tasks", ",".join(names)),
            *("--log_samples", "--output_path", str(folder / "out")),
        ],
        check=True,
        env=environment,
        cwd=folder,
    )
    (summary,) = (folder / "out").rglob("results_*.json")
    values = json.loads(summary.read_text("utf-8"))["results"]
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found[name] = {key: value for key, value in values[name].items() if "_stderr" in key}
        found[name] |= {f"value of {key}": value for key, value in values[name].items()}
        (file,) = (folder / "out").rglob(f"samples_{name}_*.jsonl")
        samples = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        for key in {(metric, sample["filter"]) for sample in samples for metric in sample["metrics"]}:
            chosen = sorted((s for s in samples if s["filter"] == key[1]), key=lambda s: s["doc_id"])
            if not isinstance(chosen[0][key[0]], list):
                found[name][",".join(key)] = tuple(float(sample[key[0]]) for sample in chosen)
    return found


@pytest.mark.slow
def test_lm_eval_has_the_names_that_tasks_use() -> None:
    known = harness_tasks.lm_eval_tasks().task_index
    assert {"blimp", "blimp_causative", "hellaswag", "gsm8k", "wikitext"} <= known.keys()
    if REAL_DATA.is_dir():
        sets = read_sets(HarnessTask(name="blimp", file="blimp/BLiMP.zip", format="blimp"), REAL_DATA)
        assert sorted(known["blimp"].cfg["task"]) == sorted(f"blimp_{name}" for name in sets)
    for name in ("blimp_causative", "gsm8k"):  # our definitions are lm-eval's
        theirs = known[name].cfg
        ours = FORMATS["gsm8k" if name == "gsm8k" else "blimp"].definition
        assert {key: theirs[key] for key in ours} == ours

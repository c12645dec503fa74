"""Benchmarks of lm-eval on a model in memory: its numbers by hand and by its command line, and none of its traces."""

from __future__ import annotations

import ast
import copy
import json
import logging
import math
import os
import random
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from real_data import REAL_DATA
from tiny_task import paragraphs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.errors import DataError, TaskError
from collapsebench.metrics import harness, harness_tasks
from collapsebench.metrics.harness import HarnessResult, evaluate_harness
from collapsebench.metrics.harness_settings import FORMATS, HarnessTask, read_sets
from collapsebench.metrics.language_model import continuation_log_probs, predict

HFLM = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval is not installed").HFLM
TaskManager = pytest.importorskip("lm_eval.tasks").TaskManager

torch.set_num_threads(1)

needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is absent")

MAX_LENGTH = 400
SETS = ("order", "agreement")
N = 12  # items per set


# ---------------------------------------------------------------------------------------------------- a model and items


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    bpe.train_from_iterator(
        paragraphs(100),
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=special[0])


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return new_model().eval()


def new_model() -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=320,
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=1024,
                initializer_range=0.3,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=0,
                attention_dropout=0.5,  # seen in training mode only
            )
        )


def minimal_pairs(seed: int) -> list[dict[str, str]]:
    """Sentences, and the same with two words exchanged."""
    draw = random.Random(seed)
    pairs = []
    for text in paragraphs(N, seed):
        good = text.split(". ")[0].removesuffix(".")
        words = good.split()
        i = draw.randrange(1, len(words) - 1)
        bad = [*words[: i - 1], words[i], words[i - 1], *words[i + 1 :]]
        pairs.append({"sentence_good": f"{good}.", "sentence_bad": f"{' '.join(bad)}.", "UID": "not needed"})
    return pairs


def questions(seed: int = 3) -> list[dict[str, Any]]:
    """A sentence and three or four possible next ones, of different lengths."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for text in paragraphs(N, seed):
        query, *rest = text.split(". ")
        choices = [sentence[: draw.randint(10, 60)].strip() for sentence in [*rest, *rest][:4]]
        rows.append({"ind": len(rows), "query": query, "choices": choices, "gold": draw.randrange(len(choices))})
    return rows


def sums() -> list[dict[str, Any]]:
    return [{"question": f"What is {i} plus {i}?", "answer": f"It is {i + i}.\n#### {i + i}"} for i in range(1, N + 1)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of items in every format; not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    with zipfile.ZipFile(folder / "pairs.zip", "w") as archive:
        for seed, name in enumerate(SETS):
            archive.writestr(f"data/{name}.jsonl", lines(minimal_pairs(seed)))
            archive.writestr(f"__MACOSX/data/._{name}.jsonl", "what macOS adds")
        archive.writestr("data/.DS_Store", "as well")
    (folder / "questions.jsonl").write_text(lines(questions()), "utf-8")
    (folder / "sums.jsonl").write_text(lines(sums()), "utf-8")
    (folder / "texts.jsonl").write_text(lines([{"text": text} for text in paragraphs(5, 11)]), "utf-8")
    (folder / "text.txt").write_text("\n".join(paragraphs(12, 13)), "utf-8")
    return folder


PAIRS: dict[str, Any] = {"name": "pairs", "file": "pairs.zip", "format": "blimp", "chance": 0.5}
QUESTIONS: dict[str, Any] = {"name": "questions", "file": "questions.jsonl", "format": "multiple-choice"}
SUMS: dict[str, Any] = {"name": "sums", "file": "sums.jsonl", "format": "gsm8k", "chance": 0.0}
TEXTS: dict[str, Any] = {"name": "texts", "file": "texts.jsonl", "format": "text"}

Evaluate = Callable[..., HarnessResult]


@pytest.fixture
def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path) -> Evaluate:
    """Evaluate one benchmark: ``evaluate(PAIRS, limit=3)``."""

    def result(spec: dict[str, Any], *, batch_size: int = 4, max_length: int = MAX_LENGTH, **changes: Any) -> Any:
        task = HarnessTask(**(spec | changes))
        found = evaluate_harness(model, tokenizer, [task], data, batch_size=batch_size, max_length=max_length)
        assert list(found) == [task.metric_name]
        return found[task.metric_name]

    return result


def log_softmax(model: LlamaForCausalLM, ids: list[int]) -> Tensor:
    """(T, V) log-probabilities in float64 of what follows each token."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def log_likelihood(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, context: str, text: str) -> float:
    """Of a text after a context, or after EOS."""
    before = tokenizer(context)["input_ids"] if context else [0]
    scored = tokenizer(context + text)["input_ids"][len(before) if context else 0 :]
    log_p = log_softmax(model, before + scored)
    return sum(log_p[len(before) - 1 + i, token].item() for i, token in enumerate(scored))


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


# ------------------------------------------------------------------------------------------------------ no side effects


def random_states() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, keys.tolist(), *rest, torch.get_rng_state().tolist()]


def all_formats() -> list[HarnessTask]:
    short = SUMS | {"limit": 1, "num_fewshot": 1}
    return [HarnessTask(**spec) for spec in (PAIRS, QUESTIONS, short, TEXTS)]


def test_random_states_and_training_flags_are_what_they_were(tokenizer: PreTrainedTokenizerFast, data: Path) -> None:
    model = new_model().train()
    model.model.layers[0].eval()
    flags = [module.training for module in model.modules()]
    before = random_states()
    found = evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert random_states() == before
    assert [module.training for module in model.modules()] == flags
    again = evaluate_harness(model.eval(), tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert found == again, "evaluated without dropout"


def test_model_and_tokenizer_are_what_they_were(tokenizer: PreTrainedTokenizerFast, data: Path) -> None:
    model = new_model()
    parameters = {name: (id(weight), weight.detach().clone()) for name, weight in model.named_parameters()}
    words, padding = len(tokenizer), tokenizer.padding_side
    evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    for name, weight in model.named_parameters():
        assert id(weight) == parameters[name][0]
        assert torch.equal(weight, parameters[name][1])
        assert weight.grad is None
        assert weight.requires_grad
    assert not model._forward_hooks
    assert (len(tokenizer), tokenizer.padding_side, tokenizer.pad_token) == (words, padding, None)


def test_random_states_are_restored_after_a_failure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path
) -> None:
    def interrupted(_: int) -> None:
        random.random()
        torch.rand(1)
        raise KeyboardInterrupt

    before = random_states()
    with pytest.raises(KeyboardInterrupt):
        evaluate_harness(
            model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH, on_batch=interrupted
        )
    assert random_states() == before
    assert not model._forward_hooks


def test_nothing_is_written_and_nothing_printed(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import datasets
    import lm_eval
    from tqdm import tqdm

    monkeypatch.chdir(tmp_path)
    places = [tmp_path, data, Path(datasets.config.HF_CACHE_HOME), Path(lm_eval.__file__).parent / "caching"]
    before = [contents(place) for place in places]
    level, shown = logging.getLogger("lm_eval").level, vars(tqdm)["__init__"]
    evaluate_harness(model, tokenizer, all_formats(), data, batch_size=4, max_length=MAX_LENGTH)
    assert [contents(place) for place in places] == before
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lm_eval").level == level
    assert vars(tqdm)["__init__"] is shown


def contents(folder: Path) -> list[tuple[str, int, int]]:
    files = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.exists())


def test_lm_eval_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, collapsebench.metrics.harness_settings; assert not {'torch', 'lm_eval'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    names = []
    for module in (harness, harness_tasks):
        source = ast.parse(Path(module.__file__).read_text("utf-8"))
        imports = [node for node in source.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names += [alias.name for node in imports for alias in node.names]
        names += [node.module or "" for node in imports if isinstance(node, ast.ImportFrom)]
    assert "collapsebench.metrics.harness_settings" in names
    assert not [name for name in names if name.split(".")[0] in ("lm_eval", "datasets", "huggingface_hub")]


def test_a_missing_lm_eval_says_how_to_get_it(evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    with pytest.raises(DataError, match=r"pip install 'collapsebench\[pretrained\]'"):
        evaluate(PAIRS)


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


def write_yaml(folder: Path, name: str, file: Path, form: Any, **more: Any) -> None:
    """A task of lm-eval in its own format, over a file."""
    source = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
    }
    content = FORMATS[form].definition | source | more
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content), "utf-8")


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

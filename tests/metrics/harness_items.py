"""Items of benchmarks in every format, a tiny model to answer them, and its log-likelihoods by hand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tiny_task import paragraphs
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.metrics.harness import HarnessResult
from collapsebench.metrics.harness_settings import FORMATS, HarnessTask

torch.set_num_threads(1)

MAX_LENGTH = 400
SETS = ("order", "agreement")
N = 12  # items per set


def new_model(vocab_size: int = 320) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocab_size,
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


PAIRS: dict[str, Any] = {"name": "pairs", "file": "pairs.zip", "format": "blimp", "chance": 0.5}
QUESTIONS: dict[str, Any] = {"name": "questions", "file": "questions.jsonl", "format": "multiple-choice"}
SUMS: dict[str, Any] = {"name": "sums", "file": "sums.jsonl", "format": "gsm8k", "chance": 0.0}
TEXTS: dict[str, Any] = {"name": "texts", "file": "texts.jsonl", "format": "text"}

Evaluate = Callable[..., HarnessResult]


def log_softmax(model: LlamaForCausalLM, ids: list[int]) -> Tensor:
    """(T, V) log-probabilities in float64 of what follows each token."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def log_likelihood(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, context: str, text: str) -> float:
    """Log-likelihood of a text after a context, or after EOS."""
    before = tokenizer(context)["input_ids"] if context else [0]
    scored = tokenizer(context + text)["input_ids"][len(before) if context else 0 :]
    log_p = log_softmax(model, before + scored)
    return sum(log_p[len(before) - 1 + i, token].item() for i, token in enumerate(scored))


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


def random_states() -> list[Any]:
    kind, keys, *rest = np.random.get_state()
    return [random.getstate(), kind, keys.tolist(), *rest, torch.get_rng_state().tolist()]


def all_formats() -> list[HarnessTask]:
    short = SUMS | {"limit": 1, "num_fewshot": 1}
    return [HarnessTask(**spec) for spec in (PAIRS, QUESTIONS, short, TEXTS)]

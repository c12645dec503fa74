"""What the tests of lm-eval's benchmarks share."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from harness_items import (
    MAX_LENGTH,
    SETS,
    Evaluate,
    lines,
    minimal_pairs,
    new_model,
    questions,
    sums,
)
from tiny_task import paragraphs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from collapsebench.metrics.harness import evaluate_harness
from collapsebench.metrics.harness_settings import HarnessTask


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


@pytest.fixture
def evaluate(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, data: Path) -> Evaluate:
    """Evaluate one benchmark: ``evaluate(PAIRS, limit=3)``."""

    def result(spec: dict[str, Any], *, batch_size: int = 4, max_length: int = MAX_LENGTH, **changes: Any) -> Any:
        task = HarnessTask(**(spec | changes))
        found = evaluate_harness(model, tokenizer, [task], data, batch_size=batch_size, max_length=max_length)
        assert list(found) == [task.metric_name]
        return found[task.metric_name]

    return result

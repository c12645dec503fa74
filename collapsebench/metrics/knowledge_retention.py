"""The KR-test of ForTIFAI (arXiv 2509.08972): does a model still know what it was once trained on?

An item is a short context about a training article, a true sentence and a false one. The model is right when the mean
log-probability of the true sentence's tokens, given the context, is higher. Chance is about one half.

The scored tokens are defined exactly, for every tokeniser:

- The text is ``context + " " + sentence``, stripped at both ends and tokenised in one piece, like running text. The
  sentence's tokens are all those with a character after the context, including the space.
- BOS comes first only if the tokeniser adds it to a text by itself (Llama and Gemma do; SmolLM2 and our own do not).
  EOS is never appended. An empty context is replaced by BOS, or by EOS if there is no BOS, as in lm-eval.
- A text longer than the model's maximum length loses the beginning of its context, but never BOS or any part of the
  sentence.
- ``compared="sentence"`` takes the mean over all tokens of each sentence. The authors' code compares only as many
  tokens as the *shorter* sentence has (``compared="shorter"``), so the end of the longer one does not count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from collapsebench.errors import DataError
from collapsebench.metrics.language_model import continuation_log_probs


@dataclass(frozen=True)
class KnowledgeItem:
    """An item of the KR-test.

    Attributes:
        context: text before either sentence; may be empty.
        sentence_true, sentence_false: the two continuations.
        location: where the article begins in the training stream, if the file says so. In the paper's files it is the
            row of the raw training split on the hub that contains the article's title: WikiText-2 has 36,718 rows, and
            the first article begins at row 1. Items about the same article share it.
    """

    context: str
    sentence_true: str
    sentence_false: str
    location: int | None = None


@dataclass(frozen=True)
class Answers:
    """A model's answers.

    Attributes:
        margins: (n,) float64, mean log-probability of the true sentence minus that of the false one, in nats per token.
        correct: (n,) bool, margin above 0.
    """

    margins: Tensor
    correct: Tensor

    @property
    def accuracy(self) -> float:
        """Share of correct answers; NaN if the model's probabilities are NaN."""
        return self.correct.double().mean().item() if self.margins.isfinite().all() else math.nan


@dataclass(frozen=True)
class FractionAccuracy:
    """Accuracy on one part of the training stream: the value (NaN without items) and the number of items."""

    value: float
    n: int


def read_items(path: Path) -> list[KnowledgeItem]:
    """Read a file in the paper's format: JSON, a list of items, or an object with the list as ``data`` or as values.

    Raises:
        DataError: the file does not exist or is not JSON, or an item is invalid; the message names its index and key.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.") from error
    if isinstance(content, dict):
        rows = content["data"] if isinstance(content.get("data"), list) else list(content.values())
    else:
        rows = content
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path}: expected a list of items with context, sentence_true and sentence_false.")
    return [_item(row, f"{path}, item {index}") for index, row in enumerate(rows)]


def _item(row: Any, where: str) -> KnowledgeItem:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with context, sentence_true and sentence_false, found {row!r}.")
    for key in ("context", "sentence_true", "sentence_false"):
        if not isinstance(row.get(key), str):
            raise DataError(f"{where}: {key} must be a text, found {row.get(key, 'nothing')!r}.")
        if key != "context" and not row[key].strip():
            raise DataError(f"{where}: {key} is empty.")
    location = row.get("location")
    if location is not None and (type(location) is not int or location < 0):
        raise DataError(f"{where}: location must be a whole number, at least 0, found {location!r}.")
    return KnowledgeItem(row["context"], row["sentence_true"], row["sentence_false"], location)


def answer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[KnowledgeItem],
    batch_size: int,
    max_length: int,
    compared: Literal["sentence", "shorter"] = "sentence",
    on_batch: Callable[[int], None] = lambda _: None,
) -> Answers:
    """Evaluate a model on all items.

    Args:
        model: a decoder-only `transformers` model in evaluation mode. tokenizer: a fast tokeniser.
        batch_size: sequences at a time; the margins do not depend on it beyond rounding.
        max_length: tokens that the model reads at once.
        compared: the tokens that the mean is taken over; see the module's docstring.
        on_batch: called with the number of tokens after every batch.

    Raises:
        DataError: a sentence is longer than `max_length`, or an empty context cannot be replaced.
    """
    tokens, spans = encode(tokenizer, items, max_length)
    if compared == "shorter":
        shorter = (spans[:, 1] - spans[:, 0]).view(-1, 2).min(-1, keepdim=True).values.expand(-1, 2).flatten()
        spans = torch.stack([spans[:, 0], spans[:, 0] + shorter], dim=1)
    total = continuation_log_probs(model, tokens, spans, batch_size, on_batch)
    true, false = (total / (spans[:, 1] - spans[:, 0])).view(-1, 2).T
    return Answers(true - false, true > false)


def encode(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[KnowledgeItem], max_length: int
) -> tuple[Tensor, Tensor]:
    """Tokenise the true and the false version of every item.

    Returns:
        (2n, T) int64 tokens, true and false alternating, padded on the right with 0; (2n, 2) int64, the span of the
        sentence in each.

    Raises:
        DataError: as for `answer`.
    """
    contexts = [item.context.strip() for item in items for _ in range(2)]
    sentences = [sentence.strip() for item in items for sentence in (item.sentence_true, item.sentence_false)]
    texts = [f"{c} {s}" if c else s for c, s in zip(contexts, sentences, strict=True)]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    bos = tokenizer.bos_token_id
    prefix = [bos] if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else []
    rows, starts = [], []
    for i, (ids, offsets) in enumerate(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)):
        first = next(k for k, (_, end) in enumerate(offsets) if end > len(contexts[i]))
        before, sentence = prefix + ids[:first], ids[first:]
        if not before:
            before = [bos if bos is not None else tokenizer.eos_token_id]
        if before == [None] or len(sentence) >= max_length:
            reason = (
                "no context, and the tokeniser neither BOS nor EOS"
                if before == [None]
                else (f"a sentence of {len(sentence)} tokens; the model reads {max_length}, and one must come before")
            )
            raise DataError(f"KR-test, item {i // 2} has {reason}: {texts[i]!r}.")
        if (too_many := len(before) + len(sentence) - max_length) > 0:
            before = prefix + before[len(prefix) + too_many :]
        rows.append(before + sentence)
        starts.append(len(before))
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return tokens, torch.tensor([(start, len(row)) for start, row in zip(starts, rows, strict=True)])


def fraction_accuracy(fractions: Sequence[int], correct: Sequence[bool] | Tensor, parts: int) -> list[FractionAccuracy]:
    """Accuracy per fraction of the training stream, oldest first.

    An item belongs to the fraction in which its article begins. (The authors' code instead divides the *list of items*,
    sorted by location, into equal parts.)

    Args:
        fractions: the fraction of each item. correct: whether each was answered correctly. parts: number of fractions.
    """
    hits: list[list[bool]] = [[] for _ in range(parts)]
    for fraction, hit in zip(fractions, correct, strict=True):
        hits[fraction].append(bool(hit))
    return [FractionAccuracy(sum(part) / len(part) if part else math.nan, len(part)) for part in hits]

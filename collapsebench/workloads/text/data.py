"""Prepares text for training and evaluation: tokeniser, windows, knowledge pairs. The result is cached."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from collapsebench.data.document import Document
from collapsebench.data.documents import check_listing, load_documents, split_documents
from collapsebench.data.sources import EmbeddedData, HubText, LocalText, Splits
from collapsebench.errors import DataError
from collapsebench.metrics.knowledge_pairs import Pair, build_pairs
from collapsebench.paths import cache_dir
from collapsebench.task import Task
from collapsebench.workloads.text.settings import TextSettings

END_OF_TEXT = "<|endoftext|>"
_FORMAT = 2  # incremented when the preparation below changes
_ENTITY = re.compile(rb"(?<=[a-z0-9,;:'(\"-] )[A-Z][a-z][A-Za-z'-]+|[0-9][0-9.,]*")
_PAIR_CONTEXT = 24  # tokens before the scored part of a pair


@dataclass(frozen=True)
class TextData:
    """All data of a text task.

    Attributes:
        tokenizer: byte-level BPE, trained on the training split only; id 0 ends a document.
        train, selection, test: (n, block) int64 windows of the three splits, with documents joined by id 0.
        train_counts: (V,) int64, token counts of the training split.
        pair_tokens: (4·pairs, T) int64, padded; four versions of each pair (see `knowledge_pairs.Pair.versions`).
        pair_spans: (4·pairs, 2) int64, the scored span of each version.
        sha256: digest of all tensors and the tokeniser.
        test_entities: (n, block) int64, 1 where a token of `test` belongs to a name or number; None: not needed.
    """

    tokenizer: Tokenizer
    train: Tensor
    selection: Tensor
    test: Tensor
    train_counts: Tensor
    pair_tokens: Tensor
    pair_spans: Tensor
    sha256: str
    test_entities: Tensor | None = None


def prepared_text(task: Task) -> TextData:
    """Return the task's data from the cache, or prepare it now.

    Raises:
        DataError: the data is missing, too small for the task, or differs from what the task lists.
    """
    folder = cache_dir() / "prepared" / f"{task.spec.name}-{_cache_key(task)[:24]}"
    if not folder.is_dir():
        _prepare(task, folder)
    try:
        return _load(folder)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the prepared data at {folder} is damaged ({error}); delete that folder and try again."
        ) from error


def _cache_key(task: Task) -> str:
    spec = task.spec
    assert isinstance(spec.workload, TextSettings)
    content = {
        "format": _FORMAT,
        "data": spec.data.model_dump(mode="json"),
        "splits": spec.splits.model_dump(mode="json"),
        "listing": task.split_listing,
        "text": spec.workload.model_dump(mode="json", include={"vocab_size", "block", "evaluation"}),
        "libraries": {name: _version(name) for name in ("tokenizers", "mwparserfromhell")},
        "source": _source_stamp(task),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _source_stamp(task: Task) -> object:
    """Digest of local files, which may change under the same name; None for sources with an identity of their own."""
    data = task.spec.data
    if data.source != "local":
        return None
    path = task.path.parent / Path(data.path).expanduser()
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    return [[file.name, hashlib.sha256(file.read_bytes()).hexdigest()] for file in files if file.is_file()]


def task_splits(task: Task) -> dict[str, list[Document]]:
    """Load the task's documents and split them, checked against the frozen listing where there is one."""
    data, shares = task.spec.data, task.spec.splits
    assert isinstance(data, EmbeddedData | LocalText | HubText)
    assert isinstance(shares, Splits)
    splits = split_documents(load_documents(data, task.path.parent), shares)
    if task.split_listing is not None:
        check_listing(splits, task.split_listing)
    return splits


def _prepare(task: Task, folder: Path) -> None:
    settings = task.spec.workload
    assert isinstance(settings, TextSettings)
    texts = {name: [d.text for d in found] for name, found in task_splits(task).items()}
    tokenizer = _train_tokenizer(texts["train"], settings.vocab_size)
    streams = {name: _stream(tokenizer, split) for name, split in texts.items()}
    wanted = settings.evaluation
    tensors = {
        "train": _windows(streams["train"], settings.block, None, "train"),
        "selection": _windows(streams["selection"], settings.block, wanted.selection_windows, "selection"),
        "test": _windows(streams["test"], settings.block, wanted.test_windows, "test"),
        "train_counts": torch.bincount(streams["train"], minlength=settings.vocab_size),
    }
    if wanted.by_byte:
        marks = torch.tensor([mark for text in texts["test"] for mark in (*entity_marks(text), 0)])
        tensors["test_entities"] = _windows(marks, settings.block, wanted.test_windows, "test")
    pairs = build_pairs(texts["train"], wanted.pairs)
    tensors["pair_tokens"], tensors["pair_spans"] = _pair_tensors(tokenizer, pairs)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        save_file({name: tensor.to(torch.int32) for name, tensor in tensors.items()}, partial / "tensors.safetensors")
        tokenizer.save(str(partial / "tokenizer.json"))
        (partial / "sha256").write_text(_digest(partial))
        os.replace(partial, folder)  # atomic: the folder appears complete or not at all
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("tensors.safetensors", "tokenizer.json"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _load(folder: Path) -> TextData:
    digest = _digest(folder)
    if digest != (folder / "sha256").read_text():
        raise ValueError("its checksum does not fit")
    tensors = {name: tensor.long() for name, tensor in load_file(folder / "tensors.safetensors").items()}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return TextData(tokenizer=tokenizer, sha256=digest, **tensors)


def _train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise DataError(
            f"the training split supports only {tokenizer.get_vocab_size()} BPE tokens, the task asks for "
            f"vocab_size {vocab_size}; give more text or a smaller vocabulary."
        )
    return tokenizer


def _stream(tokenizer: Tokenizer, texts: Iterable[str]) -> Tensor:
    end = tokenizer.token_to_id(END_OF_TEXT)
    encoded = tokenizer.encode_batch(list(texts))
    return torch.tensor([token for text in encoded for token in (*text.ids, end)], dtype=torch.int64)


def _windows(stream: Tensor, block: int, limit: int | None, split: str) -> Tensor:
    n = len(stream) // block
    if n == 0:
        raise DataError(
            f"the {split} split has {len(stream)} tokens, fewer than one window of {block}; give more text."
        )
    windows = stream[: n * block].view(n, block)
    return windows if limit is None else evenly(windows, limit)


def evenly(windows: Tensor, limit: int) -> Tensor:
    """At most `limit` windows, evenly spaced."""
    n = len(windows)
    return windows if n <= limit else windows[torch.arange(limit) * n // limit]


def entity_marks(text: str) -> bytes:
    """Mark every byte of a name or number with 1 and all others with 0; the length is that of the text in UTF-8.

    A name is a capitalised word that does not begin a sentence, except short words that are always capitalised.
    """
    content = text.encode()
    marks = bytearray(len(content))
    for found in _ENTITY.finditer(content):
        marks[found.start() : found.end()] = b"\1" * (found.end() - found.start())
    return bytes(marks)


def base_windows(task: Task, tokenizer: Tokenizer) -> Tensor:
    """Windows (n, block) int64 of the text that the task's base model is trained on.

    Raises:
        DataError: the text is missing, or one of its documents is in a split of the task.
    """
    settings, base = task.spec.workload, task.spec.base
    assert isinstance(settings, TextSettings)
    assert base is not None
    assert isinstance(base.data, EmbeddedData | LocalText | HubText)
    documents = load_documents(base.data, task.path.parent)
    splits = task_splits(task)
    known = {document.sha256: name for name, found in splits.items() for document in found}
    if shared := [d for d in documents if d.sha256 in known]:
        raise DataError(
            f"{task.id}: {len(shared)} document(s) of base.data are in the task's own splits, such as "
            f"{shared[0].title!r} ({known[shared[0].sha256]}). Give the base model other text."
        )
    return _windows(_stream(tokenizer, [d.text for d in documents]), settings.block, None, "base")


def _pair_tensors(tokenizer: Tokenizer, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    end: int = tokenizer.encode(END_OF_TEXT).ids[0]
    rows, spans = [], []
    for pair in pairs:
        for before, scored in pair.versions():
            # The space before the entity is part of its first token.
            context = tokenizer.encode(before.removesuffix(" ")[-300:]).ids[-_PAIR_CONTEXT:] or [end]
            text = tokenizer.encode(" " + scored if before.endswith(" ") else scored).ids
            rows.append(context + text)
            spans.append((len(context), len(context) + len(text)))
    width = max((len(row) for row in rows), default=1)
    tokens = torch.tensor([row + [end] * (width - len(row)) for row in rows], dtype=torch.int64)
    return tokens.view(len(rows), width), torch.tensor(spans, dtype=torch.int64).view(len(rows), 2)

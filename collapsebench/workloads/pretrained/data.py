"""The token stream of a pretrained-model task: windows of every split, in the order of the text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from collapsebench.data.hub_splits import load_split_rows
from collapsebench.data.sources import HubSplits, LocalSplits
from collapsebench.errors import DataError
from collapsebench.policies import REAL, TrainingSet, fraction
from collapsebench.task import Task
from collapsebench.workloads.pretrained.model import load_tokenizer
from collapsebench.workloads.pretrained.settings import PretrainedSettings, Windows
from collapsebench.workloads.pretrained.supplies import data_folder, model_folder
from collapsebench.workloads.text.data import evenly


@dataclass(frozen=True)
class StreamData:
    """All token data of a pretrained-model task.

    Attributes:
        train: (n, block) int32 training windows in the order of the text, as many as the task uses.
        parts: number of fractions of the training windows, oldest first; 1: not divided.
        measured: numbers of windows used for evaluation.
        test, selection: windows of the other splits, (m, block) int64.
        train_counts: (V,) token counts of the training windows. split_digests: sha256 of the text of every split.
        row_starts: index of the token in the training stream at which each row of the split begins.
        sha256: digest of all windows.
    """

    train: Tensor
    parts: int
    measured: Windows
    test: Tensor
    selection: Tensor
    train_counts: Tensor
    split_digests: dict[str, str]
    row_starts: list[int]
    sha256: str

    def compared(self, samples: Tensor) -> Tensor:
        """The samples that are compared between generations: the rewritten oldest fraction.

        Later generations write more, and diversity depends on the amount of text. All samples if the windows are not
        divided.
        """
        return samples[: len(fraction(TrainingSet.of(self.train, REAL), 0, self.parts))] if self.parts > 1 else samples

    def fraction_of(self, row: int) -> int | None:
        """The fraction of the training windows in which a row begins; None if it begins in none of them."""
        size = len(self.train)
        window = self.row_starts[row] // self.train.shape[1] if row < len(self.row_starts) else size
        return ((window + 1) * self.parts - 1) // size if window < size else None  # inverse of `policies.fraction`


def stream_data(task: Task, tokenizer: PreTrainedTokenizerBase) -> StreamData:
    """Read and tokenise a task's splits.

    Raises:
        DataError: a split is missing or too short.
    """
    settings, data = task.spec.workload, task.spec.data
    assert isinstance(settings, PretrainedSettings)
    assert isinstance(data, HubSplits | LocalSplits)
    splits = load_split_rows(data, data_folder(task))
    # Row by row, like ForTIFAI's stream; special tokens would end up between the rows.
    tokens = {
        name: tokenizer(rows, add_special_tokens=False, verbose=False)["input_ids"] for name, rows in splits.items()
    }
    windows = {name: _windows(name, rows, settings.block) for name, rows in tokens.items()}
    size = settings.real_windows(task.spec.policy)
    if len(windows["train"]) < size:
        raise DataError(
            f"the train split has {len(windows['train'])} windows of {settings.block} tokens, {task.id} needs {size}: "
            "give the whole split, or a smaller --budget."
        )
    train = windows["train"][:size]
    divided = task.spec.policy.name == "regenerate-fresh"
    measured = settings.measured(task.spec.policy, task.spec.horizon)
    digest = hashlib.sha256()
    for name in ("train", "selection", "test"):
        digest.update(windows[name].numpy().tobytes())
    return StreamData(
        train=train.int(),
        parts=task.spec.horizon + 1 if divided else 1,
        measured=measured,
        test=evenly(windows["test"], measured.test),
        selection=evenly(windows["selection"], measured.selection),
        train_counts=torch.bincount(train.flatten(), minlength=len(tokenizer)),
        split_digests={name: hashlib.sha256("".join(rows).encode()).hexdigest() for name, rows in splits.items()},
        row_starts=[0, *accumulate(len(row) for row in tokens["train"])][:-1],
        sha256=digest.hexdigest(),
    )


def training_windows(task: Task) -> tuple[int, str]:
    """Number of a task's training windows, and the digest of all its windows, without loading the weights."""
    settings = task.spec.workload
    assert isinstance(settings, PretrainedSettings)
    data = stream_data(task, load_tokenizer(settings.model, model_folder(task)))
    return len(data.train), data.sha256


def _windows(split: str, rows: list[list[int]], block: int) -> Tensor:
    stream = torch.tensor([token for row in rows for token in row], dtype=torch.int64)
    n = len(stream) // block
    if n == 0:
        raise DataError(f"the {split} split has {len(stream)} tokens, not one window of {block}; give more text.")
    return stream[: n * block].view(n, block)

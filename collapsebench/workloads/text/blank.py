"""A text task without text, for cost estimates: windows of the right length without content."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models

from collapsebench.task import Task
from collapsebench.workloads.kind import Blank
from collapsebench.workloads.text.data import TextData
from collapsebench.workloads.text.settings import TextSettings
from collapsebench.workloads.text.workload import TextWorkload
from collapsebench.workloads.work import Sizes

_VERSIONS = 4  # sequences per knowledge pair
_PAIR_TOKENS, _PAIR_SCORED = 38, 14  # mean length of such a sequence, and of its scored part


def blank_text(task: Task, sizes: Sizes) -> Blank:
    """The blank workload of a text task."""
    settings = task.spec.workload
    assert isinstance(settings, TextSettings)
    pairs = settings.evaluation.pairs
    spans = torch.tensor([_PAIR_TOKENS - _PAIR_SCORED, _PAIR_TOKENS]).expand(_VERSIONS * pairs, 2)
    train, selection, test = (
        torch.zeros((1, settings.block), dtype=torch.int64).expand(n, settings.block)
        for n in (1, sizes.selection, sizes.test)
    )
    counts = torch.ones(settings.vocab_size, dtype=torch.int64)
    tokens = torch.zeros((_VERSIONS * pairs, _PAIR_TOKENS), dtype=torch.int64)
    text = TextData(Tokenizer(models.BPE()), train, selection, test, counts, tokens, spans, sha256="")
    assumed = f"each of the {pairs} pairs is assumed to be four sequences of {_PAIR_TOKENS} tokens"
    return Blank(TextWorkload(task, "meta", text), {}, (*([assumed] if pairs else []), *sizes.notes))

"""The KR-test of a task: its items by fraction of the training stream, and the metrics of a model's answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from collapsebench.errors import DataError
from collapsebench.metrics.catalogue import KNOWLEDGE
from collapsebench.metrics.knowledge_retention import KnowledgeItem, fraction_accuracy, read_items
from collapsebench.workloads import Measurement
from collapsebench.workloads.pretrained.data import StreamData
from collapsebench.workloads.text.data import evenly


@dataclass(frozen=True)
class Knowledge:
    """KR-test items about the windows that a task trains on.

    Attributes:
        items: the items. fractions: (n,) int64, the fraction of the training stream that each item is about.
        parts: number of fractions. newest: whether the fraction that is new to a generation is tested.
    """

    items: tuple[KnowledgeItem, ...]
    fractions: Tensor
    parts: int
    newest: bool

    @staticmethod
    def of(file: Path, text: StreamData) -> Knowledge:
        """Read the items, and drop those about text that the task does not train on.

        Raises:
            DataError: an item has no location, or there are no items about the oldest fraction. If the newest fraction
                is tested, also if any other fraction has no items.
        """
        used = [(item, found) for item in read_items(file) if (found := _fraction(item, file, text)) is not None]
        newest, parts = text.measured.newest > 0, text.parts
        without = sorted({*range(parts if newest else 1)} - {found for _, found in used})
        if without:
            size = len(text.train)
            raise DataError(
                f"{file} has no item about the training windows {size * without[0] // parts} to "
                f"{size * (without[0] + 1) // parts - 1}, the fraction of generation {without[0]}."
            )
        items, fractions = zip(*used, strict=True)
        return Knowledge(items, torch.tensor(fractions), parts, newest)

    def measured(self, correct: Tensor, generation: int) -> dict[str, Measurement]:
        """The accuracies of a generation.

        Args:
            correct: (n,) bool, whether each item was answered correctly. generation: the one whose new fraction
                is measured.
        """
        parts = fraction_accuracy(self.fractions.tolist(), correct, self.parts)
        found = {
            "knowledge_retention": Measurement(parts[0].value, parts[0].n),
            **{f"{KNOWLEDGE}{g}": Measurement(p.value, p.n) for g, p in enumerate(parts) if g > 0 and p.n > 0},
            "knowledge_retention_all": _share(correct),
        }
        if self.newest:
            fewest = min(part.n for part in parts)  # equally many per fraction, so that values are equally noisy
            found["knowledge_newest"] = _share(evenly(correct[self.fractions == generation], fewest))
        return found


def _fraction(item: KnowledgeItem, file: Path, text: StreamData) -> int | None:
    if item.location is None:
        raise DataError(f"{file}: every item needs a location, the row of the training split; {item} has none.")
    return text.fraction_of(item.location)


def _share(correct: Tensor) -> Measurement:
    return Measurement(int(correct.sum()) / len(correct), len(correct))

"""Progress of cells as events. The loop sends them; `progress_display` shows them in a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["prepared", "train", "sample", "evaluate", "complete", "reused", "diverged"]


@dataclass(frozen=True)
class Event:
    """A progress event of a cell.

    Attributes:
        method, seed: the cell. generation: its current generation.
        phase: its current phase. ``prepared`` comes before the first generation; ``complete``, ``reused`` and
            ``diverged`` end a generation.
        elements: tokens or images processed since the last event.
        real_items: number of real training items, given with ``prepared``.
        metrics: the metrics, given with ``complete`` or ``reused``; None if it diverged.
    """

    method: str
    seed: int
    generation: int
    phase: Phase
    elements: int = 0
    real_items: int | None = None
    metrics: dict[str, float] | None = None


Listener = Callable[[Event], None]


def silent(_: Event) -> None:
    """A listener that ignores everything."""


class Throttle:
    """Add up the elements of one phase and pass them on a few times a second."""

    def __init__(self, listener: Listener, method: str, seed: int, generation: int, phase: Phase):
        self._listener = listener
        self._cell = (method, seed, generation, phase)
        self._elements = 0
        self._sent = 0.0

    def __call__(self, elements: int) -> None:
        self._elements += elements
        if time.monotonic() - self._sent > 0.25:
            self.flush()

    def flush(self) -> None:
        """Pass on the remaining elements."""
        self._listener(Event(*self._cell, elements=self._elements))
        self._elements, self._sent = 0, time.monotonic()

"""Workloads: what a modality does with a task. One protocol; the loop knows nothing else about models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from collapsebench.losses import Loss
    from collapsebench.policies import TrainingSet
    from collapsebench.seeding import Randomness
    from collapsebench.task import Task

OnElements = Callable[[int], None]


@dataclass(frozen=True)
class Measurement:
    """A metric's value and the number of elements it was measured on (tokens, pairs, samples)."""

    value: float
    n: int


class Workload(Protocol):
    """A modality. Every call that takes `on_elements` reports how many elements it has just processed.

    Attributes:
        real: the real training data, in a fixed order.
        data_sha256: digest of everything prepared from the task's data.
    """

    real: TrainingSet
    data_sha256: str

    def new_model(self, randomness: Randomness) -> Any:
        """A model with initial weights; the same for every method with this seed."""
        ...

    def train(
        self,
        model: Any,
        data: TrainingSet,
        loss: Loss,
        generation: int,
        randomness: Randomness,
        on_elements: OnElements,
    ) -> int:
        """Train in place; return the number of elements trained on. Raises `Diverged` on NaN or infinity."""
        ...

    def sample(
        self, model: Any, prompts: TrainingSet, generation: int, randomness: Randomness, on_elements: OnElements
    ) -> torch.Tensor:
        """One sample per prompt, in the form of the training items."""
        ...

    def evaluate(self, model: Any, samples: torch.Tensor, on_elements: OnElements) -> dict[str, Measurement]:
        """All metrics of a generation. Raises `Diverged` when one is not finite."""
        ...

    def floors(self) -> dict[str, float]:
        """What a model that knows nothing reaches, for every metric that can be scored."""
        ...

    def save_model(self, model: Any, path: Path) -> None:
        """Write the weights as safetensors."""
        ...

    def load_model(self, path: Path) -> Any:
        """Read back what `save_model` wrote."""
        ...

    def excerpts(self, samples: torch.Tensor, prompts: TrainingSet) -> list[dict[str, str]]:
        """A few samples for people to look at."""
        ...


def load_workload(task: Task, device: str) -> Workload:
    """Prepare a task's data and return its workload.

    Args:
        task: the task. device: ``cpu``, ``cuda``, ``cuda:0``, ``mps``.
    """
    from collapsebench.workloads.text import TextWorkload

    return TextWorkload(task, device)

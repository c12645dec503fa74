"""Workloads: one per modality, behind a single protocol. The loop knows nothing else about models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from collapsebench.errors import DataError, Diverged, UserError
from collapsebench.workloads.kind import imported

if TYPE_CHECKING:
    import torch

    from collapsebench.policies import Fractions, TrainingSet
    from collapsebench.seeding import Randomness
    from collapsebench.task import Task
    from collapsebench.workloads.objective import Observed, Processes, Schedule

OnElements = Callable[[int], None]


@dataclass(frozen=True)
class Measurement:
    """A metric's value and the number of elements it was measured on (tokens, pairs, samples).

    Attributes:
        stderr: standard error over the elements, if known.
    """

    value: float
    n: int
    stderr: float | None = None


class Workload(Protocol):
    """A modality. Methods that take `on_elements` call it with the number of elements just processed.

    Attributes:
        real: the real training data, in a fixed order.
        data_sha256: digest of everything prepared from the task's data.
        device: the device of its models.
    """

    real: TrainingSet
    data_sha256: str
    device: torch.device

    @property
    def processes(self) -> Processes:
        """The processes that compute an update."""
        ...

    def new_model(self, randomness: Randomness) -> Any:
        """A model with initial weights; the same for every method with this seed."""
        ...

    def schedule(self, generation: int, items: int) -> Schedule:
        """The training schedule of a generation on this many items."""
        ...

    def observe(self, model: Any, items: torch.Tensor, noise: torch.Generator, full: bool) -> Observed:
        """Compute the model's view of a batch, (n, …) items as in `real`.

        Args:
            noise: generator for random draws during training. full: also return what losses with ``needs_logits`` may
                see.
        """
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
        """The value that a model which learned nothing reaches, for every metric that can be scored."""
        ...

    def save_model(self, model: Any, path: Path) -> None:
        """Write the weights as safetensors."""
        ...

    def load_model(self, path: Path) -> Any:
        """Read back what `save_model` wrote."""
        ...

    def show(
        self, folder: Path, model: Any, samples: torch.Tensor, prompts: TrainingSet, randomness: Randomness
    ) -> None:
        """Write samples for visual inspection: text excerpts, a grid of images, a curve."""
        ...

    def listing(self) -> dict[str, dict[str, str]]:
        """The content of ``splits.json``: every document or image of every split, by hash."""
        ...


class BasedWorkload(Workload, Protocol):
    """A modality whose tasks can start from a base model (`collapsebench.workloads.kind.Kind.base`)."""

    def base_items(self) -> TrainingSet:
        """The training data of the base model, in the form of `real`; disjoint from all splits of the task."""
        ...


class FractionWorkload(Workload, Protocol):
    """A modality whose tasks can measure fractions of the real data (`WorkloadSettings.measures_fractions`)."""

    def evaluate_fractions(self, model: Any, known: Fractions, on_elements: OnElements) -> dict[str, Measurement]:
        """Metrics on the real data that a generation was trained on. Raises like `Workload.evaluate`."""
        ...


def load_workload(task: Task, device: str) -> Workload:
    """Prepare a task's data and return its workload.

    Args:
        task: the task. device: ``cpu``, ``cuda``, ``cuda:0``, ``mps``.

    Raises:
        DataError: data, weights or a package are missing, or differ from what the task lists.
        UserError: the user names data or weights that the task does not use.
    """
    spec, resources = task.spec, task.resources
    options = spec.kind.options(spec)
    if resources.model is not None and "model" not in options:
        raise UserError(f"--model cannot be given for {task.id}: its model is made from scratch.")
    if resources.data is not None and "data" not in options:
        raise UserError(f"--data cannot be given for {task.id}: its data is {spec.data.source}.")
    if resources.inception is not None and "inception" not in {*options, *resources.features}:
        more = "; --features inception asks for it" if "features" in options else ""
        raise UserError(f"--inception cannot be given for {task.id}: it does not measure FID{more}.")
    if resources.features and "features" not in options:
        raise UserError(f"--features cannot be given for {task.id}: it has no images.")
    try:
        workload_class = imported(spec.kind.workload)
    except ModuleNotFoundError as error:
        raise DataError(
            f"{task.id} needs the package {error.name}, which is not installed: "
            f"pip install 'collapsebench[{spec.kind.extra}]'."
        ) from error
    workload: Workload = workload_class(task, device)
    return workload


def finite(measured: dict[str, Measurement]) -> dict[str, Measurement]:
    """Return the measurements; raise `Diverged` if one of them is NaN or infinite."""
    wrong = [name for name, m in measured.items() if not math.isfinite(m.value)]
    if wrong:
        raise Diverged(f"{', '.join(wrong)} not finite")
    return measured

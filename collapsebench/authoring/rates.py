"""The speed of this machine in each kind of workload, as measured by ``doctor --measure``; kept in the cache folder.

Rates are read without torch, so that `collapsebench list` can show hours.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from collapsebench.files import write_atomically
from collapsebench.frozen import Frozen
from collapsebench.paths import cache_dir
from collapsebench.running.environment import processor
from collapsebench.task import Task


class Rate(Frozen):
    """Sustained rate of a device in one kind of workload, by phase, in 10¹² FLOP/s.

    Attributes:
        measured_on: id of the task it was measured on; empty if the rate was given by the user.
        device: the device.
    """

    training: float = Field(gt=0)
    sampling: float = Field(gt=0)
    evaluation: float = Field(gt=0)
    measured_on: str = ""
    device: str = ""

    @staticmethod
    def given(tflops: float) -> Rate:
        """A given rate, the same in every phase."""
        return Rate(training=tflops, sampling=tflops, evaluation=tflops)

    def hours(self, training: int, sampling: int, evaluation: int) -> float:
        """Hours for the given FLOPs of each phase."""
        seconds = training / self.training + sampling / self.sampling + evaluation / self.evaluation
        return seconds / 1e12 / 3600

    def __str__(self) -> str:
        phases = (("training", self.training), ("sampling", self.sampling), ("evaluation", self.evaluation))
        return ", ".join(f"{phase} {rate:.3g}" for phase, rate in phases) + " TFLOP/s"


class Cost(Frozen):
    """FLOPs of one cell of a task, by phase."""

    training: int
    sampling: int
    evaluation: int


class Machine(Frozen):
    """A device and its rates, by kind of workload.

    Attributes:
        processor: the CPU, as `running.environment.processor` calls it. device: ``cpu``, or the name of the GPU.
    """

    processor: str
    device: str
    rates: dict[str, Rate]


class Measured(Frozen):
    """All measured rates.

    Attributes:
        machines: the machines, most recently measured last; a cache folder on a network is shared by several.
        costs: costs of tasks, by the digest of their settings.
    """

    machines: tuple[Machine, ...] = ()
    costs: dict[str, Cost] = Field(default_factory=dict)

    def rate(self, kind: str) -> Rate | None:
        """The newest rate of a kind of workload on this machine; None if not measured."""
        here = processor()
        found = [m.rates[kind] for m in self.machines if m.processor == here and kind in m.rates]
        return found[-1] if found else None

    def hours(self, task: Task) -> float | None:
        """Hours of one cell of a task on this machine; None if unknown."""
        rate, cost = self.rate(task.spec.workload.kind), self.costs.get(task.sha256)
        return None if rate is None or cost is None else rate.hours(cost.training, cost.sampling, cost.evaluation)

    def with_rates(self, device: str, rates: dict[str, Rate], costs: dict[str, Cost]) -> Measured:
        """A copy with the rates and costs just measured on a device of this machine."""
        here = processor()
        before = [m for m in self.machines if (m.processor, m.device) == (here, device)]
        others = [m for m in self.machines if m not in before]
        known = before[0].rates if before else {}
        return Measured(
            machines=(*others, Machine(processor=here, device=device, rates={**known, **rates})),
            costs={**self.costs, **costs},
        )


def rates_file() -> Path:
    """Path of the file with the rates."""
    return cache_dir() / "rates.json"


def read_measured() -> Measured:
    """Read all rates measured so far; empty if the file is missing or has another format."""
    try:
        return Measured.model_validate_json(rates_file().read_bytes())
    except (OSError, ValidationError):
        return Measured()


def write_measured(measured: Measured) -> Path:
    """Write the rates to the file; return its path."""
    file = rates_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, measured.model_dump_json(indent=1) + "\n")
    return file


def duration_text(hours: float) -> str:
    """Format a duration in a suitable unit: ``42.3 s``, ``1.5 h``."""
    seconds = hours * 3600
    if seconds < 60:
        return f"{short_text(seconds)} s"
    return f"{short_text(seconds / 60)} min" if hours < 1 else f"{short_text(hours)} h"


def short_text(value: float) -> str:
    """Format with three digits; values below a thousandth do not matter."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 1e-3 or value == 0 else "<0.001"

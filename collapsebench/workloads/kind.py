"""The record of a kind of workload, with everything specific to it. No torch here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from collapsebench.data.sources import ImageSplits, Splits
from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.work import Sizes

if TYPE_CHECKING:
    from torch import Tensor

    from collapsebench.task import Task
    from collapsebench.task_spec import TaskSpec

Option = Literal["model", "data", "features", "inception"]
SampleFormat = Literal["text", "images", "density"]
# Files that `Workload.show` writes into a generation's folder; reports, submissions and the site read them.
SAMPLE_FILES: dict[SampleFormat, str] = {"text": "samples.json", "images": "samples.png", "density": "density.json"}


class Passes(NamedTuple):
    """Weight of an item in a generation's progress when it is trained on, drawn or evaluated."""

    trained: int = 1
    drawn: int = 1
    evaluated: int = 1


class KnownElements(NamedTuple):
    """Elements for testing a loss.

    Attributes:
        prediction: a possible output of a model, with gradient. log_p: (64,) from -30 to 0, computed from it.
        seen: what losses with ``needs_logits`` may see: ``prediction``, ``target``, ``logits``.
    """

    prediction: Tensor
    log_p: Tensor
    seen: dict[str, Tensor]


@dataclass(frozen=True)
class Supply:
    """An external requirement of a task.

    Attributes:
        name: name of the requirement. find: returns its location, or raises `DataError` with advice; downloads small
            files.
    """

    name: str
    find: Callable[[], str]


class MeasuredScale(NamedTuple):
    """A setting that log p depends on; calibration measures it on CE's generation 0.

    Attributes:
        setting: its key in the section, null until measured. metric: the metric whose mean over seeds it is.
    """

    setting: str
    metric: str


class Blank(NamedTuple):
    """A task's workload without data or weights, to count its cost.

    Attributes:
        workload: a `collapsebench.workloads.Workload` on the meta device, where tensors have shapes but no content. On
            the CPU if it needs neither data nor much time.
        outside: FLOPs that torch cannot count, by part; the workload adds to it as it measures.
        notes: assumptions, and what is not counted.
    """

    workload: Any
    outside: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of workload. Values of the form ``module:name`` are imported only when needed, as they may import torch.

    Attributes:
        name: name in task files. label: name for display.
        settings: class of the workload section.
        workload: class of the workload, constructed from a task and a device.
        extra: the package's extra that installs the workload's imports.
        known_elements: returns the `KnownElements` that losses are tested on.
        samples: format in which samples are shown.
        unit: unit of progress. element: what a loss sees one by one.
        item_elements: from the section and the number of image channels to the elements per item.
        passes: from the section to the `Passes` of an item.
        evaluated: number of items that a generation is evaluated on and that count as progress.
        sizes: sizes of the data, as far as they are known without reading it.
        blank: from a task and `Sizes` to its `Blank`.
        steps: dotted name of the setting with the number of steps per sample; None: one step.
        sequences: from the section to the number of sequences of that many steps drawn per sample.
        sources: data sources that it can be trained on. splits: class of the ``splits`` section.
        metrics: metrics of every task of the kind, by name.
        real_items: number of real training items, if the task file gives it.
        options: command-line options that a task accepts.
        supplies: from a task to its external requirements (`Supply`); None: it has none.
        check_room: raises `UserError` if memory or disk is certainly too small, given a task, a device, the directory
            of runs and the number of missing generations; None: not checked.
        prepare: from a task to the number and digest of its training items, for kinds whose workload is too heavy to
            be constructed just for that.
        symbols: from the section to whether elements are symbols, whose p is a probability. Otherwise p is a density
            relative to its peak, or an expectation.
        base: what tasks can start from under ``init: base``. ``shipped``: a model next to the task file, trained on
            the workload's `base_items`. ``given``: the weights named in the section ``workload``.
        parallel: whether several processes can work on one cell.
        scale: the setting that must be measured before log p is defined.
    """

    name: str
    label: str
    settings: type[WorkloadSettings]
    workload: str
    extra: Literal["micro", "pretrained"]
    known_elements: str
    samples: SampleFormat
    unit: str
    element: str
    item_elements: Callable[[Any, int], int]
    passes: Callable[[Any], Passes]
    evaluated: Callable[[TaskSpec], int]
    sizes: Callable[[Task], Sizes]
    blank: str
    sources: tuple[str, ...]
    splits: type[Splits | ImageSplits]
    metrics: tuple[str, ...]
    real_items: Callable[[TaskSpec], int | None] = lambda _: None
    options: Callable[[TaskSpec], frozenset[Option]] = lambda _: frozenset()
    supplies: str | None = None
    check_room: str | None = None
    prepare: str | None = None
    symbols: Callable[[Any], bool] = lambda _: False
    base: Literal["none", "shipped", "given"] = "none"
    parallel: bool = False
    steps: str | None = None
    sequences: Callable[[Any], Fraction] = lambda _: Fraction(1)
    scale: MeasuredScale | None = None

    def known(self) -> KnownElements:
        """Elements for testing a loss."""
        found: KnownElements = imported(self.known_elements)()
        return found

    def supplies_of(self, task: Task) -> Iterator[Supply]:
        """External requirements of a task of this kind."""
        if self.supplies is not None:
            yield from imported(self.supplies)(task)

    def unmeasured(self, settings: WorkloadSettings) -> MeasuredScale | None:
        """The scale that has not been measured yet in a section, if any."""
        return None if self.scale is None or getattr(settings, self.scale.setting) is not None else self.scale


def imported(place: str) -> Any:
    """Import the object named by ``module:name``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)

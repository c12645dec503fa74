"""One record per kind of workload, with everything that is special about it. No torch here."""

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

    from collapsebench.task import Task, TaskSpec

Option = Literal["model", "data", "features", "inception"]
SampleFormat = Literal["text", "images", "density"]
# What `Workload.show` writes into the folder of a generation, and reports, submissions and the site read.
SAMPLE_FILES: dict[SampleFormat, str] = {"text": "samples.json", "images": "samples.png", "density": "density.json"}


class Passes(NamedTuple):
    """How much an item counts in the progress of a generation when it is trained on, drawn, or evaluated."""

    trained: int = 1
    drawn: int = 1
    evaluated: int = 1


class KnownElements(NamedTuple):
    """Elements to try a loss on.

    Attributes:
        prediction: what a model could have predicted, with gradient. log_p: (64,) from -30 to 0, made from it.
        seen: what losses with ``needs_logits`` may look at: ``prediction``, ``target``, ``logits``.
    """

    prediction: Tensor
    log_p: Tensor
    seen: dict[str, Tensor]


@dataclass(frozen=True)
class Supply:
    """One thing that a task needs from outside.

    Attributes:
        name: what it is. find: returns where it is, or raises `DataError` with what to do; fetches small files.
    """

    name: str
    find: Callable[[], str]


class MeasuredScale(NamedTuple):
    """A number of the section without which log p is undefined; calibration measures it on CE's generation 0.

    Attributes:
        setting: its key in the section, null until then. metric: whose mean over seeds it is.
    """

    setting: str
    metric: str


class Blank(NamedTuple):
    """A task's workload without data or weights, to count what it costs.

    Attributes:
        workload: a `collapsebench.workloads.Workload` on the meta device, where tensors have shapes and no content; on
            the processor where it needs neither data nor much time.
        outside: FLOPs of what torch cannot count, by part; the workload adds to it as it measures.
        notes: what was assumed, or is not counted.
    """

    workload: Any
    outside: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of workload. What is given as ``module:name`` is imported when it is needed: it may import torch.

    Attributes:
        name: as task files say it. label: for people.
        settings: class of the workload section.
        workload: class of the workload, made from a task and a device.
        extra: of the package, that holds what the workload imports.
        known_elements: returns the `KnownElements` that losses are tried on.
        samples: form in which its samples are shown to people.
        unit: what progress is counted in. element: what losses see one by one.
        item_elements: elements of an item, from the section and the number of channels of images.
        passes: `Passes` of an item, from the section.
        evaluated: items that a generation is evaluated on and that progress counts.
        sizes: of the data, as far as they are known without reading it.
        blank: from a task and `Sizes` to its `Blank`.
        steps: dotted name of the setting that says in how many steps a sample is drawn; None: in one.
        sequences: of so many steps that are drawn for a sample, from the section.
        sources: of data that it can be trained on. splits: class of the ``splits`` section.
        metrics: of every task of the kind, by name.
        real_items: of the training data, if the task file says it.
        options: of the command line that a task takes.
        supplies: from a task to the `Supply`s that it needs from outside; None: nothing.
        check_room: raises `UserError` when memory or disk are surely too small, from a task, a device, the directory of
            runs and the number of generations that are missing; None: not looked at.
        prepare: from a task to the number of its training items and their digest, for kinds whose workload is too
            heavy to be made just for that.
        symbols: from the section: whether elements are symbols, whose p is a probability; else it is a density relative
            to its peak, or an expectation.
        base: what its tasks can start from under ``init: base``. ``shipped``: a model beside the task file, trained on
            the workload's `base_items`. ``given``: the weights that the section ``workload`` names.
        parallel: whether several processes can work on one cell.
        scale: what has to be measured before log p is defined.
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
        """Elements to try a loss on."""
        found: KnownElements = imported(self.known_elements)()
        return found

    def supplies_of(self, task: Task) -> Iterator[Supply]:
        """What a task of this kind needs from outside."""
        if self.supplies is not None:
            yield from imported(self.supplies)(task)

    def unmeasured(self, settings: WorkloadSettings) -> MeasuredScale | None:
        """The scale that a section still lacks."""
        return None if self.scale is None or getattr(settings, self.scale.setting) is not None else self.scale


def imported(place: str) -> Any:
    """Import the object named by ``module:name``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)

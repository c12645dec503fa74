"""Logs metrics of every generation to TensorBoard, Weights & Biases or trackio, through Accelerate's trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collapsebench.errors import UserError
from collapsebench.workloads.processes import is_first

Log = Callable[[Mapping[str, float], int], None]
PROJECT = "collapsebench"


def untracked(values: Mapping[str, float], generation: int) -> None:
    """Log nothing."""


def check_tracker(name: str | None) -> None:
    """Raise `UserError` if a tracker's package or Accelerate is not installed."""
    if name is None:
        return
    if find_spec("accelerate") is None:
        raise UserError(
            f"--track {name} needs the package accelerate, which is not installed: pip install accelerate {name}."
        )
    from accelerate.tracking import get_available_trackers

    installed = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    if name not in installed:
        raise UserError(f"--track {name} needs the package {name}, which is not installed: pip install {name}.")


@contextmanager
def tracking(name: str | None, run: str, folder: Path, config: Mapping[str, Any]) -> Iterator[Log]:
    """Open a tracker for one cell.

    Args:
        name: ``tensorboard``, ``wandb`` or ``trackio``; None: no tracking. run: name of the cell.
        folder: output folder of TensorBoard. config: what was run.

    Yields:
        A function to call with the values of a generation and its number.
    """
    if name is None or not is_first():  # not every tracker restricts itself to one process
        yield untracked
        return
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # trackers use it to find out which process they are in
    tracker_class = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = tracker_class(run, logging_dir=folder)
    else:
        tracker = tracker_class(PROJECT, name=run)
    if hasattr(tracker, "start"):
        tracker.start()
    try:
        tracker.store_init_configuration({key: _plain(value) for key, value in config.items()})
        yield lambda values, generation: tracker.log(dict(values), step=generation)
    finally:
        tracker.finish()


def _plain(value: Any) -> bool | int | float | str | None:
    """Convert a value to a type that trackers accept; parameters of a loss may have any type."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

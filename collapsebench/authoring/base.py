"""Trains the base model of a task, once, on data disjoint from the task's; it is shipped with the task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapsebench.errors import DataError, RunError, UserError
from collapsebench.files import give_ordinary_mode, write_atomically
from collapsebench.task import Task
from collapsebench.workloads.training_settings import Training

if TYPE_CHECKING:
    import torch

    from collapsebench.workloads import BasedWorkload
    from collapsebench.workloads.objective import Observed, Processes, Schedule

LARGEST = 4 * 2**20  # maximum bytes of a base model's weights, since it is shipped with the package
_LINE = r"(?m)^(base:[ \t]*(?:#.*)?\n(?:[ \t].*\n|\n)*?[ \t]+sha256:[ \t]*)null\b"  # matches in one way only


class _OnBaseData:
    """A workload that trains according to the section ``base``; see `collapsebench.workloads.Workload`."""

    def __init__(self, workload: BasedWorkload, training: Training, updates: int):
        self._workload = workload
        self._training = training
        self._updates = updates

    @property
    def processes(self) -> Processes:
        return self._workload.processes

    def schedule(self, generation: int, items: int) -> Schedule:
        from collapsebench.workloads.objective import stage_schedule

        own = self._workload.schedule(generation, items)
        schedule = stage_schedule(self._training, 0, self._updates, own.elements, own.progress)
        return replace(schedule, micro_batch=own.micro_batch, ema_decay=own.ema_decay)

    def observe(self, model: Any, items: torch.Tensor, noise: torch.Generator, full: bool) -> Observed:
        return self._workload.observe(model, items, noise, full)


def check_task(task: Task, out: Path | None) -> Path:
    """Return the path for the weights of a task's base model.

    Args:
        out: a file other than the task's own; None: the task's own file, which must not already exist as specified.

    Raises:
        UserError: the task does not start from a base model, or already has one.
    """
    base = task.spec.base
    if base is None:
        raise UserError(f"{task.id} starts from no base model; that takes init: base and a section base.")
    if out is not None:
        if out.is_dir():
            raise UserError(f"--out {out} is a folder; give the name of a file, such as {out / 'base.safetensors'}.")
        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no folder {out.parent}; make it, or give another place.")
        return out
    try:
        file = task.base_weights()
    except DataError:  # the weights are missing or differ, and the advice in the error is to train them
        return _own_file(task)
    raise UserError(f"{task.id} has its base model: {file}. --out FILE trains it again, into another file.")


def _own_file(task: Task) -> Path:
    assert task.spec.base is not None
    return (task.path.parent / task.spec.base.file).resolve()


def train_base(task: Task, out: Path, device: str, on_progress: Callable[[int, int], None]) -> str:
    """Train a task's base model with cross entropy and write its weights.

    If `out` is the task's own file, the digest replaces ``sha256: null`` in the task file.

    Args:
        out: the file from `check_task`. on_progress: called with the work of every update, and the total work.

    Returns:
        The sha256 of the weights.

    Raises:
        Diverged: the training diverged. RunError: the weights are too large to be shipped.
    """
    from collapsebench.hooks import CrossEntropy
    from collapsebench.running.cells import fix_arithmetic
    from collapsebench.running.training import train
    from collapsebench.seeding import Randomness
    from collapsebench.workloads import load_workload

    assert task.spec.base is not None
    fix_arithmetic(task.spec.threads, device)  # as in every cell, since the last digits depend on it
    workload: Any = load_workload(task, device)
    training, items = task.spec.base.training, workload.base_items()
    updates = training.updates(task.spec.policy, 0, len(items))
    assert updates is not None
    on_base = _OnBaseData(workload, training, updates)
    schedule = on_base.schedule(0, len(items))
    total = updates * schedule.batch_size * schedule.progress
    randomness = Randomness("base", 0)  # independent of the task: a family shares the weights
    model = workload.new_model(randomness)
    loss = CrossEntropy()
    train(on_base, model, items, loss, 0, randomness, lambda n: on_progress(n, total))  # type: ignore[arg-type]
    partial = out.with_name(f"{out.name}.partial")
    workload.save_model(model, partial)
    if partial.stat().st_size > LARGEST:
        size = partial.stat().st_size
        partial.unlink()
        raise RunError(f"the base model takes {size:,} bytes, more than the {LARGEST:,} that are shipped with a task.")
    give_ordinary_mode(partial)
    partial.replace(out)
    sha256 = hashlib.sha256(out.read_bytes()).hexdigest()
    if out.resolve() == _own_file(task):
        _write_digest(task, sha256)
    return sha256


def _write_digest(task: Task, sha256: str) -> None:
    text = task.path.read_text("utf-8")
    changed, n = re.subn(_LINE, lambda found: found[1] + sha256, text)
    if n == 1:
        write_atomically(task.path, changed)

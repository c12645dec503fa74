"""A cell: its definition, and functions to run it in this process or on behalf of another."""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from collapsebench.errors import CollapsebenchError, RunError, UserError
from collapsebench.methods import Contestant, load_method
from collapsebench.resources import Resources
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.environment import circumstances
from collapsebench.running.progress import Listener, silent
from collapsebench.running.shared_run import SharedRun
from collapsebench.running.tracking import tracking
from collapsebench.task import Task, load_task, registered_tasks
from collapsebench.workloads import load_workload
from collapsebench.workloads.processes import world_size

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


class Order(NamedTuple):
    """Everything another process needs to run a cell, as text and numbers.

    Attributes:
        task: a registered name or the path of a task file. budget: share of the task's updates and samples.
        method: as on the command line. seed, generations, device: as in `Cell`. out: absolute path of all runs.
        resources: `Resources` as JSON.
    """

    task: str
    budget: float
    method: str
    seed: int
    out: str
    generations: int
    device: str
    resources: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One chain to run.

    Attributes:
        task, method, seed: the chain. out: directory of all runs. generations: the last generation. device: the
            resolved device.
    """

    task: Task
    method: Contestant
    seed: int
    out: Path
    generations: int
    device: str

    @property
    def directory(self) -> RunDirectory:
        return RunDirectory.of(self.out, self.task.id, self.method.id, self.seed)

    @property
    def order(self) -> Order:
        """The order for another process to run this cell; names a registered task by name, and others by path."""
        registered = registered_tasks().get(self.task.spec.name)
        known = registered is not None and registered.resolve() == self.task.path
        assert self.method.spec is not None, "a class of this process cannot be sent to another one"
        return Order(
            task=self.task.spec.name if known else str(self.task.path),
            budget=self.task.budget,
            method=self.method.spec,
            seed=self.seed,
            out=str(self.out.absolute()),
            generations=self.generations,
            device=self.device,
            resources=self.task.resources.model_dump(mode="json"),
        )

    def __str__(self) -> str:
        return f"{self.method.name} seed {self.seed}"


def run_cell(cell: Cell, listener: Listener = silent, store: RunDirectory | None = None, first: int = 0) -> None:
    """Run one chain in this process; finished generations are reused.

    It calls `fix_arithmetic`, which changes settings of the whole process.

    Args:
        store: the directory of its generations, if not the cell's. first: the first generation to run; of earlier
            generations, only the files that it is made from need to exist.
    """
    from collapsebench.running.loop import Chain

    fix_arithmetic(cell.task.spec.threads, cell.device)
    workload = load_workload(cell.task, cell.device)
    identity = {
        "task": {"id": cell.task.id, "sha256": cell.task.sha256, "data_sha256": workload.data_sha256},
        "method": {
            "name": cell.method.name,
            "id": cell.method.id,
            "parameters": cell.method.parameters,
            "source_sha256": cell.method.source_sha256,
            "track": cell.method.track,
            "real_data": cell.method.real_data,
        },
        "seed": cell.seed,
        "device": cell.device.split(":")[0],
        "extractors": cell.task.resources.differences,
    }
    if store is None:
        store = SharedRun(cell.directory.path) if world_size() > 1 else cell.directory
    about = circumstances(cell.device, cell.task.spec.threads)
    origin = {
        "task_file": str(cell.task.path),
        "loss": cell.method.loss,
        "spec": cell.method.spec,
        "description": cell.method.description,
    }
    run = f"{cell.task.id}/{cell.method.id}/seed-{cell.seed}"
    config = {"task": cell.task.id, "method": cell.method.name, "seed": cell.seed, **cell.method.parameters}
    with (
        store.opened(identity, origin, about),
        tracking(cell.task.resources.track, run, cell.out / "tracking", config) as log,
    ):
        Chain(cell.task, cell.method, cell.seed, workload, store, listener, log).run(cell.generations, first)


def fix_arithmetic(threads: int, device: str = "cpu") -> None:
    """Set CPU threads and deterministic algorithms for the whole process, because results depend on them.

    Args:
        device: device of the models. On a GPU, non-deterministic operations raise an error. With warnings only, torch
            would choose an attention kernel whose gradients differ from run to run.

    Raises:
        UserError: this process already multiplied matrices on the GPU, and the settings can no longer be changed.
    """
    import torch

    _keep_freed_memory()
    torch.set_num_threads(threads)
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    on_gpu = device.startswith("cuda")
    torch.use_deterministic_algorithms(True, warn_only=not on_gpu)
    # Filling new memory guards against reading uninitialised values, but costs a tenth of the sampling time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if on_gpu:
        # Convolutions use TF32 by default; let the user decide, as for matrix products.
        torch.backends.cudnn.allow_tf32 = torch.get_float32_matmul_precision() != "highest"
        _require_deterministic_products(device)


def _require_deterministic_products(device: str) -> None:
    import torch

    one = torch.ones((1, 1), device=device)
    try:
        torch.mm(one, one)
    except RuntimeError as error:
        if _WORKSPACE not in str(error):
            raise
        raise UserError(
            f"matrices were multiplied on {device} in this process before the run, so its results would differ from "
            f"run to run. Set the environment variable {_WORKSPACE}=:4096:8 before Python starts, or use the command "
            "line."
        ) from error


def _keep_freed_memory() -> None:
    """Let glibc keep freed memory; otherwise every large activation requests its pages from the kernel again.

    This saves up to an eighth of the time, measured on sampling diffusion-mnist-micro with two workers. Other C
    libraries are not changed.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of mallopt(3)
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(trim_threshold, 2**30)
        mallopt(mmap_threshold, 2**25)  # the largest value that glibc accepts


def carry_out(order: Order, listener: Listener) -> CollapsebenchError | None:
    """Run a cell in a worker; return its error instead of raising it, because tracebacks cannot be sent."""
    try:
        task = load_task(order.task, order.budget, Resources.model_validate(order.resources))
        method = load_method(order.method, task.spec.workload.kind, task.id)
        run_cell(Cell(task, method, order.seed, Path(order.out), order.generations, order.device), listener)
    except BrokenPipeError:
        raise
    except CollapsebenchError as error:
        return _portable(type(error)(*error.args), error)
    except Exception as error:
        return _portable(RunError(in_one_line(error)), error)
    return None


def _portable(told: CollapsebenchError, error: Exception) -> CollapsebenchError:
    """An error that can be sent to another process, with its traceback as a note."""
    told.add_note("".join(traceback.format_exception(error)))
    return told


def in_one_line(error: Exception) -> str:
    """An unexpected error and its origin, in one line."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({Path(where.filename).name}:{where.lineno})"


def how_it_ended(code: int | None) -> str:
    """Explain why a process returned no result; memory is named as the cause only if the system killed it.

    Args:
        code: exit code as in `multiprocessing` and `subprocess`, negative for a signal; None: unknown.
    """
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), as the system does when memory runs out"
    if code is not None and code < 0:
        return f"died of signal {-code} ({signal.strsignal(-code)})"
    return f"died (exit code {code}); what it said last stands above"

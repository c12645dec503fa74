"""Runs cells in this process, in worker processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Literal

from collapsebench.errors import CollapsebenchError, RunError, UserError
from collapsebench.running.cells import Cell, carry_out, how_it_ended, in_one_line, run_cell
from collapsebench.running.environment import cpu_count
from collapsebench.running.library_warnings import keep_off_the_screen
from collapsebench.running.progress import Event, Listener, silent
from collapsebench.running.ray_engine import run_on_ray
from collapsebench.workloads.processes import is_first, world_size

Engine = Literal["auto", "inline", "local", "ray"]


def run_cells(cells: Sequence[Cell], engine: Engine, workers: int | None, listener: Listener) -> None:
    """Run all cells; finished work is reused.

    Args:
        engine: ``inline``: one after another in this process. ``local``: in worker processes. ``auto``: ``local`` if it
            can help. ``ray``: on a Ray cluster (`collapsebench.running.ray_engine`).
        workers: processes of ``local``; None: as many as the CPUs allow at the task's thread count, one on a GPU.

    Raises:
        UserError: that of the first cell that raised one; the others are stopped. RunError: raised after all cells, and
            names those that failed.
    """
    if not cells:
        return
    if world_size() > 1:
        _require_parallel(cells, engine)
        _run_inline(cells, listener if is_first() else silent)
        return
    workers = min(len(cells), max(1, possible_workers(cells[0]) if workers is None else workers))
    anonymous = [str(c.method.name) for c in cells if c.method.spec is None]
    if engine == "auto":
        engine = "inline" if workers == 1 or anonymous else "local"
    if engine in ("local", "ray") and anonymous:
        raise UserError(
            f"{anonymous[0]} is a class of this process; worker processes cannot load it. Use engine='inline', or put "
            "the loss into a file and name it as path/to/file.py:ClassName."
        )
    if engine == "inline":
        _run_inline(cells, listener)
    elif engine == "ray":
        raise_failures(run_on_ray(cells, listener))
    else:
        _Pool(cells, workers, listener).run()


def possible_workers(cell: Cell) -> int:
    """Number of cells of this kind that can run at once: as many as the CPUs allow, one on a GPU."""
    return max(1, cpu_count() // cell.task.spec.threads) if cell.device == "cpu" else 1


def _require_parallel(cells: Sequence[Cell], engine: Engine) -> None:
    spec = cells[0].task.spec
    if not spec.kind.parallel:
        raise UserError(
            f"{cells[0].task.id} cannot use {world_size()} processes for one cell: start it without `accelerate "
            "launch`; `compare` runs its cells side by side."
        )
    if engine not in ("auto", "inline"):
        raise UserError(
            f"--engine {engine} and `accelerate launch` exclude one another: the processes share each cell."
        )
    if spec.workload.training.batch_size < world_size():
        raise UserError(
            f"{cells[0].task.id} trains on {spec.workload.training.batch_size} windows per update, too few for "
            f"{world_size()} processes: start fewer."
        )


def _run_inline(cells: Sequence[Cell], listener: Listener) -> None:
    failures = []
    with _noticing_ctrl_c() as noticed:
        for cell in cells:
            try:
                run_cell(cell, listener)
            except RunError as error:
                if world_size() > 1:  # the other processes still work on this cell; they stop only when this one exits
                    raise
                failures.append(f"{cell}: {error}")
            except CollapsebenchError:
                raise
            except Exception as error:
                if noticed:
                    raise KeyboardInterrupt from error
                if world_size() > 1:
                    raise RunError(f"{cell}: {in_one_line(error)}") from error
                failures.append(f"{cell}: {in_one_line(error)}")
    raise_failures(failures)


@contextmanager
def _noticing_ctrl_c() -> Iterator[list[int]]:
    """Remember that Ctrl-C was pressed, because compiled code such as safetensors then raises a different error."""
    noticed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    def handler(number: int, frame: FrameType | None) -> None:
        noticed.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, handler)
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGINT, before)


def raise_failures(failures: list[str]) -> None:
    """Raise one `RunError` that names every failed cell, if any."""
    if failures:
        raise RunError(
            "\n".join(failures)
            + f"\n{len(failures)} cell(s) failed; what finished is kept. Run the same command again."
        )


class _Pool:
    """Worker processes that run one cell after another; if a worker dies, its cell fails and the worker is replaced."""

    def __init__(self, cells: Sequence[Cell], workers: int, listener: Listener):
        self.waiting = deque(cells)
        self.workers = workers
        self.listener = listener
        self.failures: list[str] = []
        self.busy: dict[Connection, tuple[BaseProcess, Cell]] = {}
        self.context = multiprocessing.get_context("spawn")

    def run(self) -> None:
        """Run everything; on an error or Ctrl-C, all workers are stopped."""
        try:
            for _ in range(self.workers):
                self._start()
            while self.busy:
                for connection in wait(list(self.busy)):
                    assert isinstance(connection, Connection)
                    self._receive(connection)
        finally:
            for process, _ in self.busy.values():
                process.terminate()
            for process, _ in self.busy.values():
                process.join()
        raise_failures(self.failures)

    def _start(self) -> None:
        if not self.waiting:
            return
        here, there = self.context.Pipe()
        process = self.context.Process(target=_work, args=(there,), daemon=True)
        with _interrupts_held_back(), _main_module_hidden():
            process.start()
        there.close()
        self._give(here, process)

    def _give(self, connection: Connection, process: BaseProcess) -> None:
        """Send the next cell to a worker, or tell it to exit."""
        if not self.waiting:
            connection.close()
            process.join()
            return
        cell = self.waiting.popleft()
        self.busy[connection] = (process, cell)
        with suppress(BrokenPipeError):  # if the worker has just died, waiting for its answer will detect it
            connection.send(cell.order)

    def _receive(self, connection: Connection) -> None:
        process, cell = self.busy[connection]
        try:
            message = connection.recv()
        except (EOFError, ConnectionResetError):
            del self.busy[connection]
            process.join()
            self.failures.append(f"{cell}: the worker process {how_it_ended(process.exitcode)}")
            self._start()
            return
        if isinstance(message, Event):
            self.listener(message)
            return
        del self.busy[connection]
        if isinstance(message, UserError):
            process.terminate()
            process.join()
            raise message
        if message is not None:
            self.failures.append(f"{cell}: {message}")
        self._give(connection, process)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Block Ctrl-C in processes started here, even while they import; this process receives it afterwards."""
    resource_tracker.ensure_running()  # started within the block, it would lift the mask when it is up
    arrived: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    # The new process inherits the mask. The mask applies to this thread only; another one may receive the signal.
    handler = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number)) if main else None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        if main:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    if arrived:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep processes started in this block from importing the running program, as spawned processes otherwise do.

    A worker does not need it, because orders name everything in text. Without an ``if __name__ == "__main__"`` guard, a
    script would run again in every worker and start workers of its own. A script read from stdin could not be found.
    """
    name = "__main__"
    hidden = sys.modules[name]
    sys.modules[name] = ModuleType(name)
    try:
        yield
    finally:
        sys.modules[name] = hidden


def _work(connection: Connection) -> None:
    """Main function of a worker: receive orders, send events, then None or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    keep_off_the_screen()
    while True:
        try:
            order = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(carry_out(order, connection.send))
        except BrokenPipeError:  # the parent has exited
            sys.exit(1)

"""Cells on a Ray cluster: a local one, or the one at ``RAY_ADDRESS``.

A cell is one Ray task with the CPUs (and, on a GPU, the one GPU) it needs. Results go to the directory of runs, which
must be on storage shared by all nodes. The same holds for a loss that is named by its file. If a node is lost, its
cell is retried elsewhere and continues after its last finished generation.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from collapsebench.errors import CollapsebenchError, RunError, UserError
from collapsebench.running.cells import Cell, Order, carry_out
from collapsebench.running.progress import Event, Listener

if TYPE_CHECKING:
    from ray.util.queue import Queue

_POLL_SECONDS = 0.25
_RETRIES = 2  # retries of a cell whose worker or node died


def run_on_ray(cells: Sequence[Cell], listener: Listener) -> list[str]:
    """Run all cells on Ray; return one line per failed cell.

    Raises:
        UserError: Ray is not installed, or a cell raised this error; the other cells are then cancelled.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray.util.queue import Queue
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install 'collapsebench[ray]'.") from error
    started_here = not ray.is_initialized()
    if started_here:
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(address=os.environ.get("RAY_ADDRESS"), **quiet)
    try:
        events = Queue(actor_options={"num_cpus": 0})
        remote = ray.remote(_cell)
        running: dict[Any, Cell] = {
            remote.options(
                num_cpus=cell.task.spec.threads, num_gpus=int(cell.device.startswith("cuda")), max_retries=_RETRIES
            ).remote(cell.order, events): cell
            for cell in cells
        }
        return _wait_for_all(running, events, listener)
    finally:
        if started_here:
            ray.shutdown()


def _cell(order: Order, events: Queue) -> CollapsebenchError | None:
    """The Ray task."""
    return carry_out(order, events.put)


def _wait_for_all(running: dict[Any, Cell], events: Queue, listener: Listener) -> list[str]:
    import ray

    failures: list[str] = []
    try:
        while running:
            done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            for event in events.get_nowait_batch(events.qsize()):
                assert isinstance(event, Event)
                listener(event)
            for future in done:
                cell = running.pop(future)
                outcome: CollapsebenchError | None
                try:
                    outcome = ray.get(future)
                except ray.exceptions.RayError as error:
                    last_line = str(error).strip().splitlines()[-1]
                    outcome = RunError(f"lost on the cluster: {type(error).__name__}: {last_line}")
                if isinstance(outcome, UserError):
                    raise outcome
                if outcome is not None:
                    failures.append(f"{cell}: {outcome}")
    finally:
        for future in running:
            ray.cancel(future, force=True)
    return failures

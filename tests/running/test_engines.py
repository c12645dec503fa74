"""Where cells run: the same bytes everywhere, and a failure that takes nothing else with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import forking_workers
from tiny_task import results
from torch import Tensor

from collapsebench.errors import LossError, RunError, UserError
from collapsebench.losses import Elements, Loss
from collapsebench.running import engines
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.cells import Cell
from collapsebench.running.engines import run_cells
from collapsebench.running.plan import plan
from collapsebench.running.progress import Event, silent
from collapsebench.task import load_task

LOSSES = """
import os

from collapsebench import Loss


class Dies(Loss):
    def elementwise(self, e):
        if e.generation == 1:
            os._exit(7)
        return -e.log_p


class Killed(Loss):
    def elementwise(self, e):
        if e.generation == 1:
            os.kill(os.getpid(), 9)
        return -e.log_p


class Breaks(Loss):
    def elementwise(self, e):
        return -e.log_p.mean() if e.generation == 1 else -e.log_p
"""


class Mine(Loss):
    """A loss that exists only in this process."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    file = tmp_path / "losses.py"
    file.write_text(LOSSES)
    return file


@pytest.fixture
def fast_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that are forked with torch imported; one test below starts real ones."""
    monkeypatch.setattr(engines.multiprocessing, "get_context", forking_workers)


def cells_of(task: Path, methods: list[object], out: Path, seeds: list[int], generations: int = 1) -> list[Cell]:
    return plan(load_task(task), methods, seeds, out, generations, "cpu")


def everything(cells: list[Cell]) -> list[dict[str, bytes]]:
    return [results(cell.directory.path) for cell in cells]


def test_local_workers_give_the_same_bytes_as_this_process(tiny: Path, tmp_path: Path) -> None:
    here, there = (cells_of(tiny, ["ce", "tce"], tmp_path / name, [0, 1]) for name in ("inline", "local"))
    events: list[Event] = []
    run_cells(here, "inline", None, silent)
    run_cells(there, "local", 2, events.append)
    assert everything(there) == everything(here)
    assert {(e.method, e.seed, e.generation) for e in events if e.phase == "complete"} == {
        (m, s, g) for m in ("ce", "tce") for s in (0, 1) for g in (0, 1)
    }


@pytest.mark.usefixtures("fast_workers")
@pytest.mark.parametrize("workers", [1, 2])
def test_worker_that_dies_fails_its_own_cell_only(tiny: Path, tmp_path: Path, losses: Path, workers: int) -> None:
    cells = cells_of(tiny, [f"{losses}:Dies", "ce", "focal"], tmp_path / "runs", [0])
    with pytest.raises(RunError, match=r"Dies seed 0: the worker process died \(exit code 7\)") as caught:
        run_cells(cells, "local", workers, silent)
    assert "1 cell(s) failed" in str(caught.value)
    assert "memory" not in str(caught.value)  # nothing says so
    assert "ce seed 0" not in str(caught.value)
    dead, ce, focal = (cell.directory for cell in cells)
    assert [store.state(1) for store in (dead, ce, focal)] == ["missing", "ok", "ok"]
    assert dead.state(0) == "ok"


@pytest.mark.usefixtures("fast_workers")
def test_memory_is_named_where_the_system_killed_the_worker(tiny: Path, tmp_path: Path, losses: Path) -> None:
    cells = cells_of(tiny, [f"{losses}:Killed"], tmp_path / "runs", [0])
    with pytest.raises(RunError, match=r"Killed seed 0: the worker process was killed \(SIGKILL\), .* memory runs out"):
        run_cells(cells, "local", 1, silent)


@pytest.mark.usefixtures("fast_workers")
def test_users_mistake_in_one_cell_stops_all(tiny: Path, tmp_path: Path, losses: Path) -> None:
    cells = cells_of(tiny, [f"{losses}:Breaks", "ce"], tmp_path / "runs", [0, 1])
    with pytest.raises(LossError, match=r"Breaks.elementwise returned"):
        run_cells(cells, "local", 1, silent)
    assert cells[0].directory.state(0) == "ok"
    assert [cell.directory.state(0) for cell in cells[1:]] == ["missing"] * 3


def test_users_mistake_in_one_cell_stops_all_in_this_process_too(tiny: Path, tmp_path: Path, losses: Path) -> None:
    cells = cells_of(tiny, [f"{losses}:Breaks", "ce"], tmp_path / "runs", [0])
    with pytest.raises(LossError, match=r"Breaks.elementwise returned"):
        run_cells(cells, "inline", None, silent)
    assert cells[1].directory.state(0) == "missing"


@pytest.mark.usefixtures("fast_workers")
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_failed_work_is_named_after_all_other_cells_are_done(tiny: Path, tmp_path: Path, engine) -> None:
    cells = cells_of(tiny, ["ce", "focal"], tmp_path / "runs", [0])
    with cells[0].directory.opened({"seed": 0}, {"task_file": str(tiny)}, {}):  # as another process would hold it
        with pytest.raises(RunError, match=r"ce seed 0: .* is in use by another process"):
            run_cells(cells, engine, 1, silent)
    assert [cell.directory.state(1) for cell in cells] == ["missing", "ok"]


def test_class_of_this_process_cannot_run_in_workers(tiny: Path, tmp_path: Path) -> None:
    cells = cells_of(tiny, [Mine], tmp_path, [0])
    with pytest.raises(UserError, match=r"Mine is a class of this process; .*engine='inline'"):
        run_cells(cells, "local", None, silent)
    assert not any(tmp_path.iterdir())


def test_class_of_this_process_runs_inline_under_auto(tiny: Path, tmp_path: Path) -> None:
    cells = cells_of(tiny, [Mine, "ce"], tmp_path, [0], generations=0)
    run_cells(cells, "auto", None, silent)
    assert [cell.directory.state(0) for cell in cells] == ["ok", "ok"]


def test_no_cells_are_no_work() -> None:
    run_cells([], "local", None, silent)


@pytest.mark.usefixtures("fast_workers")
def test_no_worker_is_left_behind_when_the_listener_fails(tiny: Path, tmp_path: Path) -> None:
    import multiprocessing

    def interrupted(_: Event) -> None:
        raise KeyboardInterrupt

    cells = cells_of(tiny, ["ce", "tce"], tmp_path, [0])
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, "local", 2, interrupted)
    assert not multiprocessing.active_children()


def test_every_registered_method_runs_one_generation(tiny: Path, tmp_path: Path) -> None:
    from collapsebench.methods import CONTROL, registered_methods

    cells = cells_of(tiny, [*registered_methods(), CONTROL], tmp_path, [0])
    run_cells(cells, "inline", None, silent)
    for cell in cells:
        assert RunDirectory(cell.directory.path).state(1) == "ok", str(cell)
    assert os.environ["COLLAPSEBENCH_CACHE"] not in str(tmp_path)

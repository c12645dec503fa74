"""Generations that know nothing of each other: a process, a folder and a home for each, and the numbers of a chain."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_task import results, write_tiny_task

from collapsebench.errors import RunError, UserError
from collapsebench.methods import load_method
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.cells import Cell, run_cell
from collapsebench.running.isolated import Named, run_isolated
from collapsebench.running.progress import silent
from collapsebench.task import load_task

# Leaves a note wherever a generation can write, and weighs the elements of later generations by the notes it finds.
LEAVES_NOTES = """
import os
import tempfile
from pathlib import Path

import torch

from collapsebench import Elements, Loss

FOLDERS = [Path(), Path(__file__).parent, Path.home(), Path(tempfile.gettempdir()), Path(os.environ["PWD"])]
PLACES = [folder / "note" for folder in FOLDERS]


class MyLoss(Loss):
    def elementwise(self, e: Elements):
        found = sum(place.exists() for place in PLACES) + hasattr(torch, "_note")
        if e.generation == 0 and e.step == e.total_steps - 1 > 0:  # not when it is checked on known values
            torch._note = True
            for place in PLACES:
                place.touch()
        return -e.log_p * (e.log_p.detach() * found).exp()
"""
BRINGS_DOWN_ITS_PROCESS = """
import os

from collapsebench import Elements, Loss


class MyLoss(Loss):
    def elementwise(self, e: Elements):
        if e.generation == 1:
            os._exit(7)
        return -e.log_p
"""


def cell_of(task: Path, method: str, out: Path) -> Cell:
    loaded = load_task(task)
    return Cell(loaded, load_method(method, loaded.spec.workload.kind), 0, out, 2, "cpu")


def named(cell: Cell, file: Path | None) -> Named:
    method = cell.method
    loss = method.loss if file is None else f"{file}:MyLoss"
    return Named(loss, file, method.parameters, method.source_sha256, method.track)


def run_of(cell: Cell) -> dict[str, bytes]:
    found = results(cell.directory.path)
    return {name: content for name, content in found.items() if not name.endswith("complete.json")}


def test_what_a_loss_left_behind_is_not_there_in_the_next_generation(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "gmm", **{"policy.name": "accumulate"})
    file = tmp_path / "loss.py"
    file.write_text(LEAVES_NOTES)
    honest = cell_of(task, "ce", tmp_path / "honest")
    run_cell(honest)
    sly = cell_of(task, f"{file}:MyLoss", tmp_path / "sly")
    run_isolated(sly, named(sly, file), silent)
    assert run_of(sly) == run_of(honest)  # it found nothing, and the samples of all earlier generations were there
    assert [RunDirectory(sly.directory.path).state(g) for g in range(3)] == ["ok"] * 3
    assert not file.with_name("note").exists()


def test_a_generation_that_dies_is_told_and_what_finished_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "loss.py"
    file.write_text(BRINGS_DOWN_ITS_PROCESS)
    cell = cell_of(write_tiny_task(tmp_path / "task", "gmm"), f"{file}:MyLoss", tmp_path / "runs")
    with pytest.raises(RunError, match=r"the process of generation 1 died .exit code 7"):
        run_isolated(cell, named(cell, file), silent)
    assert [cell.directory.state(g) for g in range(2)] == ["ok", "missing"]


def test_another_source_is_refused_by_the_process_that_loads_it(tmp_path: Path) -> None:
    file = tmp_path / "loss.py"
    file.write_text(LEAVES_NOTES)
    cell = cell_of(write_tiny_task(tmp_path / "task", "gmm"), f"{file}:MyLoss", tmp_path / "runs")
    file.write_text(LEAVES_NOTES + "# changed")
    with pytest.raises(UserError, match="is not the loss that was submitted"):
        run_isolated(cell, named(cell, file), silent)


@pytest.mark.parametrize(
    "line",
    [b"garbage\n", b"\xff\n", b"[1]\n", b"{}\n", b'{"end": {}}\n', b'{"event": {"bogus": 1}}\n', b'{"end": 3}\n'],
)
def test_what_a_loss_writes_to_the_harness_ends_in_one_message(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "loss.py"
    file.write_text(
        f"""
import os, sys
from collapsebench import Elements, Loss


class MyLoss(Loss):
    def elementwise(self, e: Elements):
        if e.total_steps > 1 and sys.argv[1:]:
            os.write(int(sys.argv[1]), {line!r})
            os._exit(0)
        return -e.log_p
"""
    )
    cell = cell_of(write_tiny_task(tmp_path / "task", "gmm"), f"{file}:MyLoss", tmp_path / "runs")
    with pytest.raises(RunError, match=r"wrote what is no message|has left no generation"):
        run_isolated(cell, named(cell, file), silent)
    assert cell.directory.state(0) == "missing"

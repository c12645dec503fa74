"""Cells on a local Ray cluster. Needs the extra `ray`; starting Ray takes a while, so these are slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_task import results

from collapsebench.errors import LossError
from collapsebench.running.cells import Cell
from collapsebench.running.engines import run_cells
from collapsebench.running.plan import plan
from collapsebench.running.progress import Event, silent
from collapsebench.task import load_task

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

BREAKS = """
from collapsebench import Loss


class Breaks(Loss):
    def elementwise(self, e):
        return -e.log_p.mean() if e.generation == 1 else -e.log_p
"""


def cells_of(task: Path, method: str, out: Path) -> list[Cell]:
    return plan(load_task(task), [method], [0, 1], out, 1, "cpu")


def test_ray_gives_the_same_bytes_as_this_process(tiny: Path, tmp_path: Path) -> None:
    here, there = (cells_of(tiny, "tce", tmp_path / name) for name in ("inline", "ray"))
    events: list[Event] = []
    run_cells(here, "inline", None, silent)
    run_cells(there, "ray", None, events.append)
    assert [results(c.directory.path) for c in there] == [results(c.directory.path) for c in here]
    assert {(e.seed, e.generation) for e in events if e.phase == "complete"} == {(s, g) for s in (0, 1) for g in (0, 1)}


def test_broken_loss_on_ray_is_the_users_error(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(BREAKS)
    with pytest.raises(LossError, match=r"Breaks\.elementwise returned"):
        run_cells(cells_of(tiny, f"{tmp_path / 'breaks.py'}:Breaks", tmp_path / "out"), "ray", None, silent)

"""A class that only lives in this process is known by what it runs: in a notebook nothing else tells it apart."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from command import python

import collapsebench
from collapsebench.losses import Loss
from collapsebench.methods import load_method

torch.set_num_threads(1)

# As a cell of a notebook, whose source cannot be read.
CELL = """
import functools
import math
import random
import threading
from typing import ClassVar

import numpy as np
import torch
from collapsebench import Elements, Loss

SHARE = 0.5
TABLE = {"a": [1.0, {2.0, 3.0}]}
ARRAY = np.array([1.0, 2.0])
TENSOR = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
UNUSED = 1


def factor(power=2.0):
    return SHARE ** power


@functools.lru_cache
def cached():
    return factor()


class Scale:
    def __init__(self, by):
        self.by = by


SCALE = Scale(1.0)


def made(inner):
    class Mine(Loss):
        \"\"\"A loss.\"\"\"

        beta: float = 0.5
        const: ClassVar[float] = 3.0

        def elementwise(self, e: Elements):
            parts = [cached() for _ in range(2)]
            kept = (SCALE.by, TABLE, ARRAY, TENSOR, torch.float32, math.pi, random.random, np.float64(1.0))
            return -e.log_p * self.beta * inner * (1 if kept else 2) * sum(parts)

    return Mine


Mine = made(1.5)
"""


def cell(source: str = CELL, **also: Any) -> dict[str, Any]:
    """The globals after a cell, as of a notebook."""
    found: dict[str, Any] = {"__name__": "__main__", **also}
    exec(compile(source, "<ipython-input-1>", "exec", dont_inherit=True), found)
    return found


def identity(source: str = CELL, **also: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_method(cell(source, **also)["Mine"]).id


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("self.beta * inner", "self.beta / inner"),
        ("range(2)", "range(3)"),
        ("(1 if kept else 2)", "(1 if kept else 3)"),
        ("SHARE = 0.5", "SHARE = 0.6"),
        ("power=2.0", "power=3.0"),
        ("SHARE ** power", "SHARE * power"),
        ("made(1.5)", "made(1.25)"),
        ("beta: float = 0.5", "beta: float = 0.4"),
        ("= 3.0\n", "= 4.0\n"),
        ("{2.0, 3.0}", "{2.0, 4.0}"),
        ("np.array([1.0, 2.0])", "np.array([1.0, 2.5])"),
        ("torch.tensor([1.0, 2.0]", "torch.tensor([1.0, 2.5]"),
        ("dtype=torch.bfloat16", "dtype=torch.float32"),
        ("torch.float32, math", "torch.float64, math"),
        ("Scale(1.0)", "Scale(2.0)"),
        ("self.by = by", "self.by = by + 1"),
        ("class Mine(Loss)", "class Mine(Between)"),
    ],
)
def test_whatever_changes_what_runs_makes_it_another_method(before: str, after: str) -> None:
    assert before in CELL
    changed = CELL.replace(before, after).replace("SHARE = ", "class Between(Loss):\n    pass\n\nSHARE = ", 1)
    assert identity(changed) != identity()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\nSHARE", "\n# A comment.\n\n\nSHARE"),
        ("A loss.", "The same loss."),
        ("UNUSED = 1", "UNUSED = 2"),
        ("e: Elements", "e"),
    ],
)
def test_what_does_not_run_leaves_the_method_as_it_is(before: str, after: str) -> None:
    assert before in CELL
    assert identity(CELL.replace(before, after)) == identity()


def test_a_changed_global_is_noticed_although_nothing_is_defined_again() -> None:
    found = cell()
    before = load_method(found["Mine"]).id
    found["SHARE"] = 0.25
    assert load_method(found["Mine"]).id != before
    found["SHARE"] = 0.5
    assert load_method(found["Mine"]).id == before


def test_what_is_used_of_an_own_module_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ModuleType("own_settings")
    own.GAMMA, own.OTHER = 1.0, 1.0
    monkeypatch.setitem(sys.modules, "own_settings", own)
    source = CELL.replace("* inner", "* inner * own_settings.GAMMA").replace("SHARE", "import own_settings\nSHARE", 1)
    late = CELL.replace("            parts", "            from own_settings import GAMMA\n            parts")
    before = identity(source), identity(late)
    own.OTHER = 2.0
    assert (identity(source), identity(late)) == before
    own.GAMMA = 2.0
    assert not {identity(source), identity(late)} & set(before)


def test_another_process_gives_the_same_method_the_same_identity(tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text(CELL)
    program = (
        "from collapsebench.methods import load_method; found = {'__name__': '__main__'}; "
        "exec(open('cell.py').read(), found); print(load_method(found['Mine']).id)"
    )
    found = {python("-c", program, cwd=tmp_path, PYTHONHASHSEED=seed).stdout.strip() for seed in ("1", "2")}
    assert found == {identity()}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("len(LOCK.__class__.__name__)", "an object of _thread.lock"),
        ("len(globals())", r"globals\(\)"),
        ("len(open('/dev/null').read())", r"open\(\)"),
        ("next(GENERATOR)", "an object of builtins.generator"),
    ],
)
def test_what_cannot_be_told_is_never_reused(written: str, told: str) -> None:
    source = CELL.replace("SHARE = ", "LOCK = threading.Lock()\nGENERATOR = iter(x for x in range(10**9))\nSHARE = ", 1)
    loss = cell(source.replace("self.beta *", f"self.beta * (0 * {written} + 1) *"))["Mine"]
    with pytest.warns(UserWarning, match=rf"Mine depends on {told}.*its results are not reused"):
        first = load_method(loss).id
    with pytest.warns(UserWarning, match="not reused"):
        assert load_method(loss).id != first


def test_redefined_loss_is_run_again_and_the_same_one_is_reused(tmp_path: Path) -> None:
    """As in a notebook: the cell with the loss is changed and run again, then changed back."""
    from tiny_task import write_tiny_task

    task = write_tiny_task(tmp_path / "task", "gmm")
    source = CELL.replace("* sum(parts)", "")

    def kl(text: str) -> float:
        loss: type[Loss] = cell(text)["Mine"]
        run = collapsebench.run(task, loss, out=tmp_path / "runs", generations=1, device="cpu")
        made.append(run)
        from collapsebench.running.artifacts import RunDirectory

        return RunDirectory(run).read(1, "metrics.json")["metrics"]["kl_to_truth"]["value"]

    made: list[Path] = []
    values = [kl(source), kl(source.replace("self.beta * inner", "(e.log_p.exp() < 0.5)")), kl(source)]
    assert made[0] == made[2] != made[1]
    assert values[0] == values[2] != values[1]

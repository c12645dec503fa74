"""``from collapsebench import …``: lazy, and all that the README promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import python
from tiny_task import results, write_tiny_task

import collapsebench
from collapsebench.api import prepare
from collapsebench.errors import UserError
from collapsebench.losses import Loss

# As a user would write it: a file of their own that defines a loss and evaluates it.
SCRIPT = """
import sys
from torch import Tensor
from collapsebench import Elements, Loss, compare, load_task, run, score

class Tempered(Loss):
    beta: float = 0.5

    def elementwise(self, e: Elements) -> Tensor:
        return -(e.log_p * self.beta).exp() * e.log_p

if __name__ == "__main__":
    task = load_task(sys.argv[1])
    path = run(task, Tempered, seed=0, out="runs", device="cpu")
    assert (path / "gen-3" / "metrics.json").is_file()
    result = compare(task, ["ce", "tce", Tempered(beta=0.8)], out="runs", device="cpu")
    print(*sorted(result.methods))
    again = score("runs")
    print(len(again), *sorted(again[0].methods))
"""


def test_import_is_lazy(tmp_path: Path) -> None:
    result = python(
        "-c", "import collapsebench, sys; print('torch' in sys.modules, 'pydantic' in sys.modules)", cwd=tmp_path
    )
    assert result.stdout.split() == ["False", "False"], result.stderr


def test_every_public_name_is_there() -> None:
    assert {"Loss", "Elements", "load_task", "run", "compare", "score"} <= set(collapsebench.__all__)
    assert dir(collapsebench) == sorted(collapsebench.__all__)
    for name in collapsebench.__all__:
        assert getattr(collapsebench, name).__doc__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Losses'"):
        _ = collapsebench.Losses


def test_ten_line_loss_runs_compares_and_scores(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "evaluate.py"
    file.write_text(SCRIPT)
    result = python(file, tiny, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    compared, scored = result.stdout.splitlines()
    assert compared == "Tempered:beta=0.8 ce tce"
    assert scored == "1 Tempered Tempered:beta=0.8 ce tce"


# What `import torch` in each of two workers leaves of a minute is enough.
UNGUARDED = """
from collapsebench import compare

table = compare({task!r}, {methods}, seeds=[0, 1], out="runs", generations=1, device="cpu", engine="local").table
print(*sorted(table["method"]))
"""


@pytest.mark.parametrize("how", [pytest.param("script", marks=pytest.mark.slow), "stdin"])
def test_script_without_a_guard_compares_in_workers(how: str, tmp_path: Path) -> None:
    task = str(write_tiny_task(tmp_path / "task", "gmm"))
    script = tmp_path / "compare.py"
    script.write_text(UNGUARDED.format(task=task, methods=["ce"]))
    result = python(*([script] if how == "script" else ["-"]), cwd=tmp_path, stdin=script.read_text())
    assert (result.stdout.split(), result.returncode) == (["ce"], 0), result.stderr


def test_script_that_names_itself_without_a_guard_is_told_so(tmp_path: Path) -> None:
    task = str(write_tiny_task(tmp_path / "task", "gmm"))
    script = tmp_path / "mine.py"
    script.write_text(UNGUARDED.format(task=task, methods=["mine.py:Mine"]))
    result = python(script, cwd=tmp_path)
    assert result.returncode == 1
    assert "mine.py names itself while it is executed" in result.stderr.splitlines()[-1]


def test_run_returns_its_directory_and_compare_reuses_it(tiny: Path, tmp_path: Path) -> None:
    path = collapsebench.run(tiny, "ce", out=tmp_path, device="cpu")
    assert path == tmp_path / "tiny@1" / "ce" / "seed-0"
    before, events = results(path), []
    trial = prepare(tiny, ["ce"], seeds=[0], out=tmp_path, device="cpu")
    trial.run("inline", events.append)
    assert {e.phase for e in events} == {"prepared", "reused"}
    comparison = collapsebench.compare(tiny, ["ce"], seeds=[0], out=tmp_path, device="cpu", engine="inline")
    assert results(path) == before
    assert comparison.table["seeds"].tolist() == [1]
    assert comparison.table["mfi_low"].isna().all()  # one seed has no interval


def test_score_recomputes_the_comparison(tiny: Path, tmp_path: Path) -> None:
    comparison = collapsebench.compare(tiny, ["ce", "focal"], out=tmp_path, device="cpu", engine="inline")
    (again,) = collapsebench.score(tmp_path)
    assert again.table.equals(comparison.table)
    assert again.curves.equals(comparison.curves)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"methods": []}, "no methods given"),
        ({"methods": ["ce", "ce"]}, "methods given twice: ce"),
        ({"methods": ["tce", "tce:gamma=0.9"]}, "methods given twice: tce"),
        ({"methods": ["ce"], "seeds": [1, 1]}, r"seeds \[1, 1\] are not allowed"),
        ({"methods": ["ce"], "seeds": []}, "seeds"),
        ({"methods": ["ce"], "seeds": [2**31]}, r"seeds \[2147483648\] are not allowed; give .* from 0 to 2147483647"),
        ({"methods": ["ce"], "seeds": 3}, r"seeds 3 are not allowed; give different integers .* a list or range"),
        ({"methods": ["ce"], "seeds": "0,1"}, "seeds '0,1' are not allowed"),
        ({"methods": ["ce"], "seeds": [0.5]}, r"seeds \[0.5\] are not allowed"),
        ({"methods": "ce"}, r"methods='ce' is not allowed; give a list, also of one: methods=\['ce'\]"),
        ({"methods": Loss}, r"methods=<class .*Loss'> is not allowed; give a list"),
        ({"methods": ["ce"], "seeds": [-1]}, r"seeds \[-1\]"),
        ({"methods": ["ce"], "generations": 4}, "generations 0 to 3"),
        ({"methods": ["ce"], "device": "tpu"}, "device 'tpu' is not available"),
        ({"methods": [3]}, "a method is text"),
    ],
)
def test_mistakes_are_user_errors_before_any_work(tiny: Path, tmp_path: Path, arguments: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        collapsebench.compare(tiny, out=tmp_path, **arguments)
    assert not any(tmp_path.iterdir())

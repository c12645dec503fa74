"""Tuning as a user meets it: which seeds and metrics it may look at, what it says, and that it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from command import collapsebench
from tiny_task import write_based_task

from collapsebench.authoring.tuning import default_seeds, variants_of
from collapsebench.task import load_task

LOSS = """
from collapsebench import Elements, Loss


class Weaker(Loss):
    \"\"\"Cross entropy that learns a little less of what is likely.\"\"\"

    beta: float = 0.1

    def elementwise(self, e: Elements):
        return -e.log_p * (-self.beta * e.log_p.detach()).exp()
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task, and a loss that was tuned on it."""
    folder = tmp_path_factory.mktemp("tuning")
    write_based_task(folder, "markov", checks={"best_start": 9.0})  # a tiny task is noisy
    (folder / "weaker.py").write_text(LOSS)
    return folder


def tune(folder: Path, *more: str, method: str = "weaker.py:Weaker") -> list[str]:
    return [
        "tune",
        str(folder / "task.yaml"),
        "--method",
        method,
        "--seeds",
        "7,8",
        "--out",
        str(folder / "runs"),
        *more,
    ]


def test_variants_are_compared_on_selection_data_and_counted_into_the_entry(workplace: Path) -> None:
    first = collapsebench(*tune(workplace, "--try", "beta=0.05,0.2"), cwd=workplace)
    assert first.code == 0, first.err
    assert "Fidelity in selection_nll" in first.out
    assert "Weaker: 4 of 20 runs of" in first.out
    assert (workplace / "runs/tuning/tiny-markov-based@1/tuning.png").stat().st_size > 10_000
    # A second look at one of them costs nothing, half a chain costs its share, and what was dropped stays counted.
    again = collapsebench(*tune(workplace, "--try", "beta=0.05,0.3", "--generations", "0"), cwd=workplace)
    assert "Weaker: 4.67 of 20 runs of" in again.out, again.err
    assert collapsebench("score", workplace / "runs", cwd=workplace).code == 2  # nothing of it is scored
    task = workplace / "task.yaml"
    assert collapsebench("calibrate", task, "--out", "runs", "--write", "--force", cwd=workplace).code == 0
    (workplace / "calibration.json").unlink()  # it breaks rules
    out = ("--out", "runs")
    done = collapsebench("compare", task, "--methods", "ce,tce,weaker.py:Weaker:beta=0.2", *out, cwd=workplace)
    assert done.code == 0, done.err
    drafted = collapsebench(
        *("submit", "runs", "--method", "Weaker:beta=0.2", "--authors", "A. Author", "--out", "entries", "--yes"),
        cwd=workplace,
    )
    assert drafted.code == 0, drafted.err
    assert "tuning     4.67 runs" in drafted.out
    (file,) = (workplace / "entries").rglob("*.json")
    assert json.loads(file.read_text())["method"]["tuning_runs"] == pytest.approx(4.67)


def test_test_metrics_have_no_part_in_it(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table does not depend on the test metrics on disk."""
    from collapsebench.authoring import tuning

    task = load_task(workplace / "task.yaml")
    methods = variants_of(f"{workplace}/weaker.py:Weaker", ["beta=0.05"])
    cells = tuning.tuning_cells(task, methods, [7, 8], workplace / "runs", None, "cpu")
    plain = tuning.read_tuning(cells)
    read = tuning.raw_metrics

    def disturbed(*arguments: object) -> pd.DataFrame:
        frame = read(*arguments)
        frame.loc[frame["metric"].isin(list(task.spec.scored)), "value"] = 1e9
        return frame

    monkeypatch.setattr(tuning, "raw_metrics", disturbed)
    assert tuning.read_tuning(cells).variants == plain.variants


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--try", "beta"], "--try 'beta' is not allowed; give a parameter and its values, such as gamma=0.5,0.7."),
        (["--try", "beta=1", "--try", "beta=2"], "--try names a parameter twice: beta, beta"),
        (["--try", "gamma=1"], "gamma"),
        (["--try", "beta=1", "--seeds", "0,7"], "seeds [0] are official ones of tiny-markov-based@1"),
        (["--try", "beta=1", "--seeds", "x"], "--seeds 'x' is not allowed"),
    ],
)
def test_wrong_usage_is_one_line(workplace: Path, more: list[str], told: str) -> None:
    finished = collapsebench(*tune(workplace, *more), cwd=workplace)
    assert finished.code == 2
    assert told in finished.err
    assert "Traceback" not in finished.err


def test_grid_is_every_choice_with_what_was_given(workplace: Path) -> None:
    assert variants_of("x.py:X:a=1", ["b=2,3", "c=4, 5"]) == [f"x.py:X:a=1,b={b},c={c}" for b in (2, 3) for c in (4, 5)]
    assert not set(default_seeds(load_task(workplace / "task.yaml"))) & {0, 1, 2}

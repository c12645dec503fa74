"""What a comparison is made over."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tiny_task import write_tiny_task

from collapsebench.reports.comparison import _last
from collapsebench.task import load_task


@pytest.mark.parametrize(
    ("second", "third", "last"), [("ok", "ok", 2), ("ok", "diverged", 2), ("diverged", "diverged", 3)]
)
def test_what_diverged_does_not_shorten_the_horizon(tmp_path: Path, second: str, third: str, last: int) -> None:
    """Where every chain that got furthest diverged there, it is not known how far they would have been run."""
    task = load_task(write_tiny_task(tmp_path, "gmm", horizon=3))
    raw = pd.DataFrame({"generation": [0, 1, 2, 2], "status": ["ok", "ok", second, third]})
    assert _last(raw, task) == last

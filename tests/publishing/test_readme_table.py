"""The numbers of the README are those of the published table."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from collapsebench.paths import bundled
from collapsebench.publishing.validation import known_tasks

METHODS = ("ce", "tce", "focal")
README = bundled("tasks").resolve().parent / "README.md"
TEXT = README.read_text("utf-8") if README.is_file() else ""  # it is not part of the wheel
ROWS = dict(re.findall(r"^\| `([\w.-]+@\d+)`, (\d+ seeds, G = \d+ \|.*)$", TEXT, re.MULTILINE))

pytestmark = pytest.mark.skipif(not TEXT, reason="the README is not part of the wheel")


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return pd.read_csv(bundled("submissions") / "leaderboard.csv").set_index(["task", "method"])


def test_readme_lists_every_task_with_baselines(published: pd.DataFrame) -> None:
    assert set(ROWS) == set(published.index.get_level_values("task"))


@pytest.mark.parametrize("task", ROWS)
def test_row_of_the_readme_is_the_published_one(published: pd.DataFrame, task: str) -> None:
    rows = [published.loc[(task, method)] for method in METHODS]
    about = f"{rows[0]['seeds']} seeds, G = {known_tasks()[task].spec.horizon}"
    cells = [f"{row['mfi']:.2f} [{row['mfi_low']:.2f}, {row['mfi_high']:.2f}]" for row in rows]
    assert ROWS[task] == " | ".join([about, *cells]) + " |"

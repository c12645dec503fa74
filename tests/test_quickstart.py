"""The quickstart notebook runs as it is written, from an own loss to the table and the report."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from subprocess import run

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


@pytest.mark.slow
def test_quickstart_notebook_runs_from_an_own_loss_to_the_table(tmp_path: Path) -> None:
    file = Path(shutil.copy(NOTEBOOK, tmp_path))
    run([sys.executable, ROOT / "tests" / "execute_notebook.py", file.name], cwd=tmp_path, check=True)
    outputs = [output for cell in json.loads(file.read_text("utf-8"))["cells"] for output in cell.get("outputs", [])]
    shown = "".join(line for output in outputs for line in output.get("data", {}).get("text/html", []))
    assert "SoftTruncation" in shown
    assert "data:image/png;base64," in shown, "the curves"
    assert any("image/png" in output.get("data", {}) for output in outputs), "the forest"
    printed = "".join(line for output in outputs for line in output.get("text", []))
    (report,) = re.findall(r"^runs/.*report\.html$", printed, re.MULTILINE)
    assert "SoftTruncation" in (tmp_path / report).read_text("utf-8")


def test_quickstart_notebook_is_one_that_jupyter_opens() -> None:
    """By hand: nothing of Jupyter is among the packages that the tests need."""
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        assert isinstance(cell["metadata"], dict)
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), "cell", "exec")
            assert {"execution_count", "outputs"} <= cell.keys()

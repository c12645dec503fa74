"""A modality that the program does not know is one folder and one line: it goes through everything from there."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bigrams.kind import BIGRAM
from tiny_task import paragraphs

from collapsebench.api import compare, run, score
from collapsebench.authoring.calibration import calibration_cells, measure_calibration
from collapsebench.authoring.doctor import diagnose
from collapsebench.authoring.estimate import estimate
from collapsebench.authoring.estimates.sizes import known_sizes
from collapsebench.authoring.sigma import sigma_cells
from collapsebench.errors import TaskError
from collapsebench.files import write_atomically
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.submit import About, draft_submissions
from collapsebench.publishing.validation import submission_files, validate_files
from collapsebench.reports.comparison import Comparison
from collapsebench.reports.report import write_report
from collapsebench.resources import Resources
from collapsebench.running.engines import run_cells
from collapsebench.running.progress import Event
from collapsebench.running.results import raw_metrics_of
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.kinds import KINDS
from collapsebench.workloads.work import planned_elements

SITE = Path(__file__).resolve().parents[2] / "leaderboard"
LAST = 2
METHODS = ("ce", "focal", "tce")
FILE: dict[str, Any] = {
    "schema_version": 1,
    "name": "bigrams",
    "version": 1,
    "title": "Pairs of letters",
    "tier": "micro",
    "seeds": [0, 1],
    "horizon": LAST,
    "init": "previous",
    "data": {"source": "local", "path": "text.txt"},
    "policy": {"name": "accumulate", "size": 50},
    "workload": {
        "kind": "bigram",
        "line": 12,
        "training": {
            "batch_size": 20,
            "first": {"updates": 60, "learning_rate": 0.1, "decay": "linear"},
            "later": {"updates": 2, "learning_rate": 0.1, "decay": "linear"},
        },
        "test_lines": 100,
    },
    "scored": {"perplexity": {}, "next_token_accuracy": {}},
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    """The one line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "bigram", BIGRAM)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task, its text, and its runs."""
    folder = tmp_path_factory.mktemp("bigrams")
    (folder / "text.txt").write_text("\n\n".join(paragraphs(150)), "utf-8")
    (folder / "task.yaml").write_text(yaml.safe_dump(FILE), "utf-8")
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    """The task file, calibrated."""
    task = load_task(folder / "task.yaml")
    assert sigma_cells(task, folder, "cpu") == []
    cells = calibration_cells(task, folder / "runs", "cpu")
    run_cells(cells, "inline", None, lambda _: None)
    measure_calibration(cells).write()
    assert load_task(folder / "task.yaml").calibrated
    return folder / "task.yaml"


@pytest.fixture(scope="module")
def comparison(file: Path, folder: Path) -> Comparison:
    """The baselines on the task."""
    return compare(file, METHODS, out=folder / "runs", device="cpu", engine="inline")


@pytest.fixture(scope="module")
def submissions(comparison: Comparison, folder: Path) -> Path:
    """A folder with a submission of every baseline."""
    out, about = folder / "submissions", About(("A. Author",), url="https://example.org/code")
    for method in METHODS:
        (draft,) = draft_submissions(comparison.folder, method, about, out)
        assert draft.problems == []
        draft.write()
    return out


@pytest.fixture(scope="module")
def board(submissions: Path, file: Path) -> Board:
    task = load_task(file)
    return read_board(submissions, {task.id: task})


def test_errors_in_its_section_are_told_like_those_of_others(folder: Path, tmp_path: Path) -> None:
    wrong = FILE | {"workload": FILE["workload"] | {"line": 1, "letters": 3}, "scored": {"fid": {}}}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(wrong), "utf-8")
    with pytest.raises(TaskError, match="2 error") as caught:
        load_task(tmp_path / "task.yaml")
    assert "workload.line: Input should be greater than or equal to 2 (given: 1)" in str(caught.value)
    assert "workload.letters: unknown key (given: 3)" in str(caught.value)
    write_atomically(tmp_path / "task.yaml", yaml.safe_dump(FILE | {"scored": {"fid": {}}}))
    with pytest.raises(TaskError, match=r"a bigram task can score \['perplexity', 'next_token_accuracy'\]"):
        load_task(tmp_path / "task.yaml")


def test_it_runs_and_reports_what_it_planned(file: Path, tmp_path: Path) -> None:
    task, events = load_task(file), list[Event]()
    path = run(task, "tce:gamma=0.8", seed=5, out=tmp_path, device="cpu", listener=events.append)
    assert (path / f"gen-{LAST}" / "model.safetensors").is_file()
    (real,) = [event.real_items for event in events if event.phase == "prepared"]
    planned = [planned_elements(task.spec, g, real) for g in range(LAST + 1)]
    assert [sum(e.elements for e in events if e.generation == g) for g in range(LAST + 1)] == planned


def test_options_it_does_not_take_are_refused(file: Path, tmp_path: Path) -> None:
    for resources in (Resources(model=tmp_path), Resources(data=tmp_path), Resources(features=("efficientnet-lite0",))):
        with pytest.raises(Exception, match="cannot be given for bigrams@1"):
            load_workload(load_task(file, resources=resources), "cpu")


def test_a_budget_reduces_it(file: Path) -> None:
    spec = load_task(file, 0.5).spec
    assert (spec.workload.training.first.updates, spec.policy.size) == (30, 25)


def test_its_cost_is_estimated(file: Path) -> None:
    task = load_task(file)
    found = estimate(task, sizes=known_sizes(task, 500))
    assert (found.parameters, found.unit) == (27**2, "letters")
    assert [g.trained for g in found.generations] == [updates * 20 * 12 for updates in (60, 22, 24)]
    assert found.total.sampled == 3 * 50 * 12
    assert "letters trained" in "\n".join(found.lines())


def test_doctor_looks_at_it(file: Path) -> None:
    told = [finding.text for finding in diagnose(str(file))]
    assert any(text.startswith("data prepared: ") for text in told)


def test_it_is_compared_and_reported(comparison: Comparison, folder: Path) -> None:
    assert set(comparison.table["method"]) == set(METHODS)
    html = next(path for path in write_report(comparison) if path.suffix == ".html").read_text("utf-8")
    assert "Next-token accuracy" in html
    shown = raw_metrics_of(comparison.folder, ["ce"], [0])
    assert math.isfinite(float(shown["value"].astype(float).iloc[-1]))
    (again,) = score(folder / "runs")
    assert "control" in set(again.table["method"])


def test_its_submissions_are_valid_and_hold_samples(submissions: Path, file: Path) -> None:
    task = load_task(file)
    verdicts = validate_files(submission_files([submissions]), {task.id: task})
    assert [verdict.problems for verdict in verdicts] == [[], [], []]
    assert all(v.entry is not None and v.entry.submission.samples.kind == "text" for v in verdicts)


def test_a_submission_that_did_more_work_is_refused(submissions: Path, file: Path, tmp_path: Path) -> None:
    task, path = load_task(file), submission_files([submissions])[0]
    first = 60 * 20 * 12
    copy = tmp_path / task.id / path.name
    copy.parent.mkdir()
    copy.write_text(path.read_text("utf-8").replace(f'"elements_trained": {first}', f'"elements_trained": {first + 1}'))
    (verdict,) = validate_files([copy], {task.id: task})
    assert "counters" in {problem.code for problem in verdict.problems}


def test_it_is_on_the_board(board: Board) -> None:
    assert not board.broken
    assert set(board.table["modality"]) == {"bigram"}
    assert set(board.table["method"]) == set(METHODS)


@pytest.mark.parametrize("page", ["board", "task", "gallery"])
def test_the_site_shows_it(page: str, submissions: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("streamlit")
    from streamlit.testing.v1 import AppTest

    manager = "streamlit.components.v2.component_manager.BidiComponentManager.discover_and_register_components"
    monkeypatch.setattr(manager, lambda *_, **__: None, raising=False)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # Streamlit replaces it
    monkeypatch.syspath_prepend(str(SITE))
    monkeypatch.setenv("COLLAPSEBENCH_TASKS", str(file))
    monkeypatch.setenv("COLLAPSEBENCH_SUBMISSIONS", "nowhere")
    app = AppTest.from_file(str(SITE / "app.py"), default_timeout=120)
    if page != "board":
        app = app.run().switch_page(f"views/{page}.py")
    monkeypatch.setenv("COLLAPSEBENCH_SUBMISSIONS", str(submissions))
    app.query_params.update({} if page == "board" else {"task": "bigrams@1"})
    app = app.run()
    assert not app.exception
    shown = "\n".join(str(element.value) for kind in (app.markdown, app.caption, app.header) for element in kind)
    assert {"board": "Pairs of letters", "task": "pairs of letters", "gallery": "generation 1"}[page] in shown

"""Tasks without references compared on raw metrics; progress in a pipe; output for programs; ordinary permissions."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Finished, collapsebench, python, with_methods
from tiny_task import write_tiny_task

from collapsebench.api import score
from collapsebench.authoring.rates import Cost, Measured, Rate, duration_text, rates_file, read_measured, write_measured
from collapsebench.task import load_task, registered_tasks

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def raw_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    return write_tiny_task(folder, "gmm", scored={"kl_to_truth": {}, "minority_mass": {}})


@pytest.fixture(scope="module")
def compared(raw_task: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A directory in which a task without references was compared, and what was printed."""
    cwd = tmp_path_factory.mktemp("compared")
    return cwd, collapsebench(*with_methods(raw_task, "control,tce,ce"), "--json", cwd=cwd)


def test_task_without_references_is_compared_on_raw_metrics(compared: tuple[Path, Finished]) -> None:
    _, finished = compared
    assert finished.code == 0, finished.err
    content = json.loads(finished.out)
    rows = {(row["metric"], row["method"]): row for row in content["table"]}
    assert [m for metric, m in rows if metric == "kl_to_truth"] == ["ce", "tce", "control"]
    values = {
        (r["method"], r["seed"], r["generation"]): r["value"] for r in content["raw"] if r["metric"] == "kl_to_truth"
    }
    tce = rows["kl_to_truth", "tce"]
    assert tce["first"] == pytest.approx((values["tce", 0, 0] + values["tce", 1, 0]) / 2)
    assert tce["last"] == pytest.approx((values["tce", 0, 3] + values["tce", 1, 3]) / 2)
    assert tce["difference_ce"] == pytest.approx(tce["last"] - rows["kl_to_truth", "ce"]["last"])
    assert tce["difference_ce_low"] < tce["difference_ce"] < tce["difference_ce_high"]
    assert any("not calibrated" in note for note in content["notes"])
    assert "fidelity" not in finished.err


def test_raw_comparison_has_its_files_and_is_scored_and_reported_again(compared: tuple[Path, Finished]) -> None:
    cwd, _ = compared
    folder = cwd / "runs" / "tiny-gmm@1"
    for command in ("score", "report"):
        finished = collapsebench(command, "runs", cwd=cwd)
        assert finished.code == 0, finished.err
        assert re.search(r"kl_to_truth \(lower is better\).* tce ", finished.out)
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text("utf-8")
    assert "nothing is scored or ranked" in page
    assert "mFI" not in page
    assert not (folder / "forest.png").exists()


def test_raw_comparison_shows_itself_in_python(compared: tuple[Path, Finished], tmp_path: Path) -> None:
    cwd, _ = compared
    (found,) = score(cwd / "runs")
    assert list(found.to_pandas()["method"])[:3] == ["ce", "tce", "control"]
    assert "not calibrated" in found._repr_html_()
    assert len(found.plot().axes) == 2
    assert found.report(tmp_path / "page").read_text("utf-8").count("<details>") >= 2


def narrow() -> None:
    os.umask(0o027)


def test_pipe_gets_a_timed_line_per_generation_and_files_the_mode_of_the_umask(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "gmm")
    finished = collapsebench(*with_methods(task, "ce"), "--seeds", "0", cwd=tmp_path, before=narrow)
    lines = [line for line in finished.err.splitlines() if "generation" in line]
    assert re.fullmatch(
        r"\d+:\d\d ce seed 0: generation 0/3 complete, fidelity [01]\.\d\d, about \d+:\d\d left", lines[0]
    )
    assert re.fullmatch(r"\d+:\d\d ce seed 0: generation 3/3 complete, fidelity [01]\.\d\d", lines[-1])
    files = list((tmp_path / "runs").rglob("gen-*/*"))
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}
    losses = json.loads((tmp_path / "runs" / "tiny-gmm@1" / "ce" / "seed-0" / "gen-1" / "training.json").read_text())
    assert len(losses["loss"]) == 20, "one value of every update"
    again = collapsebench(*with_methods(task, "ce"), "--seeds", "0", "--quiet", "--json", cwd=tmp_path)
    assert again.err == ""
    assert json.loads(again.out)["table"][0]["method"] == "ce"
    assert json.loads(collapsebench("score", "runs", "--json", cwd=tmp_path).out)[0]["task"] == "tiny-gmm@1"


def test_list_for_programs_says_what_is_ranked_and_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLAPSEBENCH_CACHE", str(tmp_path))
    task = load_task("markov-micro")
    cost = Cost(training=7_200_000_000_000, sampling=0, evaluation=0)
    write_measured(Measured().with_rates("cpu", {"markov": Rate.given(0.001)}, {task.sha256: cost}))
    listed = python("-m", "collapsebench", "list", "tasks", "--json", cwd=tmp_path)
    tasks = {row["task"]: row for row in json.loads(listed.stdout)["tasks"]}
    assert len(tasks) == len(registered_tasks())
    assert tasks[task.id]["hours_per_cell"] == pytest.approx(2.0)
    assert tasks["gmm-micro@1"]["status"] == "retired"
    assert tasks["text-bytes-micro@1"]["ranked"]
    assert tasks["diffusion-cifar10@1"]["status"] == "not calibrated"
    assert tasks["diffusion-cifar10@1"]["hours_per_cell"] is None
    shown = python("-m", "collapsebench", "list", cwd=tmp_path).stdout
    assert re.search(rf"{task.id} .* 2 h ", shown)


@pytest.fixture
def not_measured() -> Iterator[None]:
    """Before and after the test nothing has been measured in the cache of the tests."""
    rates_file().unlink(missing_ok=True)
    yield
    rates_file().unlink(missing_ok=True)


@pytest.mark.usefixtures("not_measured")
def test_doctor_measures_a_rate_that_estimate_uses(raw_task: Path, tmp_path: Path) -> None:
    assert "`collapsebench doctor --measure` measures yours" in collapsebench("estimate", raw_task, cwd=tmp_path).out
    finished = collapsebench("doctor", raw_task, "--measure", cwd=tmp_path)
    assert finished.code == 0, finished.err
    rate, hours = read_measured().rate("gmm"), read_measured().hours(load_task(raw_task))
    assert rate is not None
    assert hours is not None
    assert rate.measured_on == "tiny-gmm@1"
    content = json.loads(collapsebench("estimate", raw_task, "--json", cwd=tmp_path).out)
    assert content["tflops"]["training"] == rate.training
    assert content["hours"] == pytest.approx(hours)
    shown = collapsebench("run", raw_task, "--method", "ce", "--dry-run", cwd=tmp_path).out
    assert f"about {duration_text(hours)} of computing (as measured" in shown


@pytest.mark.usefixtures("not_measured")
def test_dry_run_tells_what_is_there_and_runs_nothing(compared: tuple[Path, Finished], raw_task: Path) -> None:
    cwd, _ = compared
    before = sorted(cwd.rglob("*"))
    more = collapsebench(*with_methods(raw_task, "ce,focal"), "--seeds", "0", "--dry-run", cwd=cwd)
    assert more.code == 0, more.err
    assert "ce    seed 0: all 4 generations are there" in more.out
    assert "focal seed 0: 4 generation(s) to run, 0 there" in more.out
    assert re.search(r"8 generations, 4 there, 4 to run\nabout .* of computing \(as fast as the generations", more.out)
    content = json.loads(
        collapsebench(*with_methods(raw_task, "ce,focal"), "--seeds", "0", "--dry-run", "--json", cwd=cwd).out
    )
    assert content["cells"] == [["ce", 0, 4, 0], ["focal", 0, 0, 4]]
    assert content["hours"] > 0
    unknown = collapsebench("run", raw_task, "--method", "ce", "--out", "other", "--dry-run", cwd=cwd)
    assert "how long that takes is not known" in unknown.out
    assert sorted(cwd.rglob("*")) == before


def test_cite_prints_bibtex_of_task_method_and_their_papers(tmp_path: Path) -> None:
    focal = collapsebench("cite", "focal", cwd=tmp_path).out
    assert "eprint = {1708.02002}" in focal
    assert "eprint = {2509.08972}" in focal
    task = collapsebench("cite", "vae-mnist", cwd=tmp_path).out
    assert task.count("@misc{") == 3
    assert load_task("vae-mnist").sha256[:16] in task
    title = next(line for line in (ROOT / "CITATION.cff").read_text("utf-8").splitlines() if line.startswith("title:"))
    assert title.split('"')[1] in focal, "as CITATION.cff has it"
    wrong = collapsebench("cite", "focall", cwd=tmp_path)
    assert wrong.code == 2
    assert "did you mean focal?" in wrong.err


@pytest.mark.parametrize(
    "file", sorted((ROOT / "baselines").glob("*/*.bib")) + sorted((ROOT / "tasks").glob("*/*.bib"))
)
def test_papers_that_are_cited_are_those_of_the_card(file: Path) -> None:
    card, papers = (file.parent / "card.md").read_text("utf-8"), file.read_text("utf-8")
    assert papers.count("{") == papers.count("}")
    for number in re.findall(r"eprint = \{(.*)\}", papers):
        assert number in card


def test_short_help_is_help(tmp_path: Path) -> None:
    assert collapsebench("compare", "-h", cwd=tmp_path).out == collapsebench("compare", "--help", cwd=tmp_path).out


def test_shell_completes_the_names_of_tasks(tmp_path: Path) -> None:
    completed = python(
        *("-c", "import sys; from collapsebench.cli.main import main; sys.argv = ['collapsebench']; main()"),
        cwd=tmp_path,
        _COLLAPSEBENCH_COMPLETE="complete_bash",
        COMP_WORDS="collapsebench show mark",
        COMP_CWORD="2",
    )
    assert completed.stdout.split() == ["markov-micro"]

"""The command line as a user meets it: what it prints, writes and returns; wrong usage; Ctrl-C; no network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from command import Finished, collapsebench, python, with_methods
from tiny_task import results, write_tiny_task

from collapsebench.cli.main import split_methods
from collapsebench.methods import registered_methods
from collapsebench.running.artifacts import MARKER
from collapsebench.task import registered_tasks

LOSS = """
from collapsebench import Elements, Loss


class Sharp(Loss):
    beta: float = 1.0

    def elementwise(self, e: Elements):
        return -e.log_p * self.beta
"""

FILES = ("comparison.csv", "comparison.json", "curves.png", "forest.png", "report.html")
HEAVY = {"torch", "transformers", "datasets", "numpy", "pandas", "scipy", "matplotlib", "PIL", "huggingface_hub"}
METHODS = ["ce", "tce", "Sharp:beta=0.5"]


# Starting


QUICK = [
    *(["list"], ["list", "methods"], ["show", next(iter(registered_tasks()))], ["--version"], ["--help"]),
    *(["compare", "--help"], ["submit", "--help"], ["verify", "--help"]),
]


@pytest.mark.parametrize("arguments", QUICK, ids=" ".join)
def test_command_answers_at_once_as_it_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    script = (
        "import sys; sys.argv = ['collapsebench', *sys.argv[1:]]\n"
        "from collapsebench.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: print('exit', stop.code or 0)\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    result = python("-c", script, *arguments, cwd=tmp_path)  # benchmarks/startup.py says what that gives
    assert result.stdout.splitlines()[-2:] == ["exit 0", "[]"], result.stderr


def test_list_names_every_task_and_method(tmp_path: Path) -> None:
    listed = collapsebench("list", cwd=tmp_path).out
    for name in [*registered_tasks(), *registered_methods(), "control"]:
        assert re.search(rf"^  {name}[@ ]", listed, re.MULTILINE)


def test_show_prints_the_card_and_the_file(tiny: Path, tmp_path: Path) -> None:
    shown = collapsebench("show", tiny, cwd=tmp_path).out
    assert tiny.read_text() in shown
    assert "digest" in shown


# Comparing


@pytest.fixture(scope="module")
def compared(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """A directory, empty before a loss from elsewhere was compared in it with ce and tce; what the command printed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "my_loss.py").write_text(LOSS)
    cwd = tmp_path_factory.mktemp("empty")
    methods = f"ce,tce,{elsewhere / 'my_loss.py'}:Sharp:beta=0.5"
    return cwd, collapsebench(*with_methods(tiny, methods), cwd=cwd)


def test_loss_from_outside_is_compared_with_its_parameters_next_to_the_baselines(compared) -> None:
    _, finished = compared
    assert finished.code == 0, finished.err
    for method in METHODS:
        assert re.search(rf"^.*{method} .*\[.*\]", finished.out, re.MULTILINE), finished.out
    assert finished.err.count("generation 3/3 complete") == 6
    assert "error" not in finished.err


def test_comparison_writes_its_files(compared) -> None:
    cwd, finished = compared
    folder = cwd / "runs" / "tiny@1"
    for name in FILES:
        assert (folder / name).stat().st_size > 100
        assert name in finished.out
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(folder / "comparison.csv")
    assert sorted(table["method"]) == sorted(METHODS)
    assert (table["seeds"] == 2).all()
    content = json.loads((folder / "comparison.json").read_text())
    assert sorted(row["method"] for row in content["table"]) == sorted(METHODS)
    assert content["task"] == "tiny@1"
    assert len(content["cells"]) == 6
    for cell in content["cells"]:
        assert cell["seconds"]["train"] > 0
    assert list(cwd.iterdir()) == [cwd / "runs"]


def test_comparison_says_what_each_loss_masks(compared) -> None:
    cwd, finished = compared
    folder = cwd / "runs" / "tiny@1"
    table = pd.read_csv(folder / "comparison.csv").set_index("method")["masked_gradient"]
    content = json.loads((folder / "comparison.json").read_text())
    mine = [row for row in content["engagement"] if row["method"] == "tce" and row["metric"] == "masked_gradient"]
    assert len(mine) == 2 * 4
    assert table["tce"] == pytest.approx(sum(row["value"] for row in mine) / len(mine), abs=1e-9)
    assert table["ce"] == 0
    assert "masks only" in finished.out, "of cross entropy's gradient; this model is sure of next to nothing"
    page = (folder / "report.html").read_text("utf-8")
    assert "How much each loss leaves out" in page
    assert "Share of elements with p &gt; 0.9" in page


def test_comparison_copes_with_runs_from_before_engagement_was_measured(compared, tmp_path: Path) -> None:
    cwd, _ = compared
    shutil.copytree(cwd / "runs", tmp_path / "runs")
    for folder in (tmp_path / "runs" / "tiny@1").glob("*/seed-*"):
        for g in range(4):
            file, marker = folder / f"gen-{g}" / "metrics.json", folder / f"gen-{g}" / "complete.json"
            content, about = json.loads(file.read_text()), json.loads(marker.read_text())
            del content["engagement"]
            file.write_text(json.dumps(content))
            about["files"]["metrics.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
            if g:
                parent = folder / f"gen-{g - 1}" / "complete.json"
                about["parent"] = hashlib.sha256(parent.read_bytes()).hexdigest()
            marker.write_text(json.dumps(about))
    finished = collapsebench("report", "runs", cwd=tmp_path)
    assert finished.code == 0, finished.err
    page = (tmp_path / "runs" / "tiny@1" / "report.html").read_text("utf-8")
    assert "tce" in page
    assert "How much each loss leaves out" not in page
    assert "<th>masks</th>" not in page


class Addresses(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "data", "action"}]


def test_report_is_self_contained(compared) -> None:
    cwd, _ = compared
    html = (cwd / "runs" / "tiny@1" / "report.html").read_text("utf-8")
    page = Addresses()
    page.feed(html)
    assert "svg" in page.tags
    assert all(address.startswith("data:") for address in page.found)
    assert not {"script", "iframe", "link"} & page.tags
    assert "@import" not in html
    assert "url(" not in html
    for method in METHODS:
        assert method in html


def test_report_escapes_what_models_and_users_wrote(compared, tmp_path: Path) -> None:
    """Patches a sample and a method's name; the checksums are made to fit."""
    import hashlib

    cwd, _ = compared
    shutil.copytree(cwd / "runs", tmp_path / "runs")
    run = tmp_path / "runs" / "tiny@1" / "ce" / "seed-0"
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    shutil.rmtree(run / "gen-1")  # its parent changes
    samples = run / "gen-0" / "samples.json"
    samples.write_text(json.dumps([{"prompt": attack, "text": attack}]))
    marker = json.loads((run / "gen-0" / MARKER).read_text())
    marker["files"]["samples.json"] = hashlib.sha256(samples.read_bytes()).hexdigest()
    (run / "gen-0" / MARKER).write_text(json.dumps(marker))
    (tmp_path / "task").mkdir()
    for cell in (tmp_path / "runs").glob("*/*/seed-*"):
        for g in (1, 2, 3):
            shutil.rmtree(cell / f"gen-{g}", ignore_errors=True)
    about = json.loads((run / "run.json").read_text())
    about["method"]["name"] = f"ce{attack}"
    about["description"] = attack
    about["method"]["parameters"] = {"gamma": attack}
    (run / "run.json").write_text(json.dumps(about))
    finished = collapsebench("report", "runs", cwd=tmp_path)
    assert finished.code == 0, finished.err
    html = (tmp_path / "runs" / "tiny@1" / "report.html").read_text("utf-8")
    page = Addresses()
    page.feed(html)
    assert "script" not in page.tags
    assert "x" not in page.found
    assert "img" not in page.tags
    assert html.count("&lt;script&gt;alert(1)") >= 7, "sample, prompt, card and its parameters, table, takeaway, figure"


def tables(text: str) -> list[str]:
    """The lines of the printed table and its notes."""
    return [line for line in text.splitlines() if not line.startswith("Wrote ")]


def test_score_prints_the_same_table_from_the_files(compared) -> None:
    cwd, finished = compared
    scored = collapsebench("score", "runs", cwd=cwd)
    assert scored.code == 0, scored.err
    assert tables(scored.out) == tables(finished.out)


def test_report_writes_the_same_files_again(compared) -> None:
    cwd, finished = compared
    folder = cwd / "runs" / "tiny@1"
    before = {name: undated(folder / name) for name in FILES}
    for name in FILES:
        (folder / name).unlink()
    reported = collapsebench("report", "runs", cwd=cwd)
    assert tables(reported.out) == tables(finished.out)
    assert {name: undated(folder / name) for name in FILES} == before


def undated(file: Path) -> bytes:
    """The bytes of a file, without the minute that a report says it was written in."""
    return re.sub(rb"Written [0-9-]+ [0-9:]+ UTC", b"", file.read_bytes())


def test_same_comparison_again_runs_nothing_and_changes_nothing(compared, tiny: Path) -> None:
    cwd, finished = compared
    runs = sorted((cwd / "runs").glob("*/*/seed-*"))
    before = [results(run) for run in runs]
    loss = next(cwd.parent.glob("elsewhere*/my_loss.py")).resolve()
    again = collapsebench(*with_methods(tiny, f"ce,tce,{loss}:Sharp:beta=0.5"), cwd=cwd)
    assert again.err.count("reused") == 24
    assert "complete" not in again.err
    assert tables(again.out) == tables(finished.out)
    assert [results(run) for run in runs] == before


def test_run_prints_metrics_and_where_its_artefacts_are(tiny: Path, tmp_path: Path) -> None:
    finished = collapsebench(
        "run", tiny, "--method", "tce:gamma=0.8", "--seed", "5", "--out", "o", "--generations", "1", "--device", "cpu",
        cwd=tmp_path,
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert "generation 0: perplexity" in finished.out
    assert "Artefacts: o/tiny@1/tce-gamma=0.8/seed-5" in finished.out
    assert (tmp_path / "o/tiny@1/tce-gamma=0.8/seed-5/gen-1/metrics.json").is_file()


def test_two_versions_of_one_loss_are_kept_apart(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "my_loss.py"
    ids = []
    for source in (LOSS, LOSS.replace("-e.log_p *", "-0.1 * e.log_p *")):
        file.write_text(source)
        finished = collapsebench(
            *with_methods(tiny, "ce,my_loss.py:Sharp", "runs", "--seeds", "0", "--generations", "1"), cwd=tmp_path
        )
        assert finished.code == 0, finished.err
        assert re.search(r"\bSharp\b", finished.out)
        ids = sorted(path.name for path in (tmp_path / "runs" / "tiny@1").glob("Sharp-*"))
    assert len(ids) == 2
    first, second = (tmp_path / "runs" / "tiny@1" / name / "seed-0" for name in ids)
    assert results(first)["gen-0/metrics.json"] != results(second)["gen-0/metrics.json"]
    scored = collapsebench("score", "runs", cwd=tmp_path).out
    assert all(name in scored for name in ids)


def test_uncalibrated_task_can_still_be_run(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path, **{"scored.perplexity": {}})
    finished = collapsebench("run", task, "--method", "ce", "--generations", "0", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 0, finished.err


def test_calibrated_task_is_ready_to_compare(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path, scored={"perplexity": {}, "next_token_accuracy": {}})
    finished = collapsebench("calibrate", task, "--write", "--force", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "references are CE's generation 0" in finished.out
    assert (tmp_path / "splits.json").is_file()
    compared = collapsebench(*with_methods(task, "ce", "runs"), cwd=tmp_path)
    assert compared.code == 0, compared.err
    assert "reused" in compared.err


def test_doctor_checks_a_task(tiny: Path, tmp_path: Path) -> None:
    finished = collapsebench("doctor", tiny, cwd=tmp_path)
    assert finished.code == 0, finished.out + finished.err
    assert "data prepared" in finished.out


def test_progress_in_a_terminal_ends_without_an_error(tiny: Path, tmp_path: Path) -> None:
    finished = collapsebench(
        *with_methods(tiny, "ce,focal", "runs", "--seeds", "0", "--generations", "1"), cwd=tmp_path, before=terminal
    )
    assert finished.code == 0, finished.err
    assert "generation" in finished.err


def terminal() -> None:
    """Make rich believe in a terminal."""
    os.environ["FORCE_COLOR"] = "1"
    os.environ["TTY_COMPATIBLE"] = "1"


# Wrong usage

WRONG: dict[str, tuple[list[str], str]] = {
    "unknown task": (["compare", "no-such-task"], "unknown task 'no-such-task'. Registered: "),
    "missing task file": (["compare", "absent/task.yaml"], "absent/task.yaml: no such task file"),
    "broken task file": (["show", "broken.yaml"], "broken.yaml has "),
    "unknown method": (["compare", "TINY", "--methods", "ce,tcee"], "unknown method 'tcee'"),
    "missing loss file": (["compare", "TINY", "--methods", "absent.py:A"], "absent.py: no such file"),
    "loss file that does not import": (["compare", "TINY", "--methods", "broken.py:A"], "broken.py does not import"),
    "class that is no loss": (["run", "TINY", "--method", "other.py:Other"], "other.py:Other is not a Loss"),
    "loss of the wrong shape": (["run", "TINY", "--method", "other.py:Wrong"], "Wrong.elementwise returned"),
    "loss that gives NaN": (["run", "TINY", "--method", "other.py:NotANumber"], "gives NaN or infinity"),
    "unknown parameter": (["compare", "TINY", "--methods", "tce:gama=0.5"], "unknown parameter 'gama'"),
    "parameter of the wrong type": (["compare", "TINY", "--methods", "tce:gamma=high"], "gamma='high'"),
    "parameter out of range": (["compare", "TINY", "--methods", "tce:gamma=3"], "choose 0 < gamma ≤ 1"),
    "run into a file": (["run", "TINY", "--method", "ce", "--out", "other.py"], "--out other.py is a file; give a dir"),
    "comparison into a file": (["compare", "TINY", "--out", "other.py/runs"], "other.py/runs lies below other.py, whi"),
    "calibration into a file": (["calibrate", "TINY", "--out", "other.py"], "--out other.py is a file"),
    "submission into a file": (["submit", "x", "--authors", "A", "--out", "other.py"], "--out other.py is a file"),
    "verification of a folder": (["verify", "empty"], "empty: is a folder; give one of the submissions in it"),
    "verification of nothing": (["verify", "absent.json"], "absent.json: no such file; give a submission"),
    "board of an empty folder": (["leaderboard", "--submissions", "empty"], "--submissions empty: no submission in it"),
    "board of a file": (
        ["leaderboard", "--submissions", "other.py"],
        "--submissions other.py: is a file; give the fol",
    ),
    "board of no folder": (["leaderboard", "--submissions", ""], "--submissions '' names no folder"),
    "power of an empty folder": (
        ["power", "gmm-micro", "--submissions", "empty"],
        "--submissions empty: no submission",
    ),
    "scores of a file": (["score", "other.py"], "other.py is a file; give the --out directory of"),
    "report on a file": (["report", "other.py"], "other.py is a file; give the --out directory of"),
    "table into no folder": (["leaderboard", "--csv", "absent/a.csv"], "--csv absent/a.csv cannot be written"),
    "table into a folder": (["leaderboard", "--csv", "."], "--csv . is a folder; give a file"),
    "method given twice": (["compare", "TINY", "--methods", "ce,ce"], "methods given twice: ce"),
    "no methods": (["compare", "TINY", "--methods", ","], "no methods given"),
    "seeds that are no numbers": (["compare", "TINY", "--seeds", "a,b"], "--seeds 'a,b' is not allowed"),
    "no seeds": (["compare", "TINY", "--seeds", ""], "--seeds '' is not allowed"),
    "negative seed": (["run", "TINY", "--method", "ce", "--seed", "-1"], "seeds [-1] are not allowed"),
    "seed given twice": (["compare", "TINY", "--seeds", "1,1"], "seeds [1, 1] are not allowed"),
    "device that is not here": (["compare", "TINY", "--device", "cuda:77"], "device 'cuda:77' is not available"),
    "too many generations": (["compare", "TINY", "--generations", "4"], "tiny@1 has generations 0 to 3"),
    "negative generations": (["compare", "TINY", "--generations", "-1"], "tiny@1 has generations 0 to 3"),
    "score without runs": (["score", "."], "no runs below"),
    "report of an absent directory": (["report", "absent"], "no runs below absent"),
    "doctor of an absent task": (["doctor", "absent"], ""),
}

OTHER = """
from collapsebench import Loss

class Other:
    pass

class Wrong(Loss):
    def elementwise(self, e):
        return e.log_p.mean()

class NotANumber(Loss):
    def elementwise(self, e):
        return -e.log_p * float("nan")
"""


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with everything that can be wrong."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "empty").mkdir()
    (folder / "broken.yaml").write_text("name: x")
    (folder / "broken.py").write_text("import no_such_module_here")
    (folder / "other.py").write_text(OTHER)
    return folder


@pytest.mark.parametrize("mistake", [name for name in WRONG if name != "doctor of an absent task"])
def test_mistake_is_one_message_and_exit_code_2(tiny: Path, mistakes: Path, mistake: str) -> None:
    arguments, told = WRONG[mistake]
    finished = collapsebench(*(str(tiny) if a == "TINY" else a for a in arguments), cwd=mistakes)
    assert finished.code == 2, finished.err
    assert told in finished.err
    assert finished.err.count("error:") == 1
    assert "Traceback" not in finished.err
    assert not (mistakes / "runs").exists()


LATE = """
from collapsebench import Loss

class Late(Loss):
    def elementwise(self, e):
        if e.generation == 1:
            e.log_p[:, 10**6]
        return -e.log_p
"""


def test_exception_in_a_loss_shows_its_line_and_debug_the_traceback(tmp_path: Path) -> None:
    task = write_tiny_task(tmp_path / "task", "gmm")
    (tmp_path / "late.py").write_text(LATE)
    arguments = ["run", task, "--method", "late.py:Late", "--device", "cpu"]
    short = collapsebench(*arguments, cwd=tmp_path)
    assert short.code == 2
    assert "error: Late.elementwise failed in generation 1, update 0: IndexError: " in short.err
    assert f"({tmp_path / 'late.py'}:7)" in short.err
    assert "Traceback" not in short.err
    for place in (0, len(arguments)):
        long = collapsebench(*arguments[:place], "--debug", *arguments[place:], cwd=tmp_path)
        assert long.code == 2
        assert "Traceback (most recent call last)" in long.err
        assert "e.log_p[:, 10**6]" in long.err


def test_doctor_of_a_task_that_cannot_run_fails(mistakes: Path) -> None:
    finished = collapsebench("doctor", "absent", cwd=mistakes)
    assert finished.code == 1
    assert "FAIL  unknown task 'absent'" in finished.out


@pytest.mark.parametrize(
    "arguments", [["compare"], ["run", "x"], ["frobnicate"], ["compare", "x", "--engine", "cloud"]]
)
def test_wrong_syntax_is_exit_code_2(tmp_path: Path, arguments: list[str]) -> None:
    finished = collapsebench(*arguments, cwd=tmp_path)
    assert finished.code == 2
    assert "Traceback" not in finished.err


def test_loss_that_breaks_later_is_exit_code_2_and_keeps_what_is_finished(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        LOSS.replace("* self.beta", "* self.beta if e.generation == 0 else e.log_p.sum()")
    )
    finished = collapsebench("run", tiny, "--method", "late.py:Sharp", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 2
    assert finished.err.count("error:") == 1
    assert "Sharp.elementwise returned" in finished.err
    assert "generation 0/3 complete" in finished.err


def test_diverged_run_is_reported_and_no_failure(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(LOSS.replace("* self.beta", "* (1.0 if e.generation == 0 else float('nan'))"))
    finished = collapsebench("run", tiny, "--method", "late.py:Sharp", "--device", "cpu", cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "diverged in generation 1" in finished.out
    compared = collapsebench(*with_methods(tiny, "ce,late.py:Sharp", "runs", "--seeds", "0"), cwd=tmp_path)
    assert compared.code == 0, compared.err
    assert "Sharp seed 0 diverged in generation 1" in compared.out


def test_runs_of_another_task_with_the_same_name_are_refused(tiny: Path, tmp_path: Path) -> None:
    other = write_tiny_task(tmp_path / "other", **{"policy.size": 16})
    assert collapsebench("run", tiny, "--method", "ce", "--generations", "0", cwd=tmp_path).code == 0
    refused = collapsebench("run", other, "--method", "ce", "--generations", "0", cwd=tmp_path)
    assert refused.code == 2
    assert "holds another run: task differ" in refused.err


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("ce,tce", ["ce", "tce"]),
        ("tce:gamma=0.8,reduction=kept,ce", ["tce:gamma=0.8,reduction=kept", "ce"]),
        ("a/b.py:My:x=1,y=2,focal:gamma=3,ce", ["a/b.py:My:x=1,y=2", "focal:gamma=3", "ce"]),
        (" ce , tce ", ["ce", "tce"]),
        ("ce,,tce,", ["ce", "tce"]),
        (",", []),
    ],
)
def test_comma_before_a_parameter_joins_it_to_its_method(text: str, methods: list[str]) -> None:
    assert split_methods(text) == methods


# No network


def cut_the_network() -> None:
    """Any attempt to reach another machine fails the command."""

    def refused(*arguments: object, **_: object) -> None:
        raise AssertionError(f"the network was used: {arguments}")

    os.environ.pop("HF_HUB_OFFLINE", None)
    socket.socket.connect = refused  # type: ignore[method-assign]
    socket.socket.connect_ex = refused  # type: ignore[method-assign]
    socket.getaddrinfo = refused


def test_comparison_needs_no_network(tiny: Path, tmp_path: Path) -> None:
    arguments = with_methods(tiny, "ce,tce", "runs", "--engine", "inline", "--seeds", "0", "--generations", "1")
    finished = collapsebench(*arguments, cwd=tmp_path, before=cut_the_network)
    assert finished.code == 0, finished.err


@pytest.mark.parametrize("too_long", [("run", "markov-micro", "--method", "ce", "--out"), ("leaderboard", "--csv")])
def test_what_the_disk_refuses_is_one_line(too_long: tuple[str, ...], tmp_path: Path) -> None:
    finished = collapsebench(*too_long, f"{'x' * 300}/y", cwd=tmp_path)
    assert finished.code == 2
    assert "File name too long" in finished.err
    assert "Traceback" not in finished.err

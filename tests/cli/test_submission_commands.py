"""The way of a submission as its author and a stranger walk it: compare, submit, validate, verify."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Finished, collapsebench, with_methods
from tiny_task import write_tiny_task

from collapsebench.publishing import validation
from collapsebench.publishing.entries import read_bounded
from collapsebench.publishing.submission import Submission, canonical_bytes, submission_path
from collapsebench.publishing.validation import known_tasks, submission_files, validate_files
from collapsebench.task import load_task

LOSS = '''
from pathlib import Path

from collapsebench import Elements, Loss

Path("imported").touch()


class MyLoss(Loss):
    """Cross entropy with the weight of what is unlikely raised: p to the power of minus beta."""

    beta: float = 0.1

    def elementwise(self, e: Elements):
        return -e.log_p * (-self.beta * e.log_p.detach()).exp()
'''
AUTHORS = ("--authors", "A. Author; B. Author")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a calibrated task, a loss, and its finished comparison; not to be changed."""
    folder = tmp_path_factory.mktemp("compared")
    task = write_tiny_task(folder, "gmm")
    finished = collapsebench("calibrate", task, "--write", "--force", cwd=folder)
    assert finished.code == 0, finished.err
    (folder / "calibration.json").unlink()  # it breaks rules, and the tables here are to have ranks
    (folder / "my_loss.py").write_text(LOSS)
    finished = collapsebench(*with_methods(task, "ce,tce,my_loss.py:MyLoss:beta=0.2"), cwd=folder)
    assert finished.code == 0, finished.err
    (folder / "imported").unlink()
    return folder


@pytest.fixture
def workplace(compared: Path, tmp_path: Path) -> Path:
    """A copy of that folder to work in."""
    return Path(shutil.copytree(compared, tmp_path / "work"))


def submit(folder: Path, *more: object, method: str = "MyLoss:beta=0.2") -> Finished:
    return collapsebench("submit", "runs", "--method", method, *AUTHORS, *more, cwd=folder)


@pytest.fixture
def submitted(workplace: Path) -> Path:
    """The file of a submission, in a folder where its loss and its task are."""
    finished = submit(workplace, "--url", "https://example.org/my-loss", "--yes")
    assert finished.code == 0, finished.err + finished.out
    (file,) = workplace.glob("submissions/tiny-gmm@1/*.json")
    return file


def edited(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Replace a submission by a changed one with the right digest."""
    content = json.loads(file.read_text())
    change(content)
    submission = Submission.model_validate_json(json.dumps(content))
    written = canonical_bytes(submission)
    file.unlink()
    changed = file.parent.parent / submission_path(submission, written)
    changed.write_bytes(written)
    return changed


def verify(file: Path, *more: object) -> Finished:
    folder = file.parents[2]
    return collapsebench("verify", file, "--task", folder / "task.yaml", *more, cwd=folder)


# From the comparison to the file


def test_honest_run_goes_all_the_way(submitted: Path) -> None:
    folder = submitted.parents[2]
    validated = collapsebench("validate", "submissions", "--task", "task.yaml", cwd=folder)
    assert (validated.code, validated.err) == (0, "")
    assert "ok" in validated.out
    assert "MyLoss:beta=0.2 on tiny-gmm@1, 2 seeds, generations 0 to 3" in validated.out
    verified = verify(submitted, "--trust-code", "--seed", 1, "--generations", 3, "--by", "C. Reader")
    assert verified.code == 0, verified.err
    assert "MATCHED: 20 values compared, all equal to the last bit" in verified.out
    (attestation,) = submitted.parent.glob("*.attestation-*.json")
    said = json.loads(attestation.read_text())
    assert (said["outcome"], said["by"], said["seed"], said["generations"]) == ("matched", "C. Reader", 1, 3)
    again = collapsebench("validate", "submissions", "--task", "task.yaml", cwd=folder)
    assert again.code == 0, again.out
    assert "matched, by C. Reader" in again.out


def test_file_holds_the_raw_metrics_of_the_runs(submitted: Path) -> None:
    content = json.loads(submitted.read_text())
    for result in content["results"]:
        for g in result["generations"]:
            run = f"runs/tiny-gmm@1/MyLoss-*-beta=0.2/seed-{result['seed']}/gen-{g['generation']}/metrics.json"
            (file,) = submitted.parents[2].glob(run)
            measured = json.loads(file.read_text())
            names = ("metrics", "engagement", "elements_trained", "elements_sampled")
            assert {name: g[name] for name in names} == {name: measured[name] for name in names}


def test_file_says_what_only_the_contestant_knows(submitted: Path) -> None:
    content = json.loads(submitted.read_text())
    assert content["authors"] == ["A. Author", "B. Author"]
    assert content["method"]["loss"] == "my_loss.py:MyLoss"
    assert content["method"]["parameters"]["beta"] == 0.2
    assert content["method"]["card"].startswith("Cross entropy with the weight of what is unlikely raised")
    assert content["method"]["url"] == "https://example.org/my-loss"
    assert content["samples"]["kind"] == "density"


def test_file_names_no_folder_of_this_machine(submitted: Path) -> None:
    text = submitted.read_text()
    assert str(submitted.parents[2]) not in text
    assert os.uname().nodename not in text


def test_what_will_be_published_is_shown_before_anything_is_written(workplace: Path) -> None:
    finished = submit(workplace)
    assert finished.code == 2
    assert "MyLoss:beta=0.2 on tiny-gmm@1, track loss, by A. Author, B. Author" in finished.out
    assert "mFI " in finished.out
    assert "nothing was written; add --yes" in finished.err
    assert not (workplace / "submissions").exists()


def test_same_runs_make_the_same_file(submitted: Path) -> None:
    before = submitted.read_bytes()
    finished = submit(submitted.parents[2], "--url", "https://example.org/my-loss", "--yes")
    assert finished.code == 0, finished.out
    assert [file.read_bytes() for file in submitted.parent.iterdir()] == [before]


@pytest.fixture
def retired(workplace: Path) -> Path:
    """A folder with runs of a task that has been retired since."""
    task = workplace / "task.yaml"
    task.write_text(task.read_text("utf-8") + "retired: It rewards a loss that learns nothing.\n", "utf-8")
    for file in workplace.glob("runs/*/*/*/run.json"):
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"task_file": str(task)}), "utf-8")
    return workplace


def test_retired_task_is_scored_without_ranks_and_verdicts(retired: Path) -> None:
    finished = collapsebench("report", "runs", cwd=retired)
    assert finished.code == 0, finished.err
    assert "tiny-gmm@1, retired, generations 0–3" in finished.out
    assert finished.out.count("It rewards a loss that learns nothing.") == 1
    assert not any(mark in finished.out for mark in "▲▼≈")
    folder = retired / "runs" / "tiny-gmm@1"
    rows = list(csv.DictReader((folder / "comparison.csv").open(encoding="utf-8")))
    assert {(row["rank_best"], row["verdict_ce"], row["retired"]) for row in rows} == {("", "", "True")}
    assert [row["method"] for row in rows] == ["MyLoss:beta=0.2", "ce", "tce", "control"]
    content = json.loads((folder / "comparison.json").read_text("utf-8"))
    assert content["retired"] == "It rewards a loss that learns nothing."
    html = (folder / "report.html").read_text("utf-8")
    assert "(retired)</h1>" in html
    assert "What was measured, not ranked" in html


def test_retired_task_takes_no_new_entries(retired: Path) -> None:
    finished = submit(retired, "--yes")
    assert finished.code == 2
    assert "tiny-gmm@1 is retired and takes no new entries" in finished.err
    assert "It rewards a loss that learns nothing." in finished.err
    assert not (retired / "submissions").exists()


def test_entry_of_a_retired_task_can_be_corrected(retired: Path) -> None:
    finished = submit(retired, "--yes", "--supersedes", "0123456789abcdef")
    assert finished.code == 0, finished.err


def test_missing_generations_are_listed_with_the_command_that_computes_them(workplace: Path) -> None:
    (run,) = workplace.glob("runs/tiny-gmm@1/MyLoss-*/seed-1")
    shutil.rmtree(run / "gen-2")
    finished = submit(workplace, "--yes")
    assert finished.code == 2
    assert "seed 1: generations 2 to 3" in finished.err
    assert "seed 0" not in finished.err.replace("seeds 0", "")
    assert not (workplace / "submissions").exists()
    command = finished.err.split("This computes them: ")[1].split()
    assert command[:2] == ["collapsebench", "compare"]
    computed = collapsebench(*command[1:], "--device", "cpu", cwd=workplace)
    assert computed.code == 0, computed.err
    assert submit(workplace, "--yes").code == 0


def test_missing_seed_is_listed(workplace: Path) -> None:
    (run,) = workplace.glob("runs/tiny-gmm@1/MyLoss-*/seed-0")
    shutil.rmtree(run)
    finished = submit(workplace, "--yes")
    assert finished.code == 2
    assert "seed 0: generations 0 to 3" in finished.err


def test_damaged_artefact_is_not_submitted(workplace: Path) -> None:
    (file,) = workplace.glob("runs/tiny-gmm@1/MyLoss-*/seed-1/gen-3/metrics.json")
    file.write_text(file.read_text().replace('"value": ', '"value": 1'))
    finished = submit(workplace, "--yes")
    assert finished.code == 2
    assert "seed 1: generations 3 to 3" in finished.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "--method", "control", *AUTHORS], "the control is not a contestant"),
        (["runs", "--method", "nothing", *AUTHORS], "no methods below runs fit; give one of"),
        (["empty", *AUTHORS], "no runs below empty"),
        (["runs", "--method", "ce", "--authors", " ; "], "authors"),
        (["runs", "--method", "ce", *AUTHORS, "--url", "javascript:alert(1)"], "method.url"),
        (["runs", "--method", "ce", *AUTHORS, "--licence", "my own, see file"], "licence"),
        (["runs", "--method", "ce", *AUTHORS, "--card", "nowhere.md"], "--card nowhere.md cannot be read"),
        (["runs", "--method", "ce", *AUTHORS, "--card", "word " * 401], "has 2,004 characters, and at most 2,000"),
        (["runs", "--method", "ce", *AUTHORS, "--supersedes", "12"], "supersedes"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(workplace: Path, arguments: list[str], message: str) -> None:
    finished = collapsebench("submit", *arguments, "--yes", cwd=workplace)
    assert finished.code == 2
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert not (workplace / "submissions").exists()


def test_only_own_method_needs_no_name(workplace: Path) -> None:
    finished = collapsebench("submit", "runs", *AUTHORS, "--yes", cwd=workplace)
    assert finished.code == 0, finished.err
    assert "MyLoss:beta=0.2 on tiny-gmm@1" in finished.out


def test_second_entry_of_a_method_must_say_what_it_replaces(submitted: Path) -> None:
    folder = submitted.parents[2]
    refused = submit(folder, "--card", "Another text.", "--yes")
    assert refused.code == 2
    digest = submitted.stem.split("-")[-1]
    assert f"set supersedes to {digest}" in refused.out
    accepted = submit(folder, "--card", "Another text.", "--supersedes", digest, "--yes")
    assert accepted.code == 0, accepted.out + accepted.err
    assert collapsebench("validate", "submissions", "--task", "task.yaml", cwd=folder).code == 0


# Validation


def test_validate_counts_and_names_all_problems_for_programs(submitted: Path) -> None:
    folder = submitted.parents[2]
    changed = edited(submitted, lambda content: content["results"].pop())
    finished = collapsebench("validate", "--json", changed, "--task", "task.yaml", cwd=folder)
    assert finished.code == 2
    said = json.loads(finished.out)
    assert said["valid"] is False
    codes = {problem["code"] for problem in said["files"][0]["problems"]}
    assert {"seeds-missing", "provenance"} <= codes


def _from_the_file_on_stdin() -> None:
    sys.stdin = Path("input").open(encoding="utf-8")  # noqa: SIM115  (the process ends with it)


def test_validate_reads_its_input(submitted: Path) -> None:
    folder = submitted.parents[2]
    shutil.copy(submitted, folder / "input")
    arguments = ("validate", "-", "--task", "task.yaml")
    assert collapsebench(*arguments, cwd=folder, before=_from_the_file_on_stdin).code == 0
    (folder / "input").write_bytes(submitted.read_bytes()[:-100])
    finished = collapsebench(*arguments, cwd=folder, before=_from_the_file_on_stdin)
    assert finished.code == 2
    assert "not-json" in finished.out


def test_validate_of_nothing_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in (("nowhere", "no such file or folder"), ("empty", "no submissions in empty")):
        finished = collapsebench("validate", path, cwd=tmp_path)
        assert finished.code == 2
        assert message in finished.err


# Verification


def test_curve_edited_by_one_per_cent_fails_verification(submitted: Path) -> None:
    def better(content: dict[str, Any]) -> None:
        for result in content["results"]:
            for g in result["generations"][1:]:
                g["metrics"]["kl_to_truth"]["value"] *= 0.99

    changed = edited(submitted, better)
    task = load_task(changed.parents[2] / "task.yaml")
    (verdict,) = validate_files([changed], {task.id: task})
    assert verdict.problems == []  # nothing in the file gives it away
    finished = verify(changed, "--trust-code", "--by", "C. Reader")
    assert finished.code == 1
    assert "DIFFERED" in finished.out
    assert "generation 1, kl_to_truth: submitted" in finished.out
    (attestation,) = changed.parent.glob("*.attestation-*.json")
    said = json.loads(attestation.read_text())
    assert said["outcome"] == "differed"
    assert said["alike"] is True
    assert said["largest"]["metric"] == "kl_to_truth"
    assert said["largest"]["relative"] == pytest.approx(0.01, rel=1e-6)


def test_difference_on_another_machine_is_said_to_prove_nothing(submitted: Path) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["provenance"][0]["processor"] = "Another one"
        content["results"][0]["generations"][1]["metrics"]["kl_to_truth"]["value"] *= 1.1

    finished = verify(edited(submitted, elsewhere), "--trust-code")
    assert finished.code == 1
    assert "such a difference proves nothing" in finished.out


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_not_scored_decides_only_where_equal_bytes_are_expected(submitted: Path, elsewhere: bool) -> None:
    def other(content: dict[str, Any]) -> None:
        if elsewhere:
            content["provenance"][0]["processor"] = "Another one"
        content["results"][0]["generations"][1]["metrics"]["sample_variance"]["value"] *= 1.1

    finished = verify(edited(submitted, other), "--trust-code")
    assert finished.code == (0 if elsewhere else 1), finished.err
    assert "generation 1, sample_variance: submitted" in finished.out
    assert ("not scored, so it does not decide here" in finished.out) == elsewhere


def test_without_trust_nothing_is_imported_or_run(submitted: Path) -> None:
    finished = verify(submitted)
    assert finished.code == 2
    assert "This imports and runs" in finished.out
    assert "my_loss.py:MyLoss" in finished.out
    assert "beta=0.2" in finished.out
    assert "--trust-code" in finished.err
    assert not (submitted.parents[2] / "imported").exists()
    assert not (submitted.parents[2] / "verify-runs").exists()


def test_another_source_is_refused_before_it_is_imported(submitted: Path) -> None:
    folder = submitted.parents[2]
    (folder / "my_loss.py").write_text(LOSS + "\n# changed\n")
    finished = verify(submitted, "--trust-code")
    assert finished.code == 2
    assert "is not the loss that was submitted" in finished.err
    assert not (folder / "imported").exists()


def test_missing_source_says_where_to_get_it(submitted: Path) -> None:
    folder = submitted.parents[2]
    (folder / "my_loss.py").rename(folder / "elsewhere.py")
    finished = verify(submitted, "--trust-code")
    assert finished.code == 2
    assert "Get it from https://example.org/my-loss" in finished.err
    finished = verify(submitted, "--trust-code", "--method", "elsewhere.py:MyLoss")
    assert finished.code == 0, finished.err
    assert not list(submitted.parent.glob("*.attestation-*"))  # nobody gave a name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", 7], "--seed 7 is not in the submission; it has [0, 1]"),
        (["--generations", 9], "generations 0 to 3"),
        (["--generations", -1], "generations 0 to 3"),
    ],
)
def test_impossible_verification_is_refused(submitted: Path, arguments: list[object], message: str) -> None:
    finished = verify(submitted, "--trust-code", *arguments)
    assert finished.code == 2
    assert message in finished.err


def test_invalid_submission_is_not_verified(submitted: Path) -> None:
    submitted.write_bytes(submitted.read_bytes().replace(b'"A. Author"', b'"Z. Author"'))
    finished = verify(submitted, "--trust-code")
    assert finished.code == 2
    assert "[digest]" in finished.out
    assert not (submitted.parents[2] / "imported").exists()


# Against what is published


def _published_here() -> None:
    folder = Path("submissions").absolute()
    validation.bundled = lambda name: folder


@pytest.fixture
def with_published(workplace: Path) -> Path:
    """A folder where ce and tce are published and their runs are gone."""
    for method in ("ce", "tce"):
        finished = submit(workplace, "--yes", method=method)
        assert finished.code == 0, finished.out + finished.err
    for method in ("ce", "tce", "control"):
        shutil.rmtree(workplace / "runs" / "tiny-gmm@1" / method)
    return workplace


def test_published_baselines_give_the_table_that_running_them_gives(compared: Path, with_published: Path) -> None:
    arguments = with_methods(Path("task.yaml"), "my_loss.py:MyLoss:beta=0.2", "runs", "--against", "published")
    finished = collapsebench(*arguments, cwd=with_published, before=_published_here)
    assert finished.code == 0, finished.err
    assert "ce (published)" in finished.out
    assert "Published results, not run here: ce (" in finished.out
    assert not (with_published / "runs" / "tiny-gmm@1" / "ce").exists()
    tables = []
    for folder in (compared, with_published):
        table = json.loads((folder / "runs/tiny-gmm@1/comparison.json").read_text())["table"]
        tables.append([row for row in table if row["method"] != "control"])
    assert tables[0] == tables[1]
    assert "ce (published)" in (with_published / "runs/tiny-gmm@1/report.html").read_text()


def test_against_published_needs_a_loss_and_published_baselines(with_published: Path) -> None:
    arguments = ("compare", "task.yaml", "--against", "published")
    finished = collapsebench(*arguments, cwd=with_published, before=_published_here)
    assert finished.code == 2
    assert "name your own loss with --methods" in finished.err
    finished = collapsebench(*arguments, cwd=with_published)
    assert finished.code == 2
    assert "no baseline of tiny-gmm@1 is published" in finished.err


def test_other_machine_of_a_published_result_is_noted(with_published: Path) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["provenance"][0]["processor"] = "Another one"
        content["provenance"][0]["packages"]["torch"] = "2.6.0"

    for file in list(with_published.glob("submissions/tiny-gmm@1/ce-*.json")):
        edited(file, elsewhere)
    arguments = with_methods(Path("task.yaml"), "my_loss.py:MyLoss", "runs", "--against", "published")
    finished = collapsebench(*arguments, "--seeds", 0, cwd=with_published, before=_published_here)
    assert finished.code == 0, finished.err
    assert "ce ran elsewhere: processor Another one there" in finished.out
    assert "torch 2.6.0 there" in finished.out
    assert "tce ran elsewhere" not in finished.out
    assert "Of the published seeds only those are used that were run here" in finished.out
    table = json.loads((with_published / "runs/tiny-gmm@1/comparison.json").read_text())["table"]
    assert {row["method"]: row["seeds"] for row in table} == {"MyLoss": 1, "ce": 1, "tce": 1}


def test_tracks_are_ranked_separately(workplace: Path) -> None:
    for file in workplace.glob("runs/tiny-gmm@1/MyLoss*/seed-*/run.json"):
        run = json.loads(file.read_text())
        run["method"]["track"] = "provenance"
        file.write_text(json.dumps(run))
    finished = collapsebench("report", "runs/tiny-gmm@1", cwd=workplace)
    assert finished.code == 0, finished.err
    assert "Methods of the tracks loss and provenance are ranked separately" in finished.out
    table = json.loads((workplace / "runs/tiny-gmm@1/comparison.json").read_text())["table"]
    ranks = {row["method"]: (row["rank_best"], row["rank_worst"]) for row in table}
    assert ranks["MyLoss:beta=0.2"] == (1, 1)
    assert all(worst <= 2 for _, worst in (ranks["ce"], ranks["tce"]))


def test_leaderboard_ranks_the_submissions_and_lists_broken_ones(with_published: Path) -> None:
    (with_published / "submissions/tiny-gmm@1/broken-0123456789abcdef.json").write_text("{")
    arguments = ("leaderboard", "--submissions", "submissions", "--task", "task.yaml", "--csv", "board.csv")
    finished = collapsebench(*arguments, cwd=with_published)
    assert finished.code == 0, finished.err
    assert "tiny-gmm@1, track loss" in finished.out
    assert "REFUSED  submissions/tiny-gmm@1/broken-0123456789abcdef.json" in finished.err
    rows = (with_published / "board.csv").read_text().splitlines()
    assert rows[0].startswith("task,tier,retired,track,rank_best,rank_worst,method,digest,date")
    assert len(rows) == 3


def test_power_says_what_seeds_can_find(tmp_path: Path) -> None:
    finished = collapsebench("power", "gmm-micro", cwd=tmp_path)
    assert finished.code == 0, finished.err
    lines = finished.out.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["3", "5", "10", "20"]
    differences = [float(line.split()[1]) for line in lines[2:6]]
    assert differences == sorted(differences, reverse=True)


def test_power_without_published_curves_says_what_is_missing(tmp_path: Path) -> None:
    finished = collapsebench("power", "vae-mnist", cwd=tmp_path)
    assert finished.code == 2
    assert "vae-mnist@2 has no published entries of CE and another method" in finished.err


def test_committed_submissions_are_valid() -> None:
    files = submission_files([validation.bundled("submissions")])
    wrong = {v.path.name: v.problems for v in validate_files(files, known_tasks()) if v.problems}
    assert wrong == {}
    assert all(len(read_bounded(file)) < 500_000 for file in files)

"""Files beside one another: names and folders, duplicates, copies and replacements, attestations, broken neighbours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from submission_files import (
    content_of,
    entry_of,
    problems_of,
    put,
    sha256,
    tiny_task,
    valid_submission,
    write,
    write_content,
)

from collapsebench.errors import UserError
from collapsebench.publishing.submission import (
    Attestation,
    Submission,
    attestation_path,
    canonical_bytes,
    sha256_of,
)
from collapsebench.publishing.validation import (
    Context,
    known_tasks,
    published_entries,
    submission_files,
    validate_content,
    validate_files,
)
from collapsebench.task import Task


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return tiny_task(tmp_path_factory.mktemp("task"), "gmm")


def codes(paths: list[Path], task: Task, *published: Submission) -> dict[str, list[str]]:
    """Codes of all problems by file name."""
    verdicts = validate_files(paths, {task.id: task}, [entry_of(s) for s in published])
    assert [verdict.path for verdict in verdicts] == paths
    assert all(str(problem).isprintable() for verdict in verdicts for problem in verdict.problems)
    return {verdict.path.name: [problem.code for problem in verdict.problems] for verdict in verdicts}


def changed(submission: Submission, path: str, value: Any) -> Submission:
    return Submission.model_validate_json(json.dumps(put(content_of(submission), path, value)))


# names


def test_a_changed_file_keeps_its_name_in_vain(task, tmp_path):
    path = write(valid_submission(task), tmp_path)
    path.write_bytes(path.read_bytes().replace(b"A. Author", b"B. Author"))
    assert codes([path], task) == {path.name: ["digest"]}


@pytest.mark.parametrize(
    "name", ["other.json", "MyLoss-0123456789abcdef.json", "{}.JSON", "x{}.json", "\u202ea\x1b\n.json"]
)
def test_a_file_has_the_name_of_its_content(task, name, tmp_path):
    path = write(valid_submission(task), tmp_path)
    (problem,) = problems_of(path.rename(path.with_name(name.format(path.stem))), task)
    assert (problem.code, problem.allowed) == ("digest", path.name)
    assert str(problem).isprintable()


@pytest.mark.parametrize(("folder", "code"), [("tiny-gmm@2", ["folder"]), ("a@1\u202e", ["folder"]), ("inbox", [])])
def test_a_file_does_not_lie_in_the_folder_of_another_task(task, folder, code, tmp_path):
    path = write(valid_submission(task), tmp_path / "right")
    (tmp_path / folder).mkdir()
    moved = path.rename(tmp_path / folder / path.name)
    assert codes([moved], task) == {path.name: code}


def test_content_without_a_name_is_validated_without_one(task):
    content = canonical_bytes(valid_submission(task))
    assert validate_content(content, None, Context({task.id: task})).problems == []
    (problem,) = validate_content(content + b"\n", None, Context({task.id: task})).problems
    assert problem.code == "not-canonical"


def test_a_method_can_be_named_after_attestations(task, tmp_path):
    submission = valid_submission(task, name="A")
    path = write(changed(submission, "method.name", "A.attestation-B"), tmp_path)
    assert validate_content(path.read_bytes(), path, Context({task.id: task})).problems == []
    assert codes([path], task) == {path.name: []}


# folders


def test_broken_files_among_good_ones_are_named_and_do_not_spoil_them(task, tmp_path):
    good = [write(valid_submission(task, name=name), tmp_path) for name in ("One", "Two")]
    broken = {
        "empty.json": b"", "null.json": b"null", "list.json": b"[]", "text.json": b'"x"', "cut.json": b'{"task":',
        "deep.json": b"[" * 10**6, "large.json": b" " * 3 * 10**6, "binary.json": bytes(range(256)), "nan.json": b"NaN",
        "twice.json": b'{"a":1,"a":1}', "keys.json": json.dumps({str(i): i for i in range(300)}).encode(),
        "values.json": b"[" + b"0," * 200_000 + b"0]", "\u202ea\x1b[2J.json": b"{}",
        "not-utf8-\udcff.json": b"{}",
    }  # fmt: skip
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "schema.json").write_text("not a submission")
    (tmp_path / "readme.txt").write_text("neither")
    files = submission_files([tmp_path])
    assert {file.name for file in files} == {path.name for path in good} | set(broken)
    found = codes(files, task)
    assert [found.pop(path.name) for path in good] == [[], []]
    assert all(found.values())
    expected = {"too-deep", "too-large", "not-utf8", "not-finite", "duplicate-key", "too-many-keys", "too-many-values"}
    assert {codes[0] for codes in found.values()} == expected | {"not-json", "schema"}


def test_only_valid_submissions_of_a_folder_are_published(task, tmp_path):
    good = write(valid_submission(task), tmp_path)
    (tmp_path / "cut.json").write_bytes(good.read_bytes()[:-9])
    write_content(put(content_of(valid_submission(task)), "results.0.generations.1.real_share", 0.5), tmp_path)
    assert [entry.path for entry in published_entries(tmp_path, {task.id: task})] == [good]
    assert published_entries(tmp_path / "nothing", {task.id: task}) == []


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        submission_files([tmp_path / "nothing.json"])


def test_only_calibrated_tasks_can_be_submitted_to(task, tmp_path):
    scored = {"kl_to_truth": {"reference": None, "floor": None}}
    other = tiny_task(tmp_path, "gmm", name="uncalibrated", scored=scored)
    known = known_tasks([task.path, other.path])
    assert task.id in known
    assert other.id not in known


# duplicates, copies, replacements


def test_another_method_on_the_same_task_is_welcome(task, tmp_path):
    path = write(valid_submission(task, name="Two"), tmp_path)
    assert codes([path], task, valid_submission(task, name="One")) == {path.name: []}


def test_the_published_file_itself_is_no_duplicate(task, tmp_path):
    submission = valid_submission(task)
    path = write(submission, tmp_path)
    assert codes([path], task, submission) == {path.name: []}


@pytest.mark.parametrize("path", ["method.name", "authors", "date", "method.card", "results.0.generations.1.seconds"])
def test_one_method_has_one_entry_per_task(task, path, tmp_path):
    value = {"method.name": "Other", "authors": ["Z"], "date": "2026-01-30", "method.card": "Z"}.get(path, 99.5)
    one = valid_submission(task)
    again = write(changed(one, path, value), tmp_path)
    assert codes([again], task, one) == {again.name: ["duplicate"]}
    assert codes([again, write(one, tmp_path)], task) == {
        again.name: ["duplicate"],
        write(one, tmp_path).name: ["duplicate"],
    }


def test_one_file_twice_is_a_duplicate(task, tmp_path):
    paths = [write(valid_submission(task), tmp_path / folder) for folder in ("a", "b")]
    found = [[p.code for p in verdict.problems] for verdict in validate_files(paths, {task.id: task})]
    assert found == [[], ["duplicate"]]


@pytest.mark.parametrize("seeds", [[0], [1], [0, 1]])
def test_raw_metrics_of_another_method_are_copied(task, seeds, tmp_path):
    original, copy = valid_submission(task, name="One"), content_of(valid_submission(task, name="Two"))
    for seed in seeds:
        copy["results"][seed]["generations"] = content_of(original)["results"][seed]["generations"]
        copy["results"][seed]["generations"][2]["seconds"] += 1
    path = write_content(copy, tmp_path)
    (problem,) = problems_of(path, task, entry_of(original))
    assert (problem.code, problem.path) == ("copied", "results")
    assert str(seeds) in problem.given


def test_a_replacement_names_what_it_replaces(task, tmp_path):
    old = valid_submission(task)
    new = changed(changed(old, "method.card", "Better told."), "supersedes", entry_of(old).digest)
    path = write(new, tmp_path)
    assert codes([path], task, old) == {path.name: []}
    assert codes([path, write(old, tmp_path)], task) == {path.name: [], write(old, tmp_path).name: []}


def test_a_replacement_can_be_replaced(task, tmp_path):
    first = valid_submission(task)
    second = changed(changed(first, "method.card", "Better told."), "supersedes", entry_of(first).digest)
    third = changed(changed(first, "method.card", "Better still."), "supersedes", entry_of(second).digest)
    paths = [write(one, tmp_path) for one in (first, second, third)]
    assert codes(paths, task) == {path.name: [] for path in paths}


def test_a_copy_of_what_is_replaced_is_refused_and_not_the_original(task, tmp_path):
    original = valid_submission(task, name="One")
    better = changed(valid_submission(task, name="One", seed_noise=0.02), "supersedes", entry_of(original).digest)
    copy = content_of(valid_submission(task, name="Two"))
    copy["authors"] = ["Z"]
    copy["results"] = content_of(original)["results"]
    paths = [write(original, tmp_path), write(better, tmp_path), write_content(copy, tmp_path)]
    assert codes(paths, task) == {paths[0].name: [], paths[1].name: [], paths[2].name: ["copied"]}


def test_a_baseline_is_replaced_by_that_baseline_only(task, tmp_path):
    baseline = changed(valid_submission(task), "method.name", "ce")
    path = write(valid_submission(task, name="Mine", seed_noise=0.02, supersedes=entry_of(baseline).digest), tmp_path)
    (problem,) = problems_of(path, task, entry_of(baseline))
    assert (problem.code, problem.given) == ("supersedes", "Mine for ce")


def test_a_replacement_of_what_is_not_there_is_refused(task, tmp_path):
    there = valid_submission(task, name="One")
    new = valid_submission(task, name="Two", supersedes="0" * 16)
    path = write(new, tmp_path)
    (problem,) = problems_of(path, task, entry_of(there))
    assert (problem.code, problem.path, problem.given) == ("supersedes", "supersedes", "0" * 16)


def test_a_stranger_does_not_replace_an_entry(task, tmp_path):
    theirs = valid_submission(task, name="Theirs")
    mine = changed(valid_submission(task, name="Mine"), "authors", ["Z"])
    path = write(changed(mine, "supersedes", entry_of(theirs).digest), tmp_path)
    (problem,) = problems_of(path, task, entry_of(theirs))
    assert (problem.code, problem.path) == ("supersedes", "supersedes")


def test_the_data_are_those_of_cross_entropy(task, tmp_path):
    ce = changed(valid_submission(task), "method.name", "ce")
    path = write(changed(valid_submission(task, name="Two"), "task.data_sha256", sha256("other data")), tmp_path)
    (problem,) = problems_of(path, task, entry_of(ce))
    assert (problem.code, problem.path) == ("data", "task.data_sha256")


def test_what_is_replaced_already_is_no_duplicate_and_the_replacement_is(task, tmp_path):
    old = valid_submission(task)
    new = changed(changed(old, "method.card", "Better told."), "supersedes", entry_of(old).digest)
    third = write(changed(old, "authors", ["Z"]), tmp_path)
    (problem,) = problems_of(third, task, entry_of(old), entry_of(new))
    assert problem.code == "duplicate"
    assert entry_of(new).digest in problem.allowed


# attestations


def attested(submission: Path, folder: Path | None = None, **changes: Any) -> Path:
    """An attestation of a submission's file, beside it or in another folder."""
    content = {
        "schema_version": 1, "submission_sha256": sha256_of(submission.read_bytes()), "seed": 0, "generations": 1,
        "outcome": "matched", "tolerance": 0.005, "compared": 10, "identical": 9, "by": "V. Verifier",
        "largest": {"metric": "kl_to_truth", "generation": 1, "submitted": 0.1, "measured": 0.1001, "relative": 0.001},
        "date": "2026-02-01", "machine": json.loads(submission.read_bytes())["provenance"][0],
        "alike": True,
    }  # fmt: skip
    written = canonical_bytes(Attestation.model_validate_json(json.dumps(content | changes)))
    path = (folder or submission.parent) / attestation_path(submission, written).name
    path.write_bytes(written)
    return path


def test_a_valid_attestation_passes_with_its_submission(task, tmp_path):
    path = write(valid_submission(task), tmp_path)
    attestation = attested(path)
    verdicts = validate_files(submission_files([tmp_path]), {task.id: task})
    assert [verdict.problems for verdict in verdicts] == [[], []]
    assert [verdict.attestation is not None for verdict in verdicts] == [
        verdict.path == attestation for verdict in verdicts
    ]


@pytest.mark.parametrize(("place", "value"), [("processor", "Another"), ("packages.torch", "2.7.0"), ("threads", 2)])
def test_an_attestation_does_not_call_other_machines_alike(task, place, value, tmp_path):
    path = write(valid_submission(task), tmp_path)
    other = put(json.loads(path.read_bytes())["provenance"][0], place, value)
    honest, wrong = (attested(path, machine=other, alike=alike) for alike in (False, True))
    assert codes([honest, wrong], task) == {honest.name: [], wrong.name: ["attestation"]}


def test_a_tampered_attestation_is_refused(task, tmp_path):
    attestation = attested(write(valid_submission(task), tmp_path), outcome="differed")
    attestation.write_bytes(attestation.read_bytes().replace(b"differed", b"matched"))
    assert codes([attestation], task) == {attestation.name: ["digest"]}


def test_an_orphaned_attestation_is_refused(task, tmp_path):
    path = write(valid_submission(task), tmp_path)
    attestation = attested(path)
    path.unlink()
    assert codes([attestation], task) == {attestation.name: ["attestation"]}


def test_an_attestation_of_another_submission_is_refused(task, tmp_path):
    path, other = (write(valid_submission(task, name=name), tmp_path) for name in ("One", "Two"))
    attestation = attested(path, submission_sha256=sha256_of(other.read_bytes()))
    assert codes([attestation, path], task) == {attestation.name: ["attestation"], path.name: []}


def test_an_attestation_does_not_outlive_a_change_of_its_submission(task, tmp_path):
    path = write(valid_submission(task), tmp_path)
    attestation = attested(path)
    path.write_bytes(path.read_bytes().replace(b"A. Author", b"B. Author"))
    assert codes([attestation, path], task) == {attestation.name: ["attestation"], path.name: ["digest"]}


def test_an_attestation_is_canonical_and_keeps_to_its_schema(task, tmp_path):
    attestation = attested(write(valid_submission(task), tmp_path))
    good = attestation.read_bytes()
    cases = {
        good + b" ": ["not-canonical", "digest"],
        good.replace(b'"by"', b'"By"'): ["schema", "unknown-key"],
        good.replace(b"V. Verifier", b"V. \\u202eVerifier"): ["schema"],
        good.replace(b"V. Verifier", b"<b>V"): ["schema"],
        good[:-9]: ["not-json"],
        b"[" * 10**6: ["too-deep"],
    }
    for content, expected in cases.items():
        attestation.write_bytes(content)
        assert sorted(codes([attestation], task)[attestation.name]) == sorted(expected)


def test_a_submission_is_no_attestation(task, tmp_path):
    path = write(valid_submission(task), tmp_path)
    disguised = path.rename(path.with_name(f"{path.stem}.attestation-{sha256('x')[:8]}.json"))
    assert set(codes([disguised], task)[disguised.name]) == {"schema", "unknown-key"}


def test_names_of_attestations_are_quoted_visibly(task, tmp_path):
    attestation = attested(write(valid_submission(task), tmp_path))
    moved = attestation.rename(attestation.with_name(f"\u202ea\x1b[2J\n.attestation-{sha256('x')[:8]}.json"))
    assert sorted(codes([moved], task)[moved.name]) == ["attestation", "digest"]


# what is not needed

WITHOUT = """
import sys

class Absent:  # as if they were not installed; None in sys.modules would be found there by SciPy
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "streamlit", "transformers", "tokenizers", "datasets", "PIL", "matplotlib"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from pathlib import Path
from collapsebench.publishing.validation import submission_files, validate_files
from collapsebench.task import load_task
task = load_task(Path(sys.argv[1]))
for verdict in validate_files(submission_files([Path(sys.argv[2])]), {task.id: task}):
    print(verdict.path.name, *(problem.code for problem in verdict.problems))
"""


def test_files_are_validated_without_torch_streamlit_and_what_draws(task, tmp_path):
    good = write(valid_submission(task), tmp_path)
    attestation = attested(good)
    (tmp_path / "cut.json").write_bytes(good.read_bytes()[:-9])
    command = [sys.executable, "-c", WITHOUT, str(task.path), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    assert sorted(finished.stdout.split("\n")) == sorted([good.name, attestation.name, "cut.json not-json", ""])

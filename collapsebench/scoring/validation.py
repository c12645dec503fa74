"""Validation of submission files: from bytes that a stranger sent to a `Submission`, or to a list of all problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from collapsebench.errors import UserError
from collapsebench.paths import bundled
from collapsebench.scoring.bounded_json import Unreadable, parse_bounded
from collapsebench.scoring.consistency import Problem, check_against_task
from collapsebench.scoring.entries import Entry, read_bounded
from collapsebench.scoring.submission import (
    Attestation,
    Submission,
    attestation_path,
    canonical_bytes,
    is_attestation,
    sha256_of,
    submission_path,
)
from collapsebench.task import Task, load_task, registered_tasks

Model = TypeVar("Model", bound=BaseModel)

_NOT_SUBMISSIONS = {"schema.json"}
_LISTED = 100  # problems of one file
_SHOWN = 100  # characters of what was given


@dataclass(frozen=True)
class Verdict:
    """The outcome for one file: an entry or an attestation, or problems.

    Attributes:
        submission: the content of the entry; only where a single file was validated.
    """

    path: Path
    problems: list[Problem]
    entry: Entry | None = None
    attestation: Attestation | None = None
    submission: Submission | None = None


@dataclass
class Context:
    """What a submission is held against.

    Attributes:
        tasks: by id. published: entries that are there already.
    """

    tasks: dict[str, Task]
    published: list[Entry] = field(default_factory=list)

    @cached_property
    def _by_task(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.published:
            found.setdefault(entry.task_id, []).append(entry)
        return found

    def others(self, task_id: str, sha256: str) -> list[Entry]:
        """Published entries of a task, except the one with this digest."""
        return [entry for entry in self._by_task.get(task_id, []) if entry.sha256 != sha256]


def known_tasks(further: Iterable[Path] = ()) -> dict[str, Task]:
    """Registered tasks, and those of the given files, by id."""
    tasks = [load_task(path) for path in (*registered_tasks().values(), *further)]
    return {task.id: task for task in tasks if task.calibrated}


def published_entries(folder: Path | None = None, tasks: dict[str, Task] | None = None) -> list[Entry]:
    """The valid submissions of a folder; None: the committed ones. Broken files are
    left out, and no folder has no entries."""
    folder = bundled("submissions") if folder is None else folder
    known = known_tasks() if tasks is None else tasks
    files = submission_files([folder]) if folder.is_dir() else []
    entries = (validate_content(read_bounded(path), path, Context(known)).entry for path in files)
    return [entry for entry in entries if entry is not None]


def submission_files(paths: Sequence[Path]) -> list[Path]:
    """The files to validate: those named, and every ``.json`` below the folders named, attestations included.

    Raises:
        UserError: a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(f for f in path.rglob("*.json") if f.name not in _NOT_SUBMISSIONS and f.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder; give submissions, folders of them, or - for the input.")
    return list(dict.fromkeys(found))


def validate_files(paths: Sequence[Path], tasks: dict[str, Task], published: Sequence[Entry] = ()) -> list[Verdict]:
    """Validate files, also against one another and against what is published; attestations against their submissions.

    Args:
        paths: as from `submission_files`. tasks: by id. published: entries to compare with.
    """
    alone = {path: _alone(path, tasks) for path in paths}
    own = [verdict.entry for verdict in alone.values() if verdict.entry is not None]
    known = {entry.sha256 for entry in own}
    context = Context(tasks, [*own, *(entry for entry in published if entry.sha256 not in known)])
    digests: set[str] = set()
    verdicts = []
    for path in paths:
        verdict = alone[path]
        if verdict.entry is not None:
            problems = _against_others(verdict.entry, context)
            if verdict.entry.sha256 in digests:
                problems.append(Problem("duplicate", "(file)", "the same content as another file", "every file once"))
            digests.add(verdict.entry.sha256)
            verdict = Verdict(path, problems) if problems else verdict
        verdicts.append(verdict)
    return verdicts


def _alone(path: Path, tasks: dict[str, Task]) -> Verdict:
    """Validate one file by itself; its content is not kept."""
    content = read_bounded(path)
    if is_attestation(path):
        return validate_attestation(content, path)
    return replace(validate_content(content, path, Context(tasks)), submission=None)


def validate_content(content: bytes, path: Path | None, context: Context) -> Verdict:
    """Validate the bytes of one submission. Executes and imports nothing that it names.

    Args:
        path: where it is, for the checks of its name and folder; None for what has no name, such as an upload.
        context: tasks and published entries.
    """
    place = path or Path("-")
    parsed = parse_as(content, Submission)
    if isinstance(parsed, list):
        return Verdict(place, parsed)
    problems = _file_problems(content, parsed, path)
    task = context.tasks.get(parsed.task.id)
    if task is None:
        known = ", ".join(sorted(context.tasks)) or "none"
        problems.append(Problem("unknown-task", "task.id", parsed.task.id, f"a calibrated task: {known}"))
    else:
        problems += check_against_task(parsed, task)
    entry = Entry.of(place, content, parsed)
    problems += _against_others(entry, context)
    return Verdict(place, problems[:_LISTED]) if problems else Verdict(place, [], entry=entry, submission=parsed)


def validate_attestation(content: bytes, path: Path) -> Verdict:
    """Validate an attestation and that the submission it is about lies beside it, unchanged."""
    parsed = parse_as(content, Attestation)
    if isinstance(parsed, list):
        return Verdict(path, parsed)
    problems = []
    if canonical_bytes(parsed) != content:
        problems.append(Problem("not-canonical", "(file)", "other formatting", "the file as `verify` writes it"))
    about = path.with_name(path.name.split(".attestation-")[0] + ".json")
    if path.name != attestation_path(about, content).name:
        problems.append(Problem("digest", "(file name)", path.name, attestation_path(about, content).name))
    if not about.is_file() or sha256_of(read_bounded(about)) != parsed.submission_sha256:
        given = f"{about.name} is missing or has another digest"
        problems.append(Problem("attestation", "submission_sha256", given, "the submission that was verified"))
    return Verdict(path, problems) if problems else Verdict(path, [], attestation=parsed)


def parse_as(content: bytes, model: type[Model]) -> Model | list[Problem]:
    """Bounded parsing and the schema alone: the model, or what is wrong with the text."""
    try:
        parse_bounded(content)
        return model.model_validate_json(content)
    except Unreadable as error:
        return [Problem(error.code, "(file)", error.given, error.allowed)]
    except ValidationError as error:
        problems = [_schema_problem(e) for e in error.errors(include_url=False)]
        more = len(problems) - _LISTED
        if more > 0:
            rest = Problem("schema", "(file)", f"{more} more problems", "none")
            return [*problems[:_LISTED], rest]
        return problems


def _schema_problem(error: Any) -> Problem:
    place = json_path(error["loc"])
    if error["type"] == "extra_forbidden":
        return Problem("unknown-key", place, "an unknown key", "the keys of submissions/schema.json")
    given = error["input"]
    shown = "missing" if error["type"] == "missing" else type(given).__name__ if _large(given) else ascii(given)
    message = error["msg"].removeprefix("Value error, ")
    return Problem("schema", place, shown[:_SHOWN], message[:200])


def _large(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and len(value) > 10 * _SHOWN)


def json_path(location: Sequence[int | str]) -> str:
    """``results[0].generations[3].metrics.perplexity.value``, with odd keys escaped."""
    path = ""
    for part in location:
        text = ascii(part)[1:-1][:_SHOWN] if isinstance(part, str) else ""
        path += f"[{part}]" if isinstance(part, int) else f".{text}" if path else text
    return path or "(file)"


def _file_problems(content: bytes, submission: Submission, path: Path | None) -> list[Problem]:
    problems = []
    if canonical_bytes(submission) != content:
        allowed = "the file as `collapsebench submit` writes it: sorted keys, shortest exact numbers"
        problems.append(Problem("not-canonical", "(file)", "other formatting", allowed))
    if path is not None:
        wanted = Path(submission_path(submission, content))
        if path.name != wanted.name:
            problems.append(Problem("digest", "(file name)", ascii(path.name)[1:-1][:_SHOWN], wanted.name))
        elif "@" in path.parent.name and path.parent.name != wanted.parent.name:
            problems.append(Problem("folder", "(folder)", ascii(path.parent.name)[1:-1], wanted.parent.name))
    return problems


def _against_others(entry: Entry, context: Context) -> list[Problem]:
    """Is there the same already, or something that this one says to replace and does not?"""
    problems = []
    others = context.others(entry.task_id, entry.sha256)
    replaced = [other for other in others if other.digest == entry.supersedes]
    if entry.supersedes is not None and context.published and not replaced:
        problems.append(Problem("supersedes", "supersedes", entry.supersedes, f"an entry of {entry.task_id}"))
    superseded = {other.supersedes for other in others}
    for other in others:
        if other in replaced or other.digest in superseded or other.supersedes == entry.digest:
            continue
        if entry.what == other.what:
            allowed = f"one entry per method and task; to replace it, set supersedes to {other.digest}"
            problems.append(Problem("duplicate", "method", f"{entry.name} is in {other.path.name}", allowed))
        elif copied := [seed for seed, chain in entry.chains.items() if other.chains.get(seed) == chain]:
            given = f"seeds {copied} have the raw metrics of {other.path.name}"
            problems.append(Problem("copied", "results", given, "the method's own results"))
    return problems

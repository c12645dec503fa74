"""Validates submission files: turns untrusted bytes into a `Submission`, or into a list of all problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from collapsebench.errors import UserError
from collapsebench.methods import registered_methods
from collapsebench.paths import bundled
from collapsebench.publishing.bounded_json import Unreadable, parse_bounded
from collapsebench.publishing.consistency import Problem, check_against_task
from collapsebench.publishing.entries import Entry, read_bounded
from collapsebench.publishing.submission import (
    Attestation,
    Submission,
    alike,
    attestation_path,
    canonical_bytes,
    is_attestation,
    sha256_of,
    submission_path,
)
from collapsebench.task import Task, load_task, registered_tasks

Model = TypeVar("Model", bound=BaseModel)

SCHEMA_FILE = "schema.json"
_LISTED = 100  # maximum number of problems listed per file
_SHOWN = 100  # maximum number of characters shown of a given value


@dataclass(frozen=True)
class Verdict:
    """The outcome for one file: an entry, an attestation, or problems.

    Attributes:
        submission: content of the entry; only if a single file was validated.
    """

    path: Path
    problems: list[Problem]
    entry: Entry | None = None
    attestation: Attestation | None = None
    submission: Submission | None = None


@dataclass
class Context:
    """The tasks and entries that a submission is checked against.

    Attributes:
        tasks: tasks by id. published: existing entries.
    """

    tasks: dict[str, Task]
    published: list[Entry] = field(default_factory=list)

    @cached_property
    def superseded(self) -> set[str]:
        """Digests of the entries that are replaced by another one."""
        return {entry.supersedes for entry in self.published if entry.supersedes is not None}

    def alike(self, entry: Entry) -> list[Entry]:
        """Other published entries of the task with the same method, or with a chain of the same raw metrics."""
        keys = _keys(entry)
        found = {other.sha256: other for key in keys for other in self._by_key.get(key, [])}
        return [other for sha256, other in found.items() if sha256 != entry.sha256]

    def corrects(self, entry: Entry, other: Entry) -> bool:
        """Whether an entry supersedes another one, directly or through others between them."""
        seen: set[str] = set()
        digest = entry.supersedes
        while digest is not None and digest not in seen:
            if digest == other.digest:
                return True
            seen.add(digest)
            between = self.named(entry.task_id, digest)
            digest = None if between is None else between.supersedes
        return False

    def named(self, task_id: str, digest: str) -> Entry | None:
        """The published entry of a task with this digest, if there is one."""
        return next(iter(self._by_key.get((task_id, "digest", digest), [])), None)

    def reference(self, task_id: str) -> Entry | None:
        """The published entry of cross entropy on a task."""
        return next(iter(self._by_key.get((task_id, "name", "ce"), [])), None)

    @cached_property
    def _by_key(self) -> dict[tuple[Any, ...], list[Entry]]:
        found: dict[tuple[Any, ...], list[Entry]] = {}
        for entry in self.published:
            names = ((entry.task_id, "digest", entry.digest), (entry.task_id, "name", entry.name))
            for key in (*_keys(entry), *names):
                found.setdefault(key, []).append(entry)
        return found


def _keys(entry: Entry) -> list[tuple[Any, ...]]:
    """Keys that two entries of a task must not share."""
    chains = [(entry.task_id, "chain", chain) for chain in entry.chains.values() if chain is not None]
    return [(entry.task_id, "what", entry.what), *chains]


def known_tasks(further: Iterable[Path] = ()) -> dict[str, Task]:
    """Registered tasks, their older versions (``task@<version>.yaml`` next to them) and further task files, by id."""
    older = [old for path in registered_tasks().values() for old in sorted(path.parent.glob("task@*.yaml"))]
    tasks = [load_task(path) for path in (*registered_tasks().values(), *older, *further)]
    return {task.id: task for task in tasks if task.calibrated}


def published_entries(folder: Path | None = None, tasks: dict[str, Task] | None = None) -> list[Entry]:
    """The valid submissions of a folder (None: the committed ones); empty if the folder does not exist.

    Args:
        tasks: entries of other tasks are left out; what lies in the folder of another task is not even read.
    """
    folder = bundled("submissions") if folder is None else folder
    known = known_tasks() if tasks is None else tasks
    found = submission_files([folder]) if folder.is_dir() else []
    files = [path for path in found if path.parent.name in known or not names_a_task(path.parent)]
    entries = (validate_file(path, known).entry for path in files)
    return [entry for entry in entries if entry is not None]


def names_a_task(folder: Path) -> bool:
    """Whether a folder's name is that of a task, ``name@version``; only entries of this task may lie in it."""
    return "@" in folder.name


def submission_files(paths: Sequence[Path]) -> list[Path]:
    """The files to validate: the named files, and every ``.json`` below the named folders, including attestations.

    Raises:
        UserError: a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(f for f in path.rglob("*.json") if f != path / SCHEMA_FILE and f.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder; give submissions, folders of them, or - for the input.")
    return list(dict.fromkeys(found))


def validate_files(paths: Sequence[Path], tasks: dict[str, Task], published: Sequence[Entry] = ()) -> list[Verdict]:
    """Validate files, also against one another and published entries, and attestations against their submissions.

    Args:
        paths: the result of `submission_files`. tasks: tasks by id. published: entries to compare with.
    """
    alone = {path: _alone(path, tasks) for path in paths}
    own = [verdict.entry for verdict in alone.values() if verdict.entry is not None]
    known = {entry.sha256 for entry in own}
    context = Context(tasks, [*(entry for entry in published if entry.sha256 not in known), *own])
    refused = {entry.path: Verdict(entry.path, problems) for entry, problems in problems_among(own, context)}
    return [refused.get(path, alone[path]) for path in paths]


def problems_among(entries: Sequence[Entry], context: Context) -> list[tuple[Entry, list[Problem]]]:
    """The entries that conflict with others, with the reasons.

    Args:
        entries: entries that are valid by themselves. context: its `published` contains them and all other entries.
    """
    found = []
    digests: set[str] = set()
    for entry in entries:
        problems = _against_others(entry, context)
        if entry.sha256 in digests:
            problems.append(Problem("duplicate", "(file)", "the same content as another file", "every file once"))
        digests.add(entry.sha256)
        if problems:
            found.append((entry, problems))
    return found


def _alone(path: Path, tasks: dict[str, Task]) -> Verdict:
    """Validate one file by itself, without keeping its content."""
    return replace(validate_file(path, tasks), submission=None)


def validate_file(path: Path, tasks: dict[str, Task]) -> Verdict:
    """Validate one file by itself: a submission or an attestation; one that cannot be read is refused."""
    try:
        content = read_bounded(path)
    except OSError as error:
        return Verdict(path, [Problem("unreadable", "(file)", str(error.strerror), "a file that can be read")])
    if is_attestation(path):
        return validate_attestation(content, path)
    return validate_content(content, path, Context(tasks))


def validate_content(content: bytes, path: Path | None, context: Context) -> Verdict:
    """Validate the bytes of one submission. Nothing that it names is executed or imported.

    Args:
        path: path of the file, to check its name and folder; None if it has none, such as an upload.
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
    if len(problems) > _LISTED:
        problems[_LISTED:] = [Problem("more", "(file)", f"{len(problems) - _LISTED} more problems", "none")]
    return Verdict(place, problems) if problems else Verdict(place, [], entry=entry, submission=parsed)


def validate_attestation(content: bytes, path: Path) -> Verdict:
    """Validate an attestation, and check that its submission is in the same folder and unchanged."""
    parsed = parse_as(content, Attestation)
    if isinstance(parsed, list):
        return Verdict(path, parsed)
    problems = []
    if canonical_bytes(parsed) != content:
        problems.append(Problem("not-canonical", "(file)", "other formatting", "the file as `verify` writes it"))
    about = path.with_name(path.name.rsplit(".attestation-", 1)[0] + ".json")
    if path.name != attestation_path(about, content).name:
        problems.append(
            Problem("digest", "(file name)", visible(path.name), visible(attestation_path(about, content).name))
        )
    subject = b""
    with suppress(OSError):
        subject = read_bounded(about)
    if sha256_of(subject) != parsed.submission_sha256:
        given = f"{visible(about.name)} is missing or has another digest"
        problems.append(Problem("attestation", "submission_sha256", given, "the submission that was verified"))
    elif isinstance(submission := parse_as(subject, Submission), Submission):
        problems += _about_submission(parsed, submission)
    return Verdict(path, problems) if problems else Verdict(path, [], attestation=parsed)


def _about_submission(attestation: Attestation, submission: Submission) -> list[Problem]:
    """Statements of an attestation that contradict its submission."""
    problems = []
    if attestation.alike != alike(attestation.machine, submission, attestation.seed):
        problems.append(Problem("attestation", "alike", str(attestation.alike), "what the two machines say"))
    lengths = {result.seed: len(result.generations) for result in submission.results}
    last = lengths.get(attestation.seed, 0) - 1
    if attestation.generations > last:
        given = f"seed {attestation.seed}, generations 0 to {attestation.generations}"
        problems.append(Problem("attestation", "generations", given, "a chain of the submission"))
    if attestation.identical > attestation.compared:
        given = f"{attestation.identical} of {attestation.compared}"
        problems.append(Problem("attestation", "identical", given, "at most as many as were compared"))
    if (attestation.outcome == "differed" or attestation.identical < attestation.compared) and not attestation.largest:
        problems.append(Problem("attestation", "largest", "null", "the largest difference"))
    return problems


def parse_as(content: bytes, model: type[Model]) -> Model | list[Problem]:
    """Parse within bounds and apply only the schema; return the model, or the problems."""
    try:
        parse_bounded(content)
        return model.model_validate_json(content)
    except Unreadable as error:
        return [Problem(error.code, "(file)", error.given, error.allowed)]
    except ValidationError as error:
        problems = [_schema_problem(e) for e in error.errors(include_url=False)]
        more = len(problems) - _LISTED
        if more > 0:
            rest = Problem("more", "(file)", f"{more} more problems", "none")
            return [*problems[:_LISTED], rest]
        return problems


def _schema_problem(error: Any) -> Problem:
    place = json_path(error["loc"])
    if error["type"] == "extra_forbidden":
        return Problem("unknown-key", place, "an unknown key", "the keys of submissions/schema.json")
    given = error["input"]
    shown = "missing" if error["type"] == "missing" else type(given).__name__ if _large(given) else ascii(given)
    message = error["msg"].removeprefix("Value error, ")
    return Problem("schema", place, shown[:_SHOWN], visible(message[:200]))


def visible(text: str) -> str:
    """Escape all characters that are invisible or move the cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _large(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and len(value) > 10 * _SHOWN)


def json_path(location: Sequence[int | str]) -> str:
    """Format a location like ``results[0].generations[3].metrics.perplexity.value``, with unusual keys escaped."""
    if location[:1] == ("samples",) and len(location) > 1:  # pydantic also names the kind of samples
        location = (*location[:1], *location[2:])
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
        elif names_a_task(path.parent) and path.parent.name != wanted.parent.name:
            problems.append(Problem("folder", "(folder)", ascii(path.parent.name)[1:-1], wanted.parent.name))
    return problems


def _against_others(entry: Entry, context: Context) -> list[Problem]:
    """Check an entry against others: the entry it supersedes, the data and sample sizes, and duplicates."""
    problems = []
    replaced = None if entry.supersedes is None else context.named(entry.task_id, entry.supersedes)
    if entry.supersedes is not None and context.published and replaced is None:
        problems.append(Problem("supersedes", "supersedes", entry.supersedes, f"an entry of {entry.task_id}"))
    if replaced is not None and not set(entry.authors) & set(replaced.authors):
        given = f"an entry by {', '.join(replaced.authors)}"
        problems.append(Problem("supersedes", "supersedes", given, "an entry that has an author in common"))
    if replaced is not None and replaced.name in registered_methods() and entry.name != replaced.name:
        allowed = f"a corrected entry of {replaced.name}, which is registered"
        problems.append(Problem("supersedes", "supersedes", f"{entry.name} for {replaced.name}", allowed))
    reference = context.reference(entry.task_id)
    if reference is not None and reference.data_sha256 != entry.data_sha256:
        allowed = f"{reference.data_sha256}, the data of {reference.path.name}"
        problems.append(Problem("data", "task.data_sha256", entry.data_sha256, allowed))
    if reference is not None and reference.sizes != entry.sizes and entry.measured and reference.measured:
        allowed = f"as many elements per scored metric as in {reference.path.name}"
        problems.append(Problem("metric-n", "results[0].generations[0].metrics", "other sample sizes", allowed))
    if entry.digest in context.superseded:  # what it shares with others is reported for the entries that replace it
        return problems
    for other in context.alike(entry):
        if context.corrects(entry, other):
            continue
        if entry.what != other.what:
            theirs = set(other.chains.values())
            copied = [seed for seed, chain in entry.chains.items() if chain is not None and chain in theirs]
            given = f"seeds {copied} have the raw metrics of {other.path.name}"
            problems.append(Problem("copied", "results", given, "the method's own results"))
        elif other.digest not in context.superseded:
            allowed = f"one entry per method and task; to replace it, set supersedes to {other.digest}"
            problems.append(Problem("duplicate", "method", f"{entry.name} is in {other.path.name}", allowed))
    return problems

"""The commands for submissions: submit, validate, verify, leaderboard. Thin, like the rest of the command line."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collapsebench.cli.options import DeviceOption, TaskArgument, grouped, with_resources
from collapsebench.errors import UserError

if TYPE_CHECKING:
    from collapsebench.publishing.submit import About, Draft
    from collapsebench.publishing.validation import Verdict
    from collapsebench.publishing.verify import Outcome
    from collapsebench.resources import Resources

TaskFilesOption = Annotated[
    list[Path] | None, typer.Option("--task", help="Also know the task of this task.yaml; can be repeated.")
]
SUBMISSIONS = Path("submissions")


@dataclass(frozen=True)
class AboutOptions:
    """What a submission contains besides its numbers."""

    authors: Annotated[str, typer.Option(help='Names, separated by semicolons: "A. Author; B. Author".')]
    url: Annotated[str | None, typer.Option(help="Where the code is: https://…")] = None
    card: Annotated[
        str | None, typer.Option(help="A paragraph on the method, or a file with it; default: the loss's docstring.")
    ] = None
    licence: Annotated[str, typer.Option(help="Of the submission's content: an SPDX identifier.")] = "CC-BY-4.0"
    supersedes: Annotated[str | None, typer.Option(help="Digest of the entry that this one replaces.")] = None

    def read(self) -> About:
        """The same with the authors split, and the card read from its file if it names one."""
        from collapsebench.publishing.submit import About

        names = tuple(name.strip() for name in self.authors.split(";") if name.strip())
        return About(names, self.licence, self.url, _text_of(self.card), self.supersedes)


@grouped(about=AboutOptions)
def submit(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of runs (--out of compare).")],
    about: AboutOptions,
    method: Annotated[str | None, typer.Option(help="Its name in the table; not needed if there is only one.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of submissions.")] = SUBMISSIONS,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> None:
    """Make submissions from finished runs: all official seeds, all generations, nothing typed by hand."""
    from collapsebench.files import require_folder
    from collapsebench.publishing.submit import draft_submissions

    require_folder(out, "--out")
    drafts = draft_submissions(directory, method, about.read(), out)
    for draft in drafts:
        _print_draft(draft)
    if any(draft.problems for draft in drafts):
        raise UserError("nothing was written: this would not be accepted (see above).")
    if not yes and not (sys.stdin.isatty() and typer.confirm("Write this?")):
        raise UserError("nothing was written; add --yes to write what is shown above.")
    for draft in drafts:
        draft.write()
        typer.echo(f"Wrote {draft.file}")
    typer.echo("Check it with `collapsebench validate`, commit the file and open a pull request (docs/submitting.md).")


def validate(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="Submissions, folders of them, or - for stdin.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    tasks: TaskFilesOption = None,
) -> None:
    """Check submission files against the rules; nothing that they name is imported or run."""
    from collapsebench.publishing.bounded_json import MAX_BYTES
    from collapsebench.publishing.validation import (
        Context,
        known_tasks,
        names_a_task,
        published_entries,
        submission_files,
        validate_content,
        validate_files,
    )

    known = known_tasks(tasks or ())
    files = submission_files([Path(path) for path in paths if path != "-"])
    folders = {path.parent for path in files}
    of_any_task = "-" in paths or not all(map(names_a_task, folders))  # else only entries of the same tasks matter
    named = {folder.name for folder in folders}
    published = published_entries(None, {i: task for i, task in known.items() if of_any_task or i in named})
    verdicts = validate_files(files, known, published)
    if "-" in paths:
        verdicts.append(validate_content(sys.stdin.buffer.read(MAX_BYTES + 1), None, Context(known, published)))
    if not verdicts:
        raise UserError(f"no submissions in {', '.join(paths)}.")
    typer.echo(_as_json(verdicts) if as_json else "\n".join(line for v in verdicts for line in _lines(v)))
    if any(verdict.problems for verdict in verdicts):
        raise typer.Exit(2)


@dataclass(frozen=True)
class RerunOptions:
    """Which part of a submission is run again, from which source, and where."""

    seed: Annotated[int | None, typer.Option(help="An official seed; default: the first one.")] = None
    generations: Annotated[int, typer.Option(help="The last generation to run again.")] = 1
    method: Annotated[
        str | None, typer.Option(help="The loss on this machine: path/to/my_loss.py:MyLoss; default: as submitted.")
    ] = None
    out: Annotated[Path, typer.Option(help="Directory of the runs.")] = Path("verify-runs")
    device: DeviceOption = "auto"


@grouped(rerun=RerunOptions)
@with_resources
def verify(
    resources: Resources,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A submission.")],
    rerun: RerunOptions,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Import and run the contestant's code; read it first.")
    ] = False,
    by: Annotated[str | None, typer.Option(help="Your name: write an attestation beside the submission.")] = None,
    tasks: TaskFilesOption = None,
) -> None:
    """Run a seed of a submission again and compare every raw metric. This runs the contestant's code."""
    from collapsebench.files import require_folder
    from collapsebench.publishing.validation import known_tasks, validate_file
    from collapsebench.running.progress_display import cell_progress, plain_console

    if not file.is_file():
        what = "is a folder; give one of the submissions in it" if file.is_dir() else "no such file; give a submission"
        raise UserError(f"{file}: {what}, a .json file.")
    require_folder(rerun.out, "--out")
    known = known_tasks(tasks or ())
    verdict = validate_file(file, known)
    if verdict.entry is None:
        typer.echo("\n".join(_lines(verdict)))
        raise UserError(f"{file} is not a valid submission, so there is nothing to verify.")
    from collapsebench.publishing.verify import plan_verification, verification_cell, verify, write_attestation
    from collapsebench.task import load_task

    task = load_task(known[verdict.entry.task_id].path, resources=resources)
    plan = plan_verification(verdict.entry, task, rerun.seed, rerun.generations, rerun.method)
    typer.echo("This imports and runs\n  " + "\n  ".join(plan.lines()))
    if not trust_code:
        raise UserError("nothing was run: read the source of the loss, then add --trust-code.")
    cell = verification_cell(plan, rerun.out, rerun.device)
    with cell_progress([cell], plain_console(stderr=True)) as listener:
        outcome = verify(plan, cell, listener)
    _print_outcome(outcome)
    if by is not None:
        typer.echo(f"Wrote {write_attestation(outcome, by)}")
    if not outcome.matched:
        raise typer.Exit(1)


def leaderboard(
    submissions: Annotated[str | None, typer.Option(help="Folder of submissions; default: the committed ones.")] = (
        None
    ),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the site; default: a free one from 8501 on.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print the ranking instead of starting the site.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the ranking to this file; implies --table.")] = None,
    tasks: TaskFilesOption = None,
) -> None:
    """Rank all submissions by their raw metrics, and show them in the browser."""
    from collapsebench.cli.terminal import file_progress, print_leaderboard
    from collapsebench.files import write_atomically
    from collapsebench.paths import bundled
    from collapsebench.publishing.board import csv_text, leaderboard_table, read_board
    from collapsebench.publishing.site import serve
    from collapsebench.publishing.validation import known_tasks, submission_files
    from collapsebench.running.progress_display import plain_console

    folder = bundled("submissions") if submissions is None else _folder_of_submissions(submissions)
    if csv is not None and (csv.is_dir() or not csv.absolute().parent.is_dir()):
        what = "is a folder; give a file" if csv.is_dir() else f"cannot be written: there is no folder {csv.parent}"
        raise UserError(f"--csv {csv} {what}.")
    with file_progress(len(submission_files([folder])), plain_console(stderr=True)) as on_file:
        board = read_board(folder, known_tasks(tasks or ()), on_file, in_processes=True)
    for verdict in board.broken:
        typer.echo("\n".join(_lines(verdict)), err=True)
    if csv is not None:
        write_atomically(csv, csv_text(leaderboard_table(board)))
        typer.echo(f"Wrote {csv}")
    if table or csv is not None:
        print_leaderboard(board.table, plain_console())
        return
    if code := serve(folder, tuple(tasks or ()), port):
        raise typer.Exit(code)


def power(
    task: TaskArgument,
    submissions: Annotated[str | None, typer.Option(help="Folder of submissions; default: the committed ones.")] = (
        None
    ),
) -> None:
    """Say how small a difference to CE a comparison on TASK can detect, from the published curves."""
    from collapsebench.publishing.published_power import published_power
    from collapsebench.task import load_task

    loaded = load_task(task)
    folder = None if submissions is None else _folder_of_submissions(submissions)
    found = published_power(loaded, folder) if loaded.calibrated else None
    if found is None:
        raise UserError(
            f"{loaded.id} has no published entries of CE and another method, from which the spread between seeds is "
            "taken; name a task that has them (`collapsebench leaderboard --table`)."
        )
    typer.echo("\n".join(found.lines()))


def _folder_of_submissions(given: str) -> Path:
    """A folder that was given with ``--submissions``, if there is a submission in it."""
    from collapsebench.publishing.validation import submission_files

    if not given:  # as a path it would be this directory
        raise UserError("--submissions '' names no folder: give one, or leave it out for the committed submissions.")
    folder = Path(given)
    if not folder.is_dir():
        what = "is a file; give the folder that it is in" if folder.is_file() else "no such folder"
        raise UserError(f"--submissions {folder}: {what}.")
    if not submission_files([folder]):
        raise UserError(f"--submissions {folder}: no submission in it; `collapsebench submit` makes them from runs.")
    return folder


def _text_of(card: str | None) -> str | None:
    """The card itself, or the content of the file it names."""
    if card is None or not card.endswith((".md", ".txt")):
        return card
    try:
        return Path(card).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--card {card} cannot be read: {error}.") from None


def _print_draft(draft: Draft) -> None:
    from collapsebench.cli.terminal import draft_lines
    from collapsebench.publishing.submission import raw_frame
    from collapsebench.scoring.columns import records
    from collapsebench.scoring.scales import score_raw
    from collapsebench.scoring.table import ranked_table

    row = None
    if not draft.problems:
        found = score_raw(draft.task, raw_frame(draft.submission))
        (row,) = records(ranked_table(found.scores, draft.task.spec.horizon))
    typer.echo("\n".join(draft_lines(draft, row)))
    for problem in draft.problems:
        typer.echo(f"  PROBLEM  {problem}")


def _lines(verdict: Verdict) -> list[str]:
    """The outcome for one file, for people."""
    from collapsebench.publishing.validation import visible

    path = visible(str(verdict.path))
    if (entry := verdict.entry) is not None:
        shape = f"{len(entry.chains)} seeds, generations 0 to {entry.generations}"
        return [f"ok       {path}: {entry.name} on {entry.task_id}, {shape}"]
    if verdict.attestation is not None:
        a = verdict.attestation
        return [f"ok       {path}: seed {a.seed}, generations 0 to {a.generations} {a.outcome}, by {a.by}"]
    return [f"REFUSED  {path}", *(f"  {problem}" for problem in verdict.problems)]


def _as_json(verdicts: list[Verdict]) -> str:
    files = [
        {"file": str(v.path), "valid": not v.problems, "problems": [vars(problem) for problem in v.problems]}
        for v in verdicts
    ]
    return json.dumps({"valid": all(file["valid"] for file in files), "files": files}, indent=1)


def _print_outcome(outcome: Outcome) -> None:
    allowed = outcome.plan.task.spec.checks.tolerance
    largest = outcome.largest
    told = "all equal to the last bit"
    if largest is not None:
        size = "on one side only" if largest.relative is None else f"{100 * largest.relative:.2g} %"
        told = f"{outcome.identical} equal to the last bit, largest difference {size} ({largest.metric}, generation "
        told += f"{largest.generation}), allowed {100 * allowed:g} %"
    typer.echo(f"{'MATCHED' if outcome.matched else 'DIFFERED'}: {outcome.compared} values compared, {told}")
    deciding = {(d.generation, d.metric) for d in outcome.deciding}
    for d in outcome.differences[:20]:
        profile = "" if (d.generation, d.metric) in deciding else " (not scored, so it does not decide here)"
        typer.echo(f"  generation {d.generation}, {d.metric}: submitted {d.submitted}, measured {d.measured}{profile}")
    if len(outcome.differences) > 20:
        typer.echo(f"  and {len(outcome.differences) - 20} more")
    if not outcome.matched and not outcome.alike:
        typer.echo(
            "This is not the kind of machine, or not the versions, of the submission. Recursion amplifies rounding, so "
            "such a difference proves nothing; the task's card says under Verification how large it can be."
        )

"""Creates submissions from finished runs. Every number comes from the run directories; none is entered by hand."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from collapsebench.errors import UserError
from collapsebench.files import write_atomically
from collapsebench.methods import BASELINES, CONTROL
from collapsebench.paths import bundled
from collapsebench.publishing.consistency import Problem
from collapsebench.publishing.submission import (
    SHOWN_GENERATIONS,
    Submission,
    canonical_bytes,
    plain_text,
    submission_path,
)
from collapsebench.publishing.validation import Context, known_tasks, parse_as, published_entries, validate_content
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.results import TUNING, cells_of, run_folders, task_of
from collapsebench.running.tuning_runs import tuning_runs
from collapsebench.task import Task
from collapsebench.workloads.kind import SAMPLE_FILES, SampleFormat
from collapsebench.workloads.pictures import png, top_rows

_IMAGE_BYTES = 40_000
_TEXTS = 2
_TEXT_LENGTH = 500
_CARD_LENGTH = 2000


@dataclass(frozen=True)
class About:
    """Information that only the contestant can give.

    Attributes:
        authors: authors in order. licence: SPDX identifier of the submission's content. url: address of the code.
        card: one paragraph on the method; None: the docstring of the loss.
        supersedes: digest of the entry to replace.
    """

    authors: tuple[str, ...]
    licence: str = "CC-BY-4.0"
    url: str | None = None
    card: str | None = None
    supersedes: str | None = None


@dataclass(frozen=True)
class Draft:
    """A submission that is ready to be written.

    Attributes:
        content: its bytes. file: path to write them to. task: the task that was run.
        problems: the reasons why it would be rejected; empty if it would be accepted.
    """

    submission: Submission
    content: bytes
    file: Path
    task: Task
    problems: list[Problem]

    def write(self) -> None:
        """Write the file; an existing file of this name has the same content."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, self.content.decode())


def draft_submissions(directory: Path, method: str | None, about: About, out: Path) -> list[Draft]:
    """Create the submissions of one method, one for every task found below a directory of runs.

    Args:
        directory: ``--out`` of `compare`, or a task's folder in it.
        method: name or id of the method; None: the only one that is neither a baseline nor the control.
        out: folder of submissions; the new ones are checked against its entries and the committed ones.

    Raises:
        UserError: nothing was run, the method is ambiguous, the task is retired or calibrated on something else, or the
            runs are incomplete; the message lists what is missing, with the command that computes it.
    """
    found = {folder: cells_of(folder, None, None) for folder in run_folders(directory)}
    runs = [cell["about"] for cells in found.values() for cell in cells]
    context = _context(out, {run["task"]["id"] for run in runs})
    chosen = _chosen_method(runs, method, directory)
    drafts = []
    for folder, cells in found.items():
        if own := [cell for cell in cells if cell["about"]["method"]["id"] == chosen]:
            drafts.append(_draft(task_of(folder, own), own, about, out, context))
    return drafts


def _context(out: Path, task_ids: Collection[str]) -> Context:
    """Known tasks, and the entries of some in the committed folder and in `out`, which may be the same folder."""
    tasks = known_tasks()
    run = {task_id: task for task_id, task in tasks.items() if task_id in task_ids}
    folders = {folder.resolve() for folder in (bundled("submissions"), out)}
    return Context(tasks, [entry for folder in sorted(folders) for entry in published_entries(folder, run)])


def _chosen_method(runs: list[dict[str, Any]], asked: str | None, directory: Path) -> str:
    names = {run["method"]["id"]: run["method"]["name"] for run in runs}
    if asked is None:
        fitting = [id_ for id_, name in names.items() if name not in (*BASELINES, CONTROL)]
    else:
        fitting = [id_ for id_, name in names.items() if asked in (id_, name)]
    if asked == CONTROL:
        raise UserError("the control is not a contestant: it is trained on real data in every generation.")
    if len(fitting) != 1:
        told = "without --method" if asked is None else f"--method {asked}"
        known = ", ".join(sorted(id_ for id_, name in names.items() if name != CONTROL))
        raise UserError(f"{told}: {len(fitting) or 'no'} methods below {directory} fit; give one of {known}.")
    return fitting[0]


def _draft(task: Task, cells: list[dict[str, Any]], about: About, out: Path, context: Context) -> Draft:
    by_seed = {cell["about"]["seed"]: cell for cell in cells}
    method = cells[0]["about"]["method"]
    if method["track"] == "open":
        raise UserError(
            f"{method['name']} is on the open track, which takes no submissions yet; allowed are the tracks loss and "
            "provenance. `collapsebench report` shows its results here."
        )
    _require_open(task, by_seed, about)
    _require_whole(task, by_seed)
    seeds = task.spec.seeds
    runs = [by_seed[seed]["about"] for seed in seeds]
    task.require_scale(_same(runs, "task", "data_sha256"))
    stores = [RunDirectory(by_seed[seed]["path"]) for seed in seeds]
    content = {
        "schema_version": 1,
        "task": {
            "id": task.id,
            "sha256": _same(runs, "task", "sha256"),
            "data_sha256": _same(runs, "task", "data_sha256"),
            "scored": {
                name: {"reference": scale.reference, "floor": scale.floor} for name, scale in task.spec.scored.items()
            },
        },
        "method": _method(runs[0], about) | _tuning(task, by_seed[seeds[0]]["path"], method["name"]),
        "authors": list(about.authors),
        "licence": about.licence,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "supersedes": about.supersedes,
        "results": [seed_result(store, seed, task.spec.horizon) for store, seed in zip(stores, seeds, strict=True)],
        "provenance": sessions(runs),
        "samples": _samples(stores[0], seeds[0], task.spec.kind.samples),
    }
    submission = parse_as(json.dumps(content, allow_nan=False).encode(), Submission)
    if isinstance(submission, list):
        lines = "\n".join(f"  {problem}" for problem in submission)
        raise UserError(f"{runs[0]['method']['name']} on {task.id} cannot be submitted:\n{lines}")
    written = canonical_bytes(submission)
    file = out / submission_path(submission, written)
    if task.id not in context.tasks:  # the user's own task file
        tasks = context.tasks | {task.id: task}
        context = Context(tasks, published_entries(out, {task.id: task}))
    problems = validate_content(written, file, context).problems
    return Draft(submission, written, file, task, problems)


def _require_open(task: Task, by_seed: dict[int, dict[str, Any]], about: About) -> None:
    """Raise `UserError` for a task that no longer accepts entries; existing entries can still be corrected."""
    if task.spec.retired and about.supersedes is None:
        raise UserError(
            f"{task.id} is retired and takes no new entries, only corrections (--supersedes). "
            f"{task.spec.retired.strip()} To submit to another task that was run beside it, give that task's folder "
            f"in {_out(by_seed)}; `collapsebench list tasks` says which tasks are retired."
        )


def _require_whole(task: Task, by_seed: dict[int, dict[str, Any]]) -> None:
    """Raise `UserError` that lists everything missing, with the command to compute it."""
    if task.budget != 1.0:
        raise UserError(f"{task.id} was run with a part of the task's budget: a try-out, not to be submitted.")
    missing = []
    for seed in task.spec.seeds:
        reached = _reached(RunDirectory(by_seed[seed]["path"])) if seed in by_seed else []
        if "diverged" not in reached and len(reached) <= task.spec.horizon:
            first = len(reached)
            missing.append(f"  seed {seed}: generations {first} to {task.spec.horizon}")
    if not missing:
        return
    run = next(iter(by_seed.values()))["about"]
    methods = ",".join(dict.fromkeys([*BASELINES, run.get("spec") or run["method"]["name"]]))
    seeds = ",".join(str(seed) for seed in task.spec.seeds)
    raise UserError(
        f"{run['method']['name']} on {task.id} is not complete; missing are\n" + "\n".join(missing) + "\nThis computes "
        f"them: collapsebench compare {task.path if task.id not in known_tasks() else task.spec.name} "
        f"--methods {methods} --seeds {seeds} --out {_out(by_seed)}"
    )


def _out(by_seed: dict[int, dict[str, Any]]) -> Path:
    path: Path = next(iter(by_seed.values()))["path"]
    return path.parents[2]


def _reached(store: RunDirectory) -> list[str]:
    """States of the existing generations."""
    states: list[str] = []
    while (not states or states[-1] == "ok") and (state := store.state(len(states))) != "missing":
        states.append(state)
    return states


def _same(runs: list[dict[str, Any]], *keys: str) -> Any:
    values = []
    for run in runs:
        value: Any = run
        for key in keys:
            value = value[key]
        values.append(value)
    if any(value != values[0] for value in values):
        raise UserError(f"the seeds of {runs[0]['method']['name']} differ in {'.'.join(keys)}; run them all again.")
    return values[0]


def _tuning(task: Task, cell: Path, method: str) -> dict[str, float]:
    """Runs spent on tuning the method below the same directory of runs; empty if there were none."""
    spent = tuning_runs(cell.parents[2] / TUNING / task.id, task.spec.horizon, method)
    return {"tuning_runs": spent} if spent else {}


def _method(run: dict[str, Any], about: About) -> dict[str, Any]:
    method = run["method"]
    loss = run.get("loss")
    if loss is None:
        raise UserError(
            f"{method['name']} was given as a class of a Python process, so nobody could load it again. Put it into a "
            "file, name it as path/to/file.py:ClassName, and run it again."
        )
    card = about.card or run.get("description")
    if not card:
        raise UserError(
            f"{method['name']} has no description. Say in a paragraph what it does and why: --card TEXT or --card FILE."
        )
    card = card.strip()
    if len(card) > _CARD_LENGTH:
        raise UserError(
            f"the description of {method['name']} has {len(card):,} characters, and at most {_CARD_LENGTH:,} are "
            "allowed: shorten it, or give a shorter one with --card TEXT or --card FILE. Nothing was written."
        )
    return {
        "name": method["name"],
        "loss": loss,
        "parameters": method["parameters"],
        "track": method["track"],
        "source_sha256": method["source_sha256"],
        "card": card,
        "url": about.url,
    }


def seed_result(store: RunDirectory, seed: int, horizon: int) -> dict[str, Any]:
    """A seed's results in the format of a submission, from its run directory."""
    generations = []
    for g, state in enumerate(_reached(store)[: horizon + 1]):
        seconds = round(sum(store.seconds(g).values()), 3)
        measured = {"metrics": {}, "elements_trained": 0, "elements_sampled": 0, "real_share": 0.0}
        if state == "ok":
            found = store.read(g, "metrics.json")
            measured = {key: found[key] for key in (*measured, "engagement") if key in found}
            measured["metrics"] = {k: {"value": m["value"], "n": m["n"]} for k, m in found["metrics"].items()}
        generations.append({"generation": g, "status": state, "seconds": seconds, **measured})
    return {"seed": seed, "generations": generations}


def sessions(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sessions of the cells: their distinct circumstances, each with its seeds."""
    found: list[dict[str, Any]] = []
    for run in runs:
        for about in (run["circumstances"], *run["resumed"]):
            session = {"precision": "float32", **about, "device": run["device"]}
            known = next((s for s in found if {k: v for k, v in s.items() if k != "seeds"} == session), None)
            if known is None:
                found.append({"seeds": [run["seed"]], **session})
            elif run["seed"] not in known["seeds"]:
                known["seeds"].append(run["seed"])
    return found


def _samples(store: RunDirectory, seed: int, kind: SampleFormat) -> dict[str, Any] | None:
    """Samples of the first seed's generations, for the board: excerpts, images from the same noise, or densities."""
    there = [g for g, state in enumerate(_reached(store)) if state == "ok"]
    name, read = SAMPLE_FILES[kind], _READERS[kind]
    if not there or not (store.generation(there[0]) / name).is_file():
        return None
    shown = sorted({there[round(i)] for i in np.linspace(0, len(there) - 1, SHOWN_GENERATIONS)})
    made = {str(g): read(store.generation(g) / name) for g in shown}
    common = {k: v for k, v in store.read(there[0], name).items() if k != "density"} if kind == "density" else {}
    return {"kind": kind, "seed": seed, "generations": made, **common}


def _excerpts(file: Path) -> list[dict[str, str]]:
    found = json.loads(file.read_text("utf-8"))[:_TEXTS]
    return [{key: plain_text(excerpt[key], _TEXT_LENGTH) for key in ("prompt", "text")} for excerpt in found]


def _strip(file: Path) -> str:
    """The first one or two rows of a grid, as many as are small enough."""
    with Image.open(file) as picture:
        strips = [png(top_rows(picture, rows)) for rows in (2, 1)]
    return base64.b64encode(next((s for s in strips if len(s) <= _IMAGE_BYTES), strips[-1])).decode()


def _density(file: Path) -> list[float]:
    found: list[float] = json.loads(file.read_text("utf-8"))["density"]
    return found


_READERS: dict[SampleFormat, Callable[[Path], Any]] = {"text": _excerpts, "images": _strip, "density": _density}

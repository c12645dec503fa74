"""From run directories to a comparison of methods. Everything is recomputed from the raw metrics; no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from collapsebench.errors import UserError
from collapsebench.methods import CONTROL
from collapsebench.publishing.entries import Entry, engagement_rows
from collapsebench.publishing.published_power import published_power
from collapsebench.publishing.submission import raw_frame
from collapsebench.reports.compared import Compared
from collapsebench.running.results import cells_of, raw_metrics, task_of
from collapsebench.scoring.cells import incomplete_cells
from collapsebench.scoring.columns import reasons, records
from collapsebench.scoring.engagement import EngagementRow, engagement_frame, masked_gradients
from collapsebench.scoring.fidelity import DIVERGED
from collapsebench.scoring.scales import task_scales
from collapsebench.scoring.table import RATIO_BASELINES, ranked_table, score_methods, unranked
from collapsebench.task import CALIBRATION_FILE, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FrameName = Literal["table", "curves", "scores", "raw", "engagement"]


@dataclass(frozen=True, kw_only=True)
class Comparison(Compared):
    """Methods compared on one task by their fidelity to frozen scales.

    Attributes:
        curves: fidelities: method, seed, generation, metric, fidelity.
        scores: per method, seed and metric (``all`` is that which binds), as
            `collapsebench.scoring.seed_scores.seed_scores` has them.
        table: one row per method, best first, the control last; with ``masked_gradient``, mean over the cells,
            and ``symbols``, whether p is the probability of a symbol.
    """

    curves: pd.DataFrame
    scores: pd.DataFrame

    @property
    def reasons(self) -> list[str]:
        """Why each method has its mFI, one sentence each, in the order of the table."""
        return reasons(records(self.table), self.scores)

    def to_pandas(self, what: FrameName = "table") -> pd.DataFrame:
        """A copy of one of the frames: the ``table``, or what lies behind it, one row per number."""
        frames = {f: getattr(self, f) for f in get_args(FrameName)}
        if what not in frames:
            raise UserError(f"to_pandas({what!r}): give one of {', '.join(frames)}.")
        return frames[what].copy()

    def plot(self, kind: Literal["curves", "forest"] = "curves") -> Figure:
        """A matplotlib figure: fidelity by generation, or mFI with intervals; notebooks show it, `savefig` keeps it."""
        from collapsebench.reports.plots import fidelity_figure, forest_figure

        figures = {"curves": fidelity_figure, "forest": forest_figure}
        if kind not in figures:
            raise UserError(f"plot({kind!r}): give one of {', '.join(figures)}.")
        return figures[kind](self)

    def report(self, folder: str | Path | None = None) -> Path:
        """Write the report and the files beside it, and return the path of ``report.html``.

        Args:
            folder: where to; None: the task's directory of runs.
        """
        from collapsebench.reports.report import write_report

        paths = write_report(self, None if folder is None else Path(folder))
        return next(path for path in paths if path.name == "report.html")

    def _repr_html_(self) -> str:
        """What a notebook shows: what was found, the table, the curves."""
        from collapsebench.reports.page import notebook_page

        return notebook_page(self)


def read_comparison(
    folder: Path,
    task: Task | None = None,
    method_ids: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    generations: int | None = None,
    published: Sequence[Entry] = (),
) -> Comparison:
    """Read cells and compare their methods.

    Args:
        folder: ``<out>/<task>@<version>``.
        task: None: the registered task of that name and version, else the one of the path in ``run.json``.
        method_ids, seeds: which cells; None: all there are.
        generations: G; None: the last generation that any cell has; the task's, where all that reached it diverged.
        published: submissions of the same task to compare with; one whose name a cell has is left out.

    Raises:
        UserError: the task is unknown, not calibrated, or on other settings or data, or no cell is complete.
    """
    cells = cells_of(folder, method_ids, seeds)
    task = task or task_of(folder, cells)
    scales = task_scales(task)
    for data_sha256 in {cell["about"]["task"]["data_sha256"] for cell in cells}:
        task.require_scale(data_sha256)
    raw = measured_metrics(folder, cells, generations)
    last = _last(raw, task) if generations is None else generations
    published = tuple(e for e in published if e.name not in set(raw["method"]))
    raw = pd.concat([raw, *_published_frames(published, raw, last)], ignore_index=True)
    raw, notes = complete_cells(folder, raw, last)
    try:
        found = score_methods(raw, scales, last)
    except ValueError as error:
        raise UserError(f"{folder} cannot be scored: {error}.") from error
    tracks = {cell["label"]: cell["about"]["method"]["track"] for cell in cells} | {e.name: e.track for e in published}
    table = ranked_table(found.scores, last, tracks)
    table = unranked(table, tracks) if task.unranked else table
    engagement = engagement_of(raw, cells, published)
    masked = table["method"].map(masked_gradients(engagement))
    table = table.assign(masked_gradient=masked, symbols=task.spec.symbols)
    notes += _notes(task, raw, last, cells) + _notes_on_tracks(table, tracks)
    notes += _notes_on_published(published, cells) + _notes_on_power(task, table, last)
    return Comparison(
        task=task, folder=folder, generations=last, raw=raw, engagement=engagement, table=table, cells=cells,
        notes=notes, published=published, curves=found.curves, scores=found.scores,
    )  # fmt: skip


def _last(raw: pd.DataFrame, task: Task) -> int:
    """The last generation that was measured; the task's, if every cell that got furthest diverged there."""
    last = int(raw["generation"].max())
    survived = (raw["status"] != DIVERGED) & (raw["generation"] == last)
    return last if survived.any() else task.spec.horizon


def _published_frames(published: Sequence[Entry], raw: pd.DataFrame, last: int) -> list[pd.DataFrame]:
    """Raw metrics of published entries, of the seeds that were run here if there are such, so that means compare."""
    frames = []
    for entry in published:
        frame = raw_frame(entry.submission)
        shared = frame["seed"].isin(set(raw["seed"]))
        frames.append(frame[(frame["generation"] <= last) & (shared | (not shared.any()))])
    return frames


def measured_metrics(folder: Path, cells: list[dict[str, Any]], generations: int | None) -> pd.DataFrame:
    """The raw metrics of cells, of which one generation at least is finished.

    Raises:
        UserError: none is.
    """
    raw = raw_metrics(cells, generations)
    if raw.empty:
        raise UserError(f"{folder} has no finished generation of the cells asked for; run `collapsebench compare`.")
    return raw


def complete_cells(folder: Path, raw: pd.DataFrame, last: int) -> tuple[pd.DataFrame, list[str]]:
    """The rows of cells that reach the last generation or have diverged, and a note on each of the others.

    Raises:
        UserError: no cell does.
    """
    notes = []
    for method, seed, reached in incomplete_cells(raw, last):
        notes.append(f"{method} seed {seed} stops at generation {reached} of {last} and is left out; run it again.")
        raw = raw[~((raw["method"] == method) & (raw["seed"] == seed))]
    if raw.empty:
        raise UserError(f"no cell in {folder} reaches generation {last}. " + " ".join(notes))
    return raw, notes


def engagement_of(raw: pd.DataFrame, cells: list[dict[str, Any]], published: Sequence[Entry] = ()) -> pd.DataFrame:
    """Engagement in the compared generations."""
    rows: dict[str, list[EngagementRow]] = {e.name: list(engagement_rows(e.submission)) for e in published}
    for cell in cells:
        mine = rows.setdefault(cell["label"], [])
        mine += [(cell["about"]["seed"], g, shares) for g, shares in cell["engagement"].items()]
    there = set(zip(raw["method"], raw["seed"], raw["generation"], strict=True))
    frames = [
        engagement_frame(method, [row for row in found if (method, *row[:2]) in there])
        for method, found in rows.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _notes(task: Task, raw: pd.DataFrame, last: int, cells: list[dict[str, Any]]) -> list[str]:
    notes = []
    if task.unranked is not None:
        notes.append(task.unranked)
    notes += _notes_on_scale(task)
    if task.spec.beside:
        notes.append(f"{task.id} is not part of the mean over tasks. {task.spec.beside.strip()}")
    if last < task.spec.horizon:
        notes.append(f"Only generations 0 to {last} of {task.spec.horizon}: mFI is at most {last}.")
    diverged = raw[raw["status"] == DIVERGED]
    for row in diverged.itertuples():
        notes.append(f"{row.method} seed {row.seed} diverged in generation {row.generation}: fidelity 0 from there.")
    notes += notes_on_runs(task, raw, cells)
    for baseline in RATIO_BASELINES:
        if baseline not in set(raw["method"]):
            notes.append(f"No ratio to {baseline}: it is not among the methods of this comparison.")
    return notes


def _notes_on_tracks(table: pd.DataFrame, tracks: Mapping[str, str]) -> list[str]:
    there = sorted({tracks[method] for method in table["method"] if method != CONTROL})
    told = " and ".join(there)
    return [f"Methods of the tracks {told} are ranked separately (protocol 2.4)."] if len(there) > 1 else []


def notes_on_runs(task: Task, raw: pd.DataFrame, cells: list[dict[str, Any]]) -> list[str]:
    """How runs differ from official ones and from one another."""
    notes = []
    if task.budget != 1.0:
        notes.append(f"Only {task.budget:.3g} of the task's budget: a try-out, not comparable with other results.")
    unofficial = sorted(set(raw["seed"]) - set(task.spec.seeds))
    if unofficial:
        notes.append(f"Seeds {unofficial} are not official; the official ones are {list(task.spec.seeds)}.")
    versions = {json.dumps(c["about"]["circumstances"]["packages"], sort_keys=True) for c in cells}
    devices = {(c["about"]["device"], c["about"]["circumstances"]["processor"]) for c in cells}
    if len(versions) > 1 or len(devices) > 1:
        notes.append("The cells were run with different package versions or on different machines (see run.json).")
    return notes


def _notes_on_scale(task: Task) -> list[str]:
    """What the files beside the task do not record about its references."""
    unknown = [] if task.spec.calibrated_on else ["what its references were measured on"]
    if not (task.path.parent / CALIBRATION_FILE).is_file():
        unknown.append("whether it keeps the rules of a ranked task")
    remedy = f"`collapsebench calibrate {task.shown_argument} --write` measures it."
    return [f"For {task.id}, it is not recorded {' or '.join(unknown)}: {remedy}"] if unknown else []


def _notes_on_published(published: Sequence[Entry], cells: list[dict[str, Any]]) -> list[str]:
    """Which curves were not run here, and how their machines and versions differ from those of the cells."""
    if not published:
        return []
    files = ", ".join(f"{e.name} ({e.digest})" for e in published)
    notes = [f"Published results, not run here: {files}."]
    run = {cell["about"]["seed"] for cell in cells}
    if any(run & e.chains.keys() and not e.chains.keys() <= run for e in published):
        notes.append("Of the published seeds only those are used that were run here, so means differ from the board's.")
    here = [c["about"] | c["about"]["circumstances"] for c in cells]
    names: dict[str, list[str]] = {}
    for entry in published:
        session = entry.submission.provenance[0].model_dump()
        differing = [
            f"{name} {_told(session[name])} there, {_told(own)} here"
            for name in ("processor", "device", "precision", "gpu")
            if session[name] != (own := here[0].get(name))
        ]
        packages = here[0].get("packages", {})
        differing += [
            f"{package} {version} there, {own} here"
            for package, version in session["packages"].items()
            if (own := packages.get(package)) is not None and version != own  # what is not here did not take part
        ]
        if differing:
            names.setdefault("; ".join(differing), []).append(entry.name)
    notes += [f"{', '.join(those)} ran elsewhere: {differing}." for differing, those in names.items()]
    if names:
        notes.append(
            "Other machines and versions differ in the last digits, and recursion amplifies that, up to the size of "
            "the noise between seeds (the task's card, Verification): ratios to these are not truly paired by seed."
        )
    return notes


def _notes_on_power(task: Task, table: pd.DataFrame, last: int) -> list[str]:
    """The difference that these seeds can detect, if the published curves allow an estimate."""
    seeds = int(table["seeds"].min())
    if seeds < 2 or task.budget != 1.0 or last < task.spec.horizon:
        return []
    power = published_power(task)
    return [] if power is None else [power.told(seeds)]


def _told(value: Any) -> str:
    return "unknown" if value is None else str(value)

"""What is known of every file of a folder of submissions, kept between sessions: 2,000 files are read in a second.

The records are keyed by the file's content, its name, the tasks and the source of the scoring itself, so nothing that
could change a verdict or a score can be missed. The file is a cache: it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from collapsebench import __version__
from collapsebench.publishing.consistency import Problem
from collapsebench.publishing.entries import Entry, read_bounded
from collapsebench.publishing.submission import Attestation, is_attestation, raw_frame
from collapsebench.publishing.validation import Context, validate_attestation, validate_content
from collapsebench.scoring.fidelity import ALL
from collapsebench.scoring.scales import score_raw
from collapsebench.task import Task

_COLUMNS = ["seed", "metric", "threshold", "fi", "censored", "auf"]


@dataclass(frozen=True)
class Record:
    """What is kept of one file.

    Attributes:
        problems: of the file by itself; then there is nothing else. attestation: if it is one.
        entry: if it is a submission. columns: of `scores` and `own_scores`.
        cost: fidelity given up at generation 0. curve: mean over seeds of the smallest fidelity, by generation.
    """

    path: Path
    problems: list[Problem]
    attestation: Attestation | None = None
    entry: Entry | None = None
    columns: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    cost: float = 0.0
    curve: tuple[float, ...] = ()

    @cached_property
    def scores(self) -> pd.DataFrame:
        """As in `collapsebench.scoring.table.Scores`, without the method. Made when asked for: most never are."""
        return pd.DataFrame(self.columns["scores"])

    @cached_property
    def own_scores(self) -> pd.DataFrame:
        """The same with the method's own generation 0 as the reference."""
        return pd.DataFrame(self.columns["own_scores"])


def read_records(
    paths: Iterable[Path],
    tasks: dict[str, Task],
    cache: Path | None = None,
    on_file: Callable[[], None] = lambda: None,
) -> list[Record]:
    """Validate and score files by themselves, or take what is known of them.

    Args:
        paths: submissions and attestations. tasks: by id. cache: a file for what is known; None: nothing is kept.
        on_file: called after every file.
    """
    key = _key(tasks)
    with closing(_open(cache)) as store:
        records = []
        for path in paths:
            content = read_bounded(path)
            if is_attestation(path):  # is about a file beside it, and quick
                verdict = validate_attestation(content, path)
                records.append(Record(path, verdict.problems, verdict.attestation))
            else:
                name = hashlib.sha256(content + f"{path.parent.name}/{path.name}{key}".encode()).hexdigest()
                records.append(_known(store, name, path) or _learned(store, name, path, content, tasks))
            on_file()
        store.commit()
    return records


def remembered(cache: Path | None, key: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """A table that takes long to make, kept under a key that says everything it depends on."""
    name = hashlib.sha256(f"{key}{_code()}".encode()).hexdigest()
    with closing(_open(cache)) as store:
        found = store.execute("SELECT content FROM records WHERE name = ?", (name,)).fetchone()
        if found is not None:
            with suppress(ValueError, KeyError, TypeError):
                return _frame(json.loads(found[0]))
        table = make()
        store.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (name, json.dumps(_plain(table))))
        store.commit()
    return _frame(_plain(table))


def _open(cache: Path | None) -> sqlite3.Connection:
    if cache is not None:
        with suppress(sqlite3.Error, OSError):  # a cache that is damaged or cannot be written is left aside
            cache.parent.mkdir(parents=True, exist_ok=True)
            store = sqlite3.connect(cache, timeout=10)
            store.execute("CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, content TEXT)")
            store.commit()
            return store
    store = sqlite3.connect(":memory:")
    store.execute("CREATE TABLE records (name TEXT PRIMARY KEY, content TEXT)")
    return store


def _key(tasks: dict[str, Task]) -> str:
    """Everything that verdicts and scores depend on; a task's digest would leave out its seeds, scales and checks."""
    specs = {task_id: task.spec.model_dump(mode="json") for task_id, task in sorted(tasks.items())}
    return hashlib.sha256((json.dumps(specs, sort_keys=True) + _code()).encode()).hexdigest()


def _code() -> str:
    """Digest of what makes verdicts and scores."""
    package = Path(__file__).parents[1]
    files = [*(f for part in ("scoring", "publishing") for f in sorted((package / part).glob("*.py")))]
    files.append(package / "metrics" / "catalogue.py")
    return __version__ + hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _known(store: sqlite3.Connection, name: str, path: Path) -> Record | None:
    found = store.execute("SELECT content FROM records WHERE name = ?", (name,)).fetchone()
    if found is not None:
        with suppress(ValueError, KeyError, TypeError):  # damaged: computed again
            return _record(path, json.loads(found[0]))
    return None


def _learned(store: sqlite3.Connection, name: str, path: Path, content: bytes, tasks: dict[str, Task]) -> Record:
    verdict = validate_content(content, path, Context(tasks))
    known: dict[str, Any] = {"problems": [asdict(problem) for problem in verdict.problems]}
    if verdict.entry is not None and verdict.submission is not None:
        found = score_raw(tasks[verdict.entry.task_id], raw_frame(verdict.submission))
        smallest = found.curves.groupby(["seed", "generation"])["fidelity"].min().groupby("generation").mean()
        known |= {
            "entry": {**asdict(verdict.entry), "path": ""},
            "scores": found.scores[_COLUMNS].to_dict("list"),
            "own_scores": found.own_scores[found.own_scores["metric"] == ALL][_COLUMNS].to_dict("list"),
            "cost": float(next(iter(found.costs.values()))),
            "curve": [round(float(f), 6) for f in smallest],
        }
    store.execute("INSERT OR REPLACE INTO records VALUES (?, ?)", (name, json.dumps(known)))
    return _record(path, json.loads(json.dumps(known)))


def _record(path: Path, known: dict[str, Any]) -> Record:
    problems = [Problem(**problem) for problem in known["problems"]]
    if "entry" not in known:
        return Record(path, problems)
    about = known["entry"]
    entry = Entry(
        **about
        | {
            "path": path,
            "authors": tuple(about["authors"]),
            "machines": tuple(tuple(machine) for machine in about["machines"]),
            "chains": {int(seed): chain for seed, chain in about["chains"].items()},
        }
    )
    columns = {name: known[name] for name in ("scores", "own_scores")}
    return Record(path, problems, None, entry, columns, known["cost"], tuple(known["curve"]))


def _plain(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(c): [None if pd.isna(v) else getattr(v, "item", lambda v=v: v)() for v in table[c]] for c in table}


def _frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame(columns).astype({"rank": "Int64"})

"""The data of the pages: the board of the submissions folder, cached until a file in it changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import streamlit as st

from collapsebench.errors import UserError
from collapsebench.paths import bundled
from collapsebench.publishing.board import Board, read_board
from collapsebench.publishing.submission import Submission
from collapsebench.publishing.validation import known_tasks
from collapsebench.scoring.table import Scores
from collapsebench.task import Task

T = TypeVar("T")
_ATTEMPTS = 3


@dataclass(frozen=True)
class Reading:
    """The board as a page sees it.

    Attributes:
        board: the board, scored. state: digest of names, times and sizes of the files it was read from.
    """

    board: Board
    state: str

    def kept(self, compute: Callable[..., T], *arguments: Any) -> T:
        """Return ``compute(board, *arguments)``, cached as long as the files do not change.

        Ends the page with a message if a needed file has been removed or changed in the meantime.
        """
        try:
            return _kept(self.board, compute, self.state, compute.__qualname__, arguments)
        except (OSError, UserError):
            _end("A submission of this page has just changed or gone. Reload the page to see the board without it.")

    def scores(self, digests: Sequence[str]) -> Scores:
        """Curves and scores of the given entries of one task."""
        return self.kept(_scores, tuple(digests))

    def submission(self, digest: str) -> Submission:
        """A submission, read from its file."""
        return self.kept(_submission, digest)


def read() -> Reading:
    """Read the board from the current content of the folder."""
    folder, tasks = submissions_folder(), os.environ.get("COLLAPSEBENCH_TASKS", "")
    for _ in range(_ATTEMPTS):
        try:
            state = _state(folder)
            return Reading(_board(str(folder), tasks, state), state)
        except OSError:  # a file vanished between being listed and being read
            continue
    _end("The folder of submissions keeps changing or cannot be read. Reload the page in a moment.")


def submissions_folder() -> Path:
    """The folder named by ``COLLAPSEBENCH_SUBMISSIONS``, otherwise that of the committed submissions."""
    given = os.environ.get("COLLAPSEBENCH_SUBMISSIONS")
    return Path(given) if given else bundled("submissions")


def _end(message: str) -> NoReturn:
    st.warning(message)
    st.stop()
    raise AssertionError("st.stop ends the run")


def _state(folder: Path) -> str:
    digest = hashlib.sha256()
    for path, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            if name.endswith(".json"):
                about = (Path(path) / name).stat()
                digest.update(f"{path}/{name} {about.st_mtime_ns} {about.st_size}\n".encode())
    return digest.hexdigest()


@st.cache_resource(max_entries=2, show_spinner="Reading the submissions; the first time takes a while …")
def _board(folder: str, tasks: str, state: str) -> Board:
    del state  # part of the key only
    return read_board(Path(folder), _tasks(tasks))


@st.cache_resource(max_entries=2, show_spinner=False)
def _tasks(files: str) -> dict[str, Task]:
    return known_tasks([Path(file) for file in files.split(os.pathsep) if file])


@st.cache_resource(max_entries=256, show_spinner=False)
def _kept(_board: Board, _compute: Callable[..., Any], state: str, name: str, arguments: tuple[Any, ...]) -> Any:
    del state, name  # part of the key only
    return _compute(_board, *arguments)


def _scores(board: Board, digests: tuple[str, ...]) -> Scores:
    return board.scores(list(digests))


def _submission(board: Board, digest: str) -> Submission:
    return board.entries[digest].submission

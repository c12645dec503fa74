"""One thing that a task needs from outside: a package, a file, a folder, a dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Supply:
    """One thing that a task needs.

    Attributes:
        name: what it is. find: returns where it is, or raises `DataError` with what to do; fetches small files.
    """

    name: str
    find: Callable[[], str]

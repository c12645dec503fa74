"""Paths of the bundled folders: next to the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """Return the path of ``tasks``, ``baselines`` or ``constraints.txt``."""
    checkout = _PACKAGE.parent / name
    if (_PACKAGE.parent / "pyproject.toml").is_file() and checkout.exists():
        return checkout
    return _PACKAGE / name


def cache_dir() -> Path:
    """Directory for prepared data: ``$COLLAPSEBENCH_CACHE``, else the user's cache folder."""
    given = os.environ.get("COLLAPSEBENCH_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "collapsebench"

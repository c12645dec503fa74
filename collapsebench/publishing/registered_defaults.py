"""The default parameters of registered methods, read from their sources: importing these would import torch."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import collapsebench
from collapsebench.methods import registered_methods

_EVERY_LOSS = Path(collapsebench.__file__).with_name("losses.py")


@cache
def shared_defaults() -> dict[str, Any]:
    """The defaults of the parameters that every loss has."""
    return _declared(_EVERY_LOSS, "Loss")


@cache
def registered_defaults() -> dict[str, dict[str, Any]]:
    """The defaults of every registered method by name, those that every loss has included."""
    return {name: shared_defaults() | _declared(path) for name, path in registered_methods().items()}


def _declared(path: Path, name: str | None = None) -> dict[str, Any]:
    """The annotated attributes of the classes of a file (None: of all), except class variables."""
    tree = ast.parse(path.read_text("utf-8"))
    return {
        line.target.id: ast.literal_eval(line.value)
        for found in tree.body
        if isinstance(found, ast.ClassDef) and name in (None, found.name)
        for line in found.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None
        if "ClassVar" not in ast.unparse(line.annotation)
    }

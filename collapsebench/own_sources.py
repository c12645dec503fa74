"""Digests of a method's source and of the neighbouring modules it imports; editing either makes another method."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_imported: dict[str, tuple[Any, str]] = {}  # by installed module: its spec and digest when first seen


def digest_with_neighbours(file: Path, source: bytes, above: int = 0) -> str:
    """SHA-256 of a source and of its own modules that it imports; of the source alone if it imports none.

    Imports are parsed and not executed, so modules that are found only at run time are not included.

    Args:
        file: path of the source. source: its content. above: number of folders above the file's folder where absolute
            imports start, for a module in a package.
    """
    found = {file: source}
    waiting, root = [file], file.parents[above]
    while waiting:
        here = waiting.pop()
        for path in _imported_files(here, found[here], root):
            if path not in found:
                found[path] = path.read_bytes()
                waiting.append(path)
    own = hashlib.sha256(source).hexdigest()
    rest = sorted((str(path.relative_to(root)), hashlib.sha256(found[path]).hexdigest()) for path in found)
    return own if len(found) == 1 else hashlib.sha256(repr((own, rest)).encode()).hexdigest()


def digest_of_module(module: ModuleType, file: Path) -> str:
    """Like `digest_with_neighbours`, for an installed module, which Python imports once and which does not change."""
    if {"site-packages", "dist-packages"} & set(file.parts):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    depth = module.__name__.count(".") + (file.name == "__init__.py")
    return digest_with_neighbours(file, file.read_bytes(), min(depth, len(file.parents) - 1))


def has_changed(module: ModuleType, found: type, file: Path, digest: str) -> bool:
    """Whether a file differs from what this process imported, so that its digest is not that of the code to run.

    Args:
        found: the class to use from it. digest: the module's current digest.
    """
    spec, before = _imported.get(module.__name__, (None, ""))
    if spec is None or spec is not module.__spec__:  # seen for the first time, or imported again since
        written = set(_codes(compile(file.read_bytes(), str(file), "exec", dont_inherit=True)))
        functions = [f for f in vars(found).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
        if not all(f.__code__ in written for f in functions):
            return True
        _imported[module.__name__] = (module.__spec__, digest)
        return False
    return before != digest


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _imported_files(file: Path, source: bytes, root: Path) -> Iterator[Path]:
    """Files below the root that a source imports, packages with their ``__init__.py``."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # told when it is executed
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name)
        elif isinstance(node, ast.ImportFrom):
            if node.level >= len(file.parents):
                continue
            start = file.parents[node.level - 1] if node.level else root
            yield from _files(start, node.module or "")
            for alias in node.names:
                yield from _files(start, f"{node.module}.{alias.name}" if node.module else alias.name)


def _files(start: Path, name: str) -> Iterator[Path]:
    """The files below a folder that are executed when a name is imported."""
    place = start
    for part in filter(None, name.split(".")):
        place = place / part
        for path in (place.with_name(f"{part}.py"), place / "__init__.py"):
            if path.is_file() and path.is_relative_to(start):
                yield path

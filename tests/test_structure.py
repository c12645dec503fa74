"""The house rules that a program can hold: small rooms, and no package imported that is not declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("collapsebench", "leaderboard", "benchmarks")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
MODULE_LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Import names of packages that differ from their package names.
NAMES = {"PIL": "pillow", "yaml": "pyyaml", "cleanfid": "clean-fid"}
# Modules that are imported only for tasks that need an extra, and never by the others.
OPTIONAL = ("data/wikipedia.py", "workloads/images/", "workloads/pretrained/")


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of a function's parameters, without self and cls."""
    a = function.args
    found = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg)))]
    return found[1:] if found[:1] in (["self"], ["cls"]) else found


def test_a_module_is_read_in_one_sitting() -> None:
    lines = {str(file): len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert len(lines) > 100
    assert {file: n for file, n in lines.items() if n > MODULE_LINES} == {}


def test_a_function_fits_on_a_screen() -> None:
    lines = {f"{file}:{f.lineno} {f.name}": f.end_lineno - f.lineno + 1 for file in FILES for f in functions(file)}
    assert {name: n for name, n in lines.items() if n > FUNCTION_LINES} == {}


def test_a_signature_fits_into_memory() -> None:
    known = {f"{file}:{f.lineno} {f.name}": parameters(f) for file in FILES for f in functions(file)}
    assert {name: names for name, names in known.items() if len(names) > PARAMETERS} == {}


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", r)[0].lower().replace("_", "-") for r in requirements}


def imported(file: Path) -> dict[bool, set[str]]:
    """Third-party packages that a module imports: True: at import; False: within functions, or for annotations."""
    found: dict[bool, set[str]] = {True: set(), False: set()}

    def look(node: ast.AST, with_itself: bool) -> None:
        for child in ast.iter_child_nodes(node):
            names = []
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
            elif isinstance(child, ast.ImportFrom):
                names = [child.module or ""]
            tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"collapsebench"}
            found[with_itself] |= {NAMES.get(name, name.lower().replace("_", "-")) for name in tops}
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            later = later or (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING")
            look(child, with_itself and not later)

    look(ast.parse(file.read_text("utf-8")), True)
    return found


@pytest.mark.parametrize("with_itself", [True, False])
def test_every_package_that_is_imported_is_declared(with_itself: bool) -> None:
    base = names_of(PROJECT["dependencies"])
    extras = set().union(*(names_of(r) for name, r in PROJECT["optional-dependencies"].items() if name != "dev"))
    package, seen = ROOT / "collapsebench", set()
    for file in sorted(package.rglob("*.py")):
        found = imported(file)[with_itself]
        optional = not with_itself or file.relative_to(package).as_posix().startswith(OPTIONAL)
        assert found <= (base | extras if optional else base), file
        seen |= found
    assert {"torch", "pandas"} <= seen

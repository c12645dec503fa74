"""Executes source files anew, so that state kept on classes and in the module does not survive."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_beside: dict[str, set[str]] = {}  # by source: the modules that its last execution imported from its folder


def execute_afresh(path: Path, source: bytes) -> ModuleType:
    """Execute a source file as a new module, which replaces the previous one in `sys.modules`.

    The module behaves like a package, so it may import its neighbours (``from .beside import x``, ``import beside``).
    These are executed anew as well, unless the program has already imported them.

    Args:
        path: absolute path of the source. source: its content, which the file may no longer have.

    Raises:
        BaseException: any error of the source; then nothing of it remains in `sys.modules`.
    """
    # The same file in two folders gives two modules, since its neighbours may differ.
    digest = hashlib.sha256(f"{path} {hashlib.sha256(source).hexdigest()}".encode()).hexdigest()
    name, folder = f"_collapsebench_method_{digest[:16]}", str(path.parent)
    for old in (name, *_beside.pop(name, ())):
        sys.modules.pop(old, None)
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[folder])
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before = set(sys.modules)
    sys.modules[name] = module  # annotations are looked up there
    sys.path.insert(0, folder)
    try:
        # Do not use the loader, which may use cached bytecode; do not inherit this file's future features.
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
        new = set(sys.modules) - before - {name}
        _beside[name] = {m for m in new if _lies_in(path.parent, sys.modules[m])}
    return module


def _lies_in(folder: Path, module: ModuleType) -> bool:
    """Whether a module, or its package, is directly in the folder; modules installed below it do not count."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(folder):
        return False
    return "site-packages" not in Path(file).relative_to(folder).parts

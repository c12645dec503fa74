"""Source files executed anew: what code kept on its classes and in its module does not outlive the execution."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_beside: dict[str, set[str]] = {}  # of every source: the modules that its last execution brought in from its folder


def execute_afresh(path: Path, source: bytes) -> ModuleType:
    """Execute a source file as a new module, which takes the place of the one before in `sys.modules`.

    Like a package, so that it may import what lies beside it (``from .beside import x``, ``import beside``); that is
    executed anew as well, unless the program had imported it already.

    Args:
        path: absolute, where the source comes from. source: its content, which the file may have lost meanwhile.

    Raises:
        BaseException: whatever the source raises; nothing of it is left in `sys.modules` then.
    """
    # The same file in two folders is two modules: what lies beside it may differ.
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
        # Not by the loader, which may take cached bytes; and without the future features of this file.
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
    """Whether a module, or the package that it is in, stands right in the folder; not what is installed below it."""
    file = getattr(module, "__file__", None)
    if file is None or not Path(file).is_relative_to(folder):
        return False
    return "site-packages" not in Path(file).relative_to(folder).parts

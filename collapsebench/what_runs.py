"""A digest of what runs when a class is used: its code, and every value that the code refers to.

This is for classes that exist only in this process. Source text is not sufficient: it may be in a notebook's cells, the
file may have changed since, and a changed global, default or closure does not change it. So the digest covers what
Python would execute: code objects with their constants, defaults, closures, the globals that they name, and the
attributes of the class and its bases. Comments, docstrings and line numbers do not matter. Installed packages are
represented by their names and versions.
"""

from __future__ import annotations

import builtins
import dis
import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ATOMS = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ClassMethodDescriptorType,
)
# Attributes of a class that do not affect its behaviour.
_NOT_RUN = {
    *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__abstractmethods__", "_abc_impl"),
    *("__firstlineno__", "__static_attributes__"),
}
_LOOK_ANYWHERE = ("globals", "locals", "vars", "eval", "exec", "__import__", "open")


class Untellable(Exception):
    """The code depends on something whose content has no digest; the message names it."""


def digest_of_what_runs(loss_class: type) -> str:
    """SHA-256 of what a class runs; equal in two processes of the same version of Python.

    Raises:
        Untellable: it refers to something like an open file, or looks names up while it runs.
    """
    try:
        return _Digest().of(loss_class).hex()
    except RecursionError:
        raise Untellable("something nested too deeply") from None


class _Digest:
    """Digests of objects that may refer to each other, also in cycles."""

    def __init__(self) -> None:
        self.known: dict[int, bytes] = {}
        self.open: dict[int, int] = {}  # objects being processed, with their depth
        self.kept: list[Any] = []  # keeps objects alive, so that their addresses are not reused

    def of(self, value: Any) -> bytes:
        if type(value) in _ATOMS:
            return _hash(f"{type(value).__name__} {value!r}")
        address = id(value)
        if address in self.known:
            return self.known[address]
        if address in self.open:
            return _hash(f"circle {self.open[address]}")
        self.open[address] = len(self.open)
        self.kept.append(value)
        told, parts = _parts(value)
        digests = [self.of(part) for part in parts]
        if isinstance(value, set | frozenset):
            digests.sort()
        del self.open[address]
        self.known[address] = found = _hash(told, *digests)
        return found


def _hash(told: str, *digests: bytes) -> bytes:
    return hashlib.sha256(b"".join([hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest(), *digests])).digest()


def _parts(value: Any) -> tuple[str, Sequence[Any]]:
    """A description of an object, and the objects that it consists of."""
    kind = type(value)
    if kind in (tuple, list, set, frozenset):
        return kind.__name__, list(value)
    if isinstance(value, dict | types.MappingProxyType):
        return kind.__name__, [part for item in value.items() for part in item]
    if isinstance(value, types.CodeType):
        return _code(value), value.co_consts
    if isinstance(value, types.ModuleType):
        return _module(value), ()
    if isinstance(value, type | types.FunctionType) and _is_installed(value.__module__):
        return _named(value), ()
    if isinstance(value, types.FunctionType):
        return "function", _function(value)
    if isinstance(value, type):
        own = {name: part for name, part in vars(value).items() if name not in _NOT_RUN}
        return "class", (value.__bases__, own)
    if isinstance(value, _BUILT_IN):
        owner = getattr(value, "__self__", None)
        return _named(value), () if owner is None or isinstance(owner, types.ModuleType) else (owner,)
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    if tensor is not None and isinstance(value, tensor):
        return f"{kind.__name__} {value.dtype} {tuple(value.shape)}", (_bytes_of(value),)
    return _wrapped(value) or _reduced(value)


def _code(code: types.CodeType) -> str:
    return repr(
        (code.co_code, code.co_names, code.co_varnames, code.co_cellvars, code.co_freevars, code.co_argcount,
         code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, getattr(code, "co_exceptiontable", b""))
    )  # fmt: skip


def _named(value: Any) -> str:
    """The name of an installed object, with the version of its package."""
    owner = getattr(value, "__objclass__", None)
    module = str(getattr(value, "__module__", None) or getattr(owner, "__module__", ""))
    return f"{module}.{getattr(value, '__qualname__', value)} {_version(module)}"


def _version(module: str) -> str:
    """Version of a module's package; changes of collapsebench itself show in the versions of tasks."""
    top = module.partition(".")[0]
    return "" if top == "collapsebench" else str(getattr(sys.modules.get(top), "__version__", ""))


def _is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python, this package or an installed one, which users do not edit."""
    top = (module or "").partition(".")[0]
    if top == "__main__":  # of a notebook: it may be the file of the program that runs the cells
        return False
    if top in sys.stdlib_module_names or top in ("builtins", "collapsebench"):
        return True
    found = sys.modules.get(module or "")
    return found is not None and _lies_among_packages(getattr(found, "__file__", None))


def _lies_among_packages(file: str | None) -> bool:
    return file is not None and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def _module(module: types.ModuleType) -> str:
    """A module is identified by its name; the parts that are used are examined where they are used."""
    return f"module {module.__name__} {_version(module.__name__)}"


def _function(function: types.FunctionType) -> Sequence[Any]:
    cells = [_content(cell) for cell in function.__closure__ or ()]
    referred = dict(_referred(function.__code__, function.__globals__))
    return function.__code__, function.__defaults__, function.__kwdefaults__, cells, referred, vars(function)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return "an empty cell"


def _referred(code: types.CodeType, found_in: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The outside objects that code uses, by name: globals, and attributes of modules that are not installed."""
    codes = list(_nested(code))
    attributes = sorted({name for part in codes for name in part.co_names})
    names = {(i.opname, i.argval) for part in codes for i in dis.get_instructions(part)}
    for operation, name in sorted((o, n) for o, n in names if o in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME")):
        if operation == "IMPORT_NAME":
            value = _imported(name)
        elif name in found_in:
            value = found_in[name]
        elif name in _LOOK_ANYWHERE:
            raise Untellable(f"{name}()")
        else:
            continue  # a builtin, or nothing
        yield name, value
        if isinstance(value, types.ModuleType) and not _is_installed(value.__name__):
            yield from ((f"{name}.{part}", vars(value)[part]) for part in attributes if part in vars(value))


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _imported(name: str) -> Any:
    """The module that an import within a function would return."""
    if name in sys.modules:
        return sys.modules[name]
    top = name.partition(".")[0]
    spec = None if _is_installed(top) or not top else find_spec(top)
    if spec is not None and not _lies_among_packages(spec.origin):
        raise Untellable(f"the module {name}, which is imported while it runs")
    return name


def _bytes_of(tensor: Any) -> bytes:
    whole = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(whole.view(sys.modules["torch"].uint8).numpy().tobytes())


def _wrapped(value: Any) -> tuple[str, Sequence[Any]] | None:
    """The function that a wrapper stands for; None for anything else."""
    kind = type(value).__name__
    if isinstance(value, staticmethod | classmethod | types.MethodType):
        return kind, (value.__func__, getattr(value, "__self__", None))
    if isinstance(value, property):
        return kind, (value.fget, value.fset, value.fdel)
    if isinstance(value, functools.cached_property):
        return kind, (value.func,)
    if isinstance(value, types.CellType):
        return kind, (_content(value),)
    if isinstance(value, functools._lru_cache_wrapper):
        return kind, (value.__wrapped__,)
    return None


def _reduced(value: Any) -> tuple[str, Sequence[Any]]:
    """Describe any other object by what `pickle` would reconstruct it from."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    try:
        reduced = value.__reduce_ex__(4)
    except Exception as error:
        raise Untellable(f"an object of {kind}") from error
    if isinstance(reduced, str):
        if getattr(builtins, reduced, None) is value or _is_installed(getattr(value, "__module__", None)):
            return f"{kind} {reduced}", ()
        raise Untellable(f"an object of {kind}")
    return kind, [list(part) if isinstance(part, Iterator) else part for part in reduced]

"""From the name of a method to its loss: ``tce:gamma=0.8``, ``my_loss.py:MyLoss``, ``my_package.losses:MyLoss``."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from collapsebench.errors import MethodError, UserError
from collapsebench.fresh_modules import execute_afresh
from collapsebench.own_sources import digest_of_module, digest_with_neighbours, has_changed
from collapsebench.parameters import did_you_mean, require_few_words, require_own_init
from collapsebench.paths import bundled
from collapsebench.what_runs import Untellable, digest_of_what_runs

if TYPE_CHECKING:
    from collapsebench.hooks import Method, Track
    from collapsebench.losses import Loss

    Class: TypeAlias = type[Loss] | type[Method]
    AnyMethod: TypeAlias = "str | Contestant | Loss | Method | Class"

CONTROL = "control"
BASELINES = ("ce", "focal", "tce")  # what a comparison runs unless told otherwise
ENTRY_POINT_GROUP = "collapsebench.losses"
FORMS = (
    "a registered name (see `collapsebench list methods`), path/to/file.py:ClassName or package.module:ClassName, "
    "each optionally with parameters, as in tce:gamma=0.8,reduction=kept"
)

_executing: list[Path] = []  # files of methods, innermost last


@dataclass(frozen=True)
class Contestant:
    """A resolved method: how to make it, and what identifies it on disk.

    Attributes:
        name: as shown in tables, e.g. ``tce:gamma=0.8`` or ``MyLoss``.
        id: directory name; contains a digest of all its sources unless the method is registered.
        spec: the text that loads it again in another process; None for a class that exists only in this one.
        loss: the class, named without parameters and without this machine's folders: ``tce``, ``my_loss.py:MyLoss``,
            ``my_package.losses:MyLoss``; None as for `spec`.
        description: docstring of the class; empty when it has none of its own.
        parameters: all parameters of the class, defaults included.
        source_sha256: digest of the file (or of what the class runs) that defines it.
        real_data: True for the control: every generation trains on real data.
        track: ``loss``, ``provenance`` or ``open``; ranked separately.
        make: makes a fresh method, a loss with or without hooks; called once per generation. A file is executed anew
            each time, so nothing kept on its classes or in its module survives. Installed packages are imported once
            per process, and a class given as an object is used as it is, so state kept on these does survive.
    """

    name: str
    id: str
    spec: str | None
    loss: str | None
    description: str
    parameters: dict[str, Any]
    source_sha256: str
    real_data: bool
    track: Track
    make: Callable[[], Method] = field(repr=False, compare=False)

    def make_loss(self) -> Loss:
        """The loss of a fresh method."""
        return self.make().make_loss()


@dataclass(frozen=True)
class _Found:
    """A class, the digest of its definition, and a function that finds it again (a fresh one if possible).

    Attributes:
        sha256: digest of its file. identity: digest of everything that defines the class.
    """

    loss_class: Class
    sha256: str
    identity: str
    find: Callable[[], Class]


def registered_methods() -> dict[str, Path]:
    """Registered baselines by name: every folder of ``baselines/`` with a ``loss.py``."""
    return {path.parent.name: path for path in sorted(bundled("baselines").glob("*/loss.py"))}


def load_method(spec: AnyMethod, kind: str = "text", task_id: str = "") -> Contestant:
    """Resolve a method in any form that a user may give, and check its loss on known values.

    Args:
        spec: a name, path or import path with parameters; or an object or class of `Loss` or `Method`.
        kind: kind of the workload to train; matters for losses that use predictions and targets.
        task_id: name of the task for error messages.

    Raises:
        MethodError: it cannot be found or loaded. LossError, UserError: it loads but cannot be used.
    """
    from collapsebench.hooks import Method
    from collapsebench.losses import Loss, check_loss

    if isinstance(spec, Contestant):
        return spec
    if isinstance(spec, Loss | Method) or (inspect.isclass(spec) and issubclass(spec, Loss | Method)):
        method = _from_object(spec)
    elif isinstance(spec, str):
        method = _from_text(spec.strip())
    else:
        raise MethodError(f"a method is text, or an object or class of Loss or Method; got {type(spec).__name__}.")
    check_loss(method.make_loss(), kind, task_id)
    return method


def require_known(spec: str) -> None:
    """Raise `MethodError` for an unknown name or a missing file, without importing anything."""
    target, _ = _split(spec.strip())
    if target in registered_methods() or target == CONTROL:
        return
    place, _, class_name = target.rpartition(":")
    if not place and not target.endswith(".py"):
        _entry_point(target)
    elif class_name and (place.endswith(".py") or "/" in place):
        _require_file(Path(place).expanduser())


def load_method_with(target: str, parameters: dict[str, Any], kind: str) -> Contestant:
    """Load a method by the name of its loss and already typed parameters. Imports its code.

    The method cannot be sent to another process (its `spec` is None).

    Raises:
        MethodError, LossError, UserError: as `load_method`.
    """
    from collapsebench.losses import check_loss

    method = replace(_from_text(target, parameters), spec=None)
    check_loss(method.make_loss(), kind)
    return method


def source_file(target: str) -> Path | None:
    """The file that a method's name stands for, without importing it; None for an installed package."""
    registered = registered_methods()
    if target in registered:
        return registered[target]
    place = target.rpartition(":")[0]
    return Path(place).expanduser() if place.endswith(".py") or "/" in place else None


def load_loss(spec: AnyMethod) -> Loss:
    """Return the loss object that a method stands for, e.g. ``load_loss("tce:gamma=0.8")``."""
    return load_method(spec).make_loss()


def _from_text(spec: str, given: dict[str, Any] | None = None) -> Contestant:
    """Load a method from its text; if parameters are `given`, the text contains none."""
    target, parameters = _split(spec) if given is None else (spec, given)
    if target == CONTROL:
        if parameters:
            raise MethodError("control takes no parameters: it is ce on real data in every generation.")
        found = _class_in(registered_methods()["ce"], None)
        return _method(CONTROL, CONTROL, spec, CONTROL, found, {})
    registered = registered_methods()
    if target in registered:
        return _method(target, target, spec, target, _class_in(registered[target], None), parameters)
    if ":" not in target and target.endswith(".py"):
        raise MethodError(f"{target!r} names a file but no class; write {target}:ClassName.")
    if ":" not in target:
        return _from_entry_point(target, spec, parameters)
    place, class_name = target.rsplit(":", 1)
    if place.endswith(".py") or "/" in place:
        path = Path(place).expanduser()
        found = _class_in(path, class_name)
        spec = f"{path.resolve()}:{class_name}" + spec.removeprefix(target)
        target = f"{path.name}:{class_name}"
    else:
        found = _class_in_package(place, class_name)
    return _method(class_name, f"{class_name}-{found.identity[:8]}", spec, target, found, parameters)


def _split(spec: str) -> tuple[str, dict[str, Any]]:
    """Split ``target:key=value,key=value``; values stay text and are typed by the loss."""
    target, _, tail = spec.rpartition(":")
    if not target or "=" not in tail:
        return spec, {}
    parameters: dict[str, Any] = {}
    for item in tail.split(","):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key.isidentifier() or not value:
            raise MethodError(f"{spec!r}: {item!r} is not a parameter; write key=value, several with commas.")
        if key in parameters:
            raise MethodError(f"{spec!r}: parameter {key!r} is given twice.")
        parameters[key] = value
    return target, parameters


def _from_entry_point(name: str, spec: str, parameters: dict[str, Any]) -> Contestant:
    entry = _entry_point(name)
    loss = _class_in_package(entry.module, entry.attr)
    return _method(name, f"{name}-{loss.identity[:8]}", spec, f"{entry.module}:{entry.attr}", loss, parameters)


def _entry_point(name: str) -> EntryPoint:
    found = entry_points(group=ENTRY_POINT_GROUP, name=name)
    if not found:
        known = [*registered_methods(), CONTROL, *(e.name for e in entry_points(group=ENTRY_POINT_GROUP))]
        told = f"unknown method {name!r}{did_you_mean(name, known)}. Known: {', '.join(known)}."
        raise MethodError(f"{told} A method is {FORMS}.")
    if len(found) > 1:
        raise MethodError(f"method {name!r} is offered by several installed packages: {[e.value for e in found]}.")
    (entry,) = found
    return entry


def _from_object(loss: Loss | Method | Class) -> Contestant:
    loss_class: Class = loss if isinstance(loss, type) else type(loss)
    require_own_init(loss_class)
    parameters = {} if isinstance(loss, type) else loss.parameters
    name, source = loss_class.__name__, _digest_of_class(loss_class)
    changed = {k: v for k, v in parameters.items() if v != loss_class.default_parameters().get(k)}
    found = _Found(loss_class, source, source, lambda: loss_class)
    return _method(name, f"{name}-{source[:8]}", None, None, found, changed)


def _digest_of_class(loss_class: Class) -> str:
    """Digest of what a class of this process runs; a unique one if that cannot be determined."""
    try:
        return digest_of_what_runs(loss_class)
    except Untellable as what:
        warnings.warn(
            f"{loss_class.__name__} depends on {what}, and changes to that cannot be detected, so its results are not "
            "reused. Put what it needs into its parameters, or the class into a file of its own.",
            stacklevel=2,
        )
        return uuid.uuid4().hex * 2


def _method(
    name: str, slug: str, spec: str | None, target: str | None, found: _Found, given: dict[str, Any]
) -> Contestant:
    from collapsebench.hooks import LossAlone, Method, check_hooks
    from collapsebench.losses import Loss

    loss_class, find = found.loss_class, found.find
    if issubclass(loss_class, Method):
        check_hooks(loss_class)
    require_own_init(loss_class)
    loss = loss_class(**given)
    require_few_words(loss_class.__name__, loss.parameters, loss_class.OF_EVERY_CLASS)
    defaults = loss_class.default_parameters()
    changed = {k: v for k, v in loss.parameters.items() if k not in defaults or v != defaults[k]}

    track = _track(loss)

    def make() -> Method:
        fresh = find()
        made = fresh(**given)
        if _track(made) != track:
            raise MethodError(f"{name} was of track {track} when it was loaded, and is not any more.")
        return LossAlone(made) if isinstance(made, Loss) else made

    suffix = ",".join(f"{k}={_exact(v)}" for k, v in sorted(changed.items()))
    return Contestant(
        name=f"{name}:{suffix}" if suffix else name,
        id=_directory_name(f"{slug}-{suffix}" if suffix else slug),
        spec=spec,
        loss=target,
        description=inspect.cleandoc(vars(loss_class).get("__doc__") or ""),
        parameters=loss.parameters,
        source_sha256=found.sha256,
        real_data=slug == CONTROL,
        track=track,
        make=make,
    )


def _track(loss: Loss | Method) -> Track:
    """The method's own track if it is the open one, else that of its loss."""
    from collapsebench.losses import Declared, Loss

    if not isinstance(loss, Loss):
        return loss.track if loss.track == "open" else _track(loss.make_loss())
    return cast("Track", Declared.of(loss).track)


def _exact(value: Any) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def _directory_name(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.=,+-]", "_", text)
    if safe == text and len(text) <= 120:
        return text
    return f"{safe[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"  # a cut name alone might not be unique


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise MethodError(f"{path}: no such file. A method is {FORMS}.")
    if path.suffix != ".py":
        raise MethodError(f"{path} is not a .py file. A method is {FORMS}.")


def _class_in(path: Path, class_name: str | None) -> _Found:
    _require_file(path)
    resolved, source = path.resolve(), path.read_bytes()

    def find() -> Class:
        if resolved in _executing:
            raise MethodError(
                f"{path} names itself while it is executed: put the loss into a file of its own, or what runs it below "
                "`if __name__ == '__main__':`."
            )
        _executing.append(resolved)
        try:
            module = execute_afresh(resolved, source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise MethodError(f"{path} does not import: {_one_line(error)}.") from error
        finally:
            _executing.remove(resolved)
        return _class_of(module, class_name, str(path))

    identity = digest_with_neighbours(resolved, source)
    return _Found(find(), hashlib.sha256(source).hexdigest(), identity, find)


def _class_in_package(place: str, class_name: str) -> _Found:
    """A class of an installed module. The module is imported once per process, so its state persists."""
    module = _import(place)
    found = _class_of(module, class_name, place)
    named = getattr(module, "__file__", None)
    if named is None:
        return _Found(found, "", "", lambda: found)
    file = Path(named)
    identity = digest_of_module(module, file)
    if has_changed(module, found, file, identity):
        raise MethodError(
            f"{file}, or what it imports from beside it, has changed since this process imported it, and Python keeps "
            f"what it imported: restart it (a notebook: its kernel), or write {file}:{class_name}, which is read anew."
        )
    return _Found(found, hashlib.sha256(file.read_bytes()).hexdigest(), identity, lambda: found)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise MethodError(f"{name} does not import: {_one_line(error)}. A method is {FORMS}.") from error


def _class_of(module: ModuleType, class_name: str | None, place: str) -> Class:
    from collapsebench.hooks import Method
    from collapsebench.losses import Loss

    classes = {n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, Loss | Method)}
    own = {n: c for n, c in classes.items() if c not in (Loss, Method)}
    if class_name is None:
        defined = [n for n, c in own.items() if c.__module__ == module.__name__]
        if len(defined) != 1:
            raise MethodError(f"{place} must define one Loss class; it defines {', '.join(defined) or 'none'}.")
        (class_name,) = defined
    found = getattr(module, class_name, None)
    if found is None:
        raise MethodError(f"{place} has no {class_name!r}; Loss classes in it: {', '.join(own) or 'none'}.")
    if class_name not in own:
        raise MethodError(
            f"{place}:{class_name} is not a Loss: derive it from collapsebench.Loss and define "
            "elementwise(self, e); or from collapsebench.Method. Loss classes in it: "
            + (", ".join(own) or "none")
            + "."
        )
    return own[class_name]


def _one_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    if isinstance(error, UserError):
        return str(error).removesuffix(".")
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

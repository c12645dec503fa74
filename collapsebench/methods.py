"""From the name of a method to its loss: ``tce:gamma=0.8``, ``my_loss.py:MyLoss``, ``my_package.losses:MyLoss``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from collapsebench.errors import MethodError, UserError
from collapsebench.paths import bundled

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


@dataclass(frozen=True)
class Contestant:
    """A method, resolved: what is trained with, and what identifies it on disk.

    Attributes:
        name: what tables show, e.g. ``tce:gamma=0.8`` or ``MyLoss``.
        id: directory name; contains a digest of the source unless the method is registered.
        spec: the text that loads it again in another process; None for a class that only lives in this one.
        loss: the class, named without parameters and without this machine's folders: ``tce``, ``my_loss.py:MyLoss``,
            ``my_package.losses:MyLoss``; None as for `spec`.
        description: docstring of the class; empty when it has none of its own.
        parameters: all parameters of the class, defaults included.
        source_sha256: digest of the file (or class) that defines it.
        real_data: True for the control: every generation trains on real data.
        track: ``loss``, ``provenance`` or ``open``; ranked apart.
        make: makes a fresh method, a loss with or without hooks; called once per generation.
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


def registered_methods() -> dict[str, Path]:
    """Registered baselines by name: every folder of ``baselines/`` with a ``loss.py``."""
    return {path.parent.name: path for path in sorted(bundled("baselines").glob("*/loss.py"))}


def load_method(spec: AnyMethod, kind: str = "text") -> Contestant:
    """Resolve what a user may write for a method, and check its loss on known values.

    Args:
        spec: a name, path or import path with parameters; or an object or class of `Loss` or `Method`.
        kind: of the workload that it will train; matters for losses that look at predictions and targets.

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
    check_loss(method.make_loss(), kind)
    return method


def load_method_with(target: str, parameters: dict[str, Any], kind: str) -> Contestant:
    """Load a method by the name of its loss and parameters that have their types already. Imports its code.

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
    """A method from its text; parameters that are `given` are not looked for in it."""
    target, parameters = _split(spec) if given is None else (spec, given)
    if target == CONTROL:
        if parameters:
            raise MethodError("control takes no parameters: it is ce on real data in every generation.")
        loss_class, source = _class_in(registered_methods()["ce"], None)
        return _method(CONTROL, CONTROL, spec, CONTROL, loss_class, {}, source)
    registered = registered_methods()
    if target in registered:
        loss_class, source = _class_in(registered[target], None)
        return _method(target, target, spec, target, loss_class, parameters, source)
    if ":" not in target and target.endswith(".py"):
        raise MethodError(f"{target!r} names a file but no class; write {target}:ClassName.")
    if ":" not in target:
        return _from_entry_point(target, spec, parameters)
    place, class_name = target.rsplit(":", 1)
    if place.endswith(".py") or "/" in place:
        path = Path(place).expanduser()
        loss_class, source = _class_in(path, class_name)
        spec = f"{path.resolve()}:{class_name}" + spec.removeprefix(target)
        target = f"{path.name}:{class_name}"
    else:
        loss_class, source = _class_of(_import(place), class_name, place)
    return _method(class_name, f"{class_name}-{source[:8]}", spec, target, loss_class, parameters, source)


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
    found = entry_points(group=ENTRY_POINT_GROUP, name=name)
    if not found:
        known = ", ".join([*registered_methods(), CONTROL, *(e.name for e in entry_points(group=ENTRY_POINT_GROUP))])
        raise MethodError(f"unknown method {name!r}. Known: {known}. A method is {FORMS}.")
    if len(found) > 1:
        raise MethodError(f"method {name!r} is offered by several installed packages: {[e.value for e in found]}.")
    (entry,) = found
    loss_class, source = _class_of(_import(entry.module), entry.attr, entry.module)
    return _method(name, f"{name}-{source[:8]}", spec, f"{entry.module}:{entry.attr}", loss_class, parameters, source)


def _from_object(loss: Loss | Method | Class) -> Contestant:
    loss_class: Class = loss if isinstance(loss, type) else type(loss)
    parameters = {} if isinstance(loss, type) else loss.parameters
    try:
        text = inspect.getsource(loss_class)
    except (OSError, TypeError):
        text = loss_class.__qualname__
    source = hashlib.sha256(text.encode()).hexdigest()
    name = loss_class.__name__
    changed = {k: v for k, v in parameters.items() if v != loss_class.default_parameters().get(k)}
    return _method(name, f"{name}-{source[:8]}", None, None, loss_class, changed, source)


def _method(
    name: str,
    slug: str,
    spec: str | None,
    target: str | None,
    loss_class: Class,
    given: dict[str, Any],
    source: str,
) -> Contestant:
    from collapsebench.hooks import LossAlone, Method, check_hooks
    from collapsebench.losses import Loss

    if issubclass(loss_class, Method):
        check_hooks(loss_class)
    loss = loss_class(**given)
    defaults = loss_class.default_parameters()
    changed = {k: v for k, v in loss.parameters.items() if k not in defaults or v != defaults[k]}
    suffix = ",".join(f"{k}={_exact(v)}" for k, v in sorted(changed.items()))
    return Contestant(
        name=f"{name}:{suffix}" if suffix else name,
        id=_directory_name(f"{slug}-{suffix}" if suffix else slug),
        spec=spec,
        loss=target,
        description=inspect.cleandoc(vars(loss_class).get("__doc__") or ""),
        parameters=loss.parameters,
        source_sha256=source,
        real_data=slug == CONTROL,
        track=_track(loss),
        make=lambda: LossAlone(loss_class(**given)) if issubclass(loss_class, Loss) else loss_class(**given),
    )


def _track(loss: Loss | Method) -> Track:
    """A method's own track where that is the open one, else its loss's."""
    from collapsebench.losses import Loss

    return loss.track if isinstance(loss, Loss) or loss.track == "open" else loss.make_loss().track


def _exact(value: Any) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def _directory_name(text: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9_.=,+-]", "_", text)
    if safe == text and len(text) <= 120:
        return text
    return f"{safe[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"  # what was cut still tells methods apart


def _class_in(path: Path, class_name: str | None) -> tuple[Class, str]:
    if not path.is_file():
        raise MethodError(f"{path}: no such file. A method is {FORMS}.")
    if path.suffix != ".py":
        raise MethodError(f"{path} is not a .py file. A method is {FORMS}.")
    resolved = path.resolve()
    source = hashlib.sha256(path.read_bytes()).hexdigest()
    # The same file in two folders is two modules: what lies beside it may differ.
    module_name = f"_collapsebench_method_{hashlib.sha256(f'{resolved} {source}'.encode()).hexdigest()[:16]}"
    if module_name not in sys.modules:
        folder = str(resolved.parent)
        # Loaded like a package, so that a loss may import what lies beside it: `from .beside import x`.
        module_spec = importlib.util.spec_from_file_location(module_name, resolved, submodule_search_locations=[folder])
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules[module_name] = module
        sys.path.insert(0, folder)  # … or `import beside`
        try:
            module_spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            if isinstance(error, KeyboardInterrupt):
                raise
            raise MethodError(f"{path} does not import: {_one_line(error)}.") from error
        finally:
            sys.path.remove(folder)
    loss_class, _ = _class_of(sys.modules[module_name], class_name, str(path))
    return loss_class, source


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise MethodError(f"{name} does not import: {_one_line(error)}. A method is {FORMS}.") from error


def _class_of(module: ModuleType, class_name: str | None, place: str) -> tuple[Class, str]:
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
    file = getattr(module, "__file__", None)
    return own[class_name], hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _one_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    if isinstance(error, UserError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

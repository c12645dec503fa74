"""Classes whose annotated attributes are their parameters: typed, validated, and named in what a method is called."""

from __future__ import annotations

from typing import Any, ClassVar, dataclass_transform, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from collapsebench.errors import UserError


@dataclass_transform(kw_only_default=True)
class Parametrised:
    """Takes its annotated class attributes as keyword arguments; strings are converted to their types.

    Raises:
        UserError: a parameter is unknown, missing or of the wrong type; all of them are told.
    """

    _LAST: ClassVar[tuple[str, ...]] = ()  # parameters that every class of a kind has, named after its own

    def __init__(self, **parameters: Any) -> None:
        allowed = self.parameter_types()
        defaults = self.default_parameters()
        problems = [
            f"unknown parameter {name!r}; {type(self).__name__} has {', '.join(allowed) or 'none'}"
            for name in parameters
            if name not in allowed
        ]
        for name, annotation in allowed.items():
            if name not in parameters:
                if name not in defaults:
                    problems.append(f"parameter {name!r} has no default and was not given")
                continue
            try:
                adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
                setattr(self, name, adapter.validate_python(parameters[name]))
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                problems.append(f"parameter {name}={parameters[name]!r}: {reason}")
        if problems:
            raise UserError(f"{type(self).__name__}: " + "; ".join(problems) + ".")
        self.check_parameters()

    @classmethod
    def parameter_types(cls) -> dict[str, Any]:
        """Parameter names and their annotations, in order of definition, the class's own first."""
        hints = get_type_hints(cls, include_extras=True)
        own = {n: t for n, t in hints.items() if get_origin(t) is not ClassVar and t is not ClassVar}
        last = {n: own.pop(n) for n in cls._LAST}
        return {n: t for n, t in own.items() if not n.startswith("_")} | last

    @classmethod
    def default_parameters(cls) -> dict[str, Any]:
        """Defaults of those parameters that have one."""
        return {n: getattr(cls, n) for n in cls.parameter_types() if hasattr(cls, n)}

    @property
    def parameters(self) -> dict[str, Any]:
        """This object's parameter values."""
        return {name: getattr(self, name) for name in self.parameter_types()}

    def check_parameters(self) -> None:
        """Raise `UserError` for values that have the right type but make no sense; override when needed."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.parameters.items() if v != self.default_parameters().get(k))
        return f"{type(self).__name__}({shown})"

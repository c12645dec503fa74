"""Classes whose annotated attributes are their parameters: typed, validated, and part of a method's name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, dataclass_transform, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from collapsebench.errors import UserError

MOST_PARAMETERS = 8
LONGEST_WORD = 40  # characters


@dataclass_transform(kw_only_default=True)
class Parametrised:
    """Takes its annotated class attributes as keyword arguments; strings are converted to their types.

    Raises:
        UserError: a parameter is unknown, missing or of the wrong type; all problems are listed.
    """

    OF_EVERY_CLASS: ClassVar[tuple[str, ...]] = ()  # parameters that every class of a kind has, named after its own

    def __init__(self, **parameters: Any) -> None:
        allowed = self.parameter_types()
        defaults = self.default_parameters()
        problems = [
            f"unknown parameter {name!r}; {type(self).__name__} has {', '.join(allowed) or 'none'}"
            + did_you_mean(name, allowed)
            for name in parameters
            if name not in allowed
        ]
        problems += self._without_annotation(allowed)
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
        try:
            self.check_parameters()
        except UserError:
            raise
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise UserError(f"{type(self).__name__}.check_parameters failed with these parameters: {told}.") from error

    @classmethod
    def parameter_types(cls) -> dict[str, Any]:
        """Parameter names and their annotations, in order of definition, the class's own first."""
        try:
            hints = get_type_hints(cls, include_extras=True)
        except NameError as error:
            raise UserError(f"{cls.__name__}: an annotation cannot be read: {error}.") from error
        own = {n: t for n, t in hints.items() if get_origin(t) is not ClassVar and t is not ClassVar}
        last = {n: own.pop(n) for n in cls.OF_EVERY_CLASS}
        return {n: t for n, t in own.items() if not n.startswith("_")} | last

    @classmethod
    def default_parameters(cls) -> dict[str, Any]:
        """Defaults of those parameters that have one."""
        return {n: getattr(cls, n) for n in cls.parameter_types() if hasattr(cls, n)}

    @classmethod
    def _without_annotation(cls, allowed: Collection[str]) -> list[str]:
        """Attributes that look like parameters but are not: numbers and words that no class annotates."""
        annotated = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
        found = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
        return [
            f"{name} = {value!r} has no annotation, so it is not a parameter; write `{name}: {type(value).__name__} = "
            f"{value!r}`, or `{name}: ClassVar = {value!r}` for a constant"
            for name, value in found.items()
            if isinstance(value, int | float | str) and not name.startswith("_")
            if name not in annotated and name not in allowed
        ]

    @property
    def parameters(self) -> dict[str, Any]:
        """This object's parameter values."""
        return {name: getattr(self, name) for name in self.parameter_types()}

    def check_parameters(self) -> None:
        """Raise `UserError` for values that have the right type but make no sense; override when needed."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.parameters.items() if v != self.default_parameters().get(k))
        return f"{type(self).__name__}({shown})"


def require_own_init(made: type[Parametrised]) -> None:
    """Refuse a class whose ``__init__`` names parameters: the harness sets only annotated ones.

    Raises:
        UserError: it does.
    """
    init = made.__init__
    if init is Parametrised.__init__:
        return
    named = [p.name for p in list(inspect.signature(init).parameters.values())[1:] if p.kind != p.VAR_KEYWORD]
    passes_on = any(p.kind == p.VAR_KEYWORD for p in inspect.signature(init).parameters.values())
    if named or not passes_on:
        shown = ", ".join(["self", *named])
        raise UserError(
            f"{made.__name__} defines __init__({shown}), but parameters are annotated class attributes, which are set "
            f"without it: write `{named[0] if named else 'gamma'}: float = 0.5` in the class body, and leave __init__ "
            "out. What is computed from them goes into check_parameters(self), which is called when all are set."
        )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A suggestion to append to an error about a misspelt name; empty if nothing is similar."""
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def require_few_words(name: str, parameters: Mapping[str, Any], uncounted: Collection[str] = ()) -> None:
    """Refuse parameters that could hold a table: a method may have only a few numbers and short words.

    Args:
        name: of the class. parameters: by name. uncounted: those that every class has.

    Raises:
        UserError: there are more than `MOST_PARAMETERS`, or one is neither a number, a bool, None nor a short word.
    """
    own = [key for key in parameters if key not in uncounted]
    problems = [f"{len(own)} parameters ({', '.join(own)})"] if len(own) > MOST_PARAMETERS else []
    problems += [f"{key}={_shortened(value)}" for key, value in parameters.items() if not _is_small(value)]
    if problems:
        raise UserError(
            f"{name} has {'; '.join(problems)}. A method may have at most {MOST_PARAMETERS} parameters, each a finite "
            f"number, True, False, None or a word of at most {LONGEST_WORD} characters: no lists or tables. Compute "
            "what it needs from these."
        )


def _is_small(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) < 2**63  # a longer one is a table in disguise
    if isinstance(value, str):
        return len(value) <= LONGEST_WORD
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _shortened(value: Any) -> str:
    shown = f"an integer of {value.bit_length()} bits" if isinstance(value, int) else repr(value)
    return shown if len(shown) <= LONGEST_WORD else f"{shown[:LONGEST_WORD]}…"

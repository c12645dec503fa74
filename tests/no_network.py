"""Stand-ins for what opens a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def forbidden(*_: Any, **__: Any) -> Any:
    """For tests that must not use the network."""
    raise AssertionError("a test opened a network connection")


def raising(error: BaseException) -> Callable[..., Any]:
    """A network that always fails like this."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail

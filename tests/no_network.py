"""Stand-ins for what opens a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from collapsebench.data import web_files


def closed_network(monkeypatch: pytest.MonkeyPatch, hub_cache: Path) -> Iterator[None]:
    """For a fixture: an empty cache of the hub, and a network that fails the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(web_files, "urlopen", forbidden)
    web_files._silence.cache_clear()
    yield
    web_files._silence.cache_clear()


def forbidden(*_: Any, **__: Any) -> Any:
    """For tests that must not use the network."""
    raise AssertionError("a test opened a network connection")


def raising(error: BaseException) -> Callable[..., Any]:
    """A network that always fails like this."""

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail

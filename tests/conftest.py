"""What all tests share: a cache of their own, the tiny task, and property tests without chance or clock."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from tiny_task import write_tiny_task

# The same examples every time, and no deadline: the machine may be busy.
settings.register_profile("collapsebench", deadline=None, derandomize=True)
settings.load_profile("collapsebench")

# Before anything is imported, so that the processes which tests start inherit it.
_CACHE = tempfile.TemporaryDirectory(prefix="collapsebench-test-cache-")
os.environ["COLLAPSEBENCH_CACHE"] = _CACHE.name
os.environ["TOKENIZERS_PARALLELISM"] = "false"
_TESTS = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(_TESTS.parent), str(_TESTS), os.environ.get("PYTHONPATH", "")])
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


@pytest.fixture(scope="session", autouse=True)
def _cache() -> Iterator[None]:
    yield
    _CACHE.cleanup()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file of the tiny task; not to be changed."""
    return write_tiny_task(tmp_path_factory.mktemp("tiny"))

"""What all tests share: a cache of their own, tiny tasks of every kind, property tests without chance or clock."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tiny_task import KINDS, write_tiny_task

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

# A chain of three short generations. Images are sampled in three batches, and denoised in two steps.
_SHORT: dict[str, Any] = {
    "horizon": 2,
    "workload.training.first.updates": 6,
    "workload.training.later.updates": 4,
}
_SHORT_SAMPLING: dict[str, dict[str, Any]] = {
    "text": {},
    "vae": {"workload.sampler.batch_size": 16},
    "diffusion": {"workload.sampler": {"batch_size": 16}, "workload.schedule.sample_steps": 2},
    "gmm": {},
    "markov": {},
}


@pytest.fixture(scope="session", autouse=True)
def _cache() -> Iterator[None]:
    yield
    _CACHE.cleanup()


@pytest.fixture(scope="module", autouse=True)
def _modules_are_never_garbage() -> None:
    """Spare every collection the search through what the libraries have loaded: 0.3 s, and accelerate asks for many."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file of the tiny text task; not to be changed."""
    return write_tiny_task(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Every kind of workload in turn."""
    return request.param


def _short(kind: str) -> dict[str, Any]:
    if kind == "pretrained-lm":  # trains in epochs over what the policy gives
        return {"horizon": 2, "policy.size": 48, "workload.sampler.method": "draw"}
    return _SHORT | _SHORT_SAMPLING[kind]


@pytest.fixture(scope="module")
def short(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The task file of a tiny task of this kind with a few updates per generation; not to be changed."""
    return write_tiny_task(tmp_path_factory.mktemp(f"short-{kind}"), kind, **_short(kind))


@pytest.fixture
def short_variant(kind: str, tmp_path: Path) -> Callable[..., Path]:
    """Write the short task of this kind with changes."""
    return lambda **changes: write_tiny_task(tmp_path / "task", kind, **(_short(kind) | changes))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread: on a busy machine, threads of small products mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

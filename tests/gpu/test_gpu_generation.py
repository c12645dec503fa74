"""A generation on the GPU: what the processor gives within rounding, the same bytes every time, the same draws."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import needed  # noqa: F401  it skips this module where a package is missing
import pytest
import torch
from gpu_cases import CASES, Case
from safetensors.torch import load_file
from tiny_task import results
from torch import Tensor

from collapsebench.api import run
from collapsebench.running import training
from collapsebench.seeding import Randomness
from collapsebench.task import load_task

pytestmark = pytest.mark.gpu

PATIENCE = 300  # seconds after which a process that should have ended is a failure
LAST = 1

# Forked from one that has torch imported and has not touched the device: a process that has must not be forked.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["collapsebench.running.training", "collapsebench.workloads.text.workload"])


class Tolerance(NamedTuple):
    """How far a generation may be from the processor's in float32.

    Attributes:
        loss: of each update, relative. metric: relative, or `share` if that is more: shares of a few dozen samples go
            in steps. samples: mean distance, as `distance` has it.
    """

    loss: float
    metric: float
    share: float
    samples: float


# A sum of a thousand numbers is off by 1e-6 in float32, 1e-3 in TF32 (10 bits) and 1e-2 in bfloat16 (7 bits), and
# updates carry it on. A token that is drawn otherwise changes the rest of its window.
TOLERANCES = {
    "float32": Tolerance(1e-3, 5e-3, 0.02, 0.01),
    "tf32": Tolerance(2e-2, 0.05, 0.1, 0.3),
    "bfloat16": Tolerance(5e-2, 0.1, 0.15, 0.9),
}


@contextmanager
def rounding(precision: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Products in float32 or TF32, or forward passes under autocast where the task's own precision is bfloat16."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if precision == "bfloat16":  # also on a processor, which else trains in float32
        from collapsebench.workloads.pretrained import accelerated  # needs accelerate, which may be absent

        monkeypatch.setattr(accelerated, "HALF_PRECISION_ON", ("cuda", "cpu"))
    yield


@dataclass(frozen=True)
class Seen:
    """A run, and what it drew: the state in which every named generator ended, and the devices of all of them.

    Attributes:
        untouched: no GPU's own random state was used. (The processor's is, for weights that are then overwritten.)
    """

    path: Path
    drawn: dict[tuple[int, str], Tensor]
    devices: set[str]
    untouched: bool


def seen_run(task: Path, out: Path, device: str, **options: Any) -> Seen:
    """Run on a device and look at its generators."""
    kept: dict[tuple[int, str], torch.Generator] = {}
    generator = Randomness.generator

    def spy(self: Randomness, generation: int, purpose: str) -> torch.Generator:
        return kept.setdefault((generation, purpose), generator(self, generation, purpose))

    before = _gpu_random_states()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Randomness, "generator", spy)
        path = run(task, "ce", out=out, device=device, **options)
    untouched = all(torch.equal(a, b) for a, b in zip(before, _gpu_random_states(), strict=True))
    drawn = {name: found.get_state() for name, found in kept.items()}
    return Seen(path, drawn, {found.device.type for found in kept.values()}, untouched)


def _gpu_random_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    if found.missing:
        pytest.skip(f"{found} needs {', '.join(found.missing)}")
    return found


@pytest.fixture(scope="module")
def task(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.write(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def on_processor(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Generation 0 in float32 on the processor."""
    return seen_run(task, tmp_path_factory.mktemp("processor"), "cpu", generations=0)


@pytest.fixture(scope="module")
def on_device(task: Path, device: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Generation 0 in float32 on the device."""
    return seen_run(task, tmp_path_factory.mktemp("device"), device, generations=0)


def numbers(path: Path) -> tuple[list[float], dict[str, float], Tensor]:
    """Losses, metrics and samples of generation 0."""
    folder = path / "gen-0"
    losses = json.loads((folder / "training.json").read_text())["loss"]
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    samples = load_file(folder / "samples.safetensors")["items"]
    return losses, {name: m["value"] for name, m in metrics.items()}, samples


def distance(a: Tensor, b: Tensor) -> float:
    """The share of items that differ, of tokens and states; of pixels and points the mean distance over their range."""
    if a.dtype in (torch.int32, torch.int64):
        return float((a != b).double().mean())
    return float((a.double() - b.double()).abs().mean() / (a.double().max() - a.double().min()))


def disagreements(a: Path, b: Path, tolerance: Tolerance) -> list[str]:
    """The quantities in which two generations differ by more than the tolerance."""
    (losses, metrics, samples), (losses_b, metrics_b, samples_b) = numbers(a), numbers(b)
    assert metrics.keys() == metrics_b.keys()
    found = [
        f"loss of update {i}: {x:g}, {y:g}"
        for i, (x, y) in enumerate(zip(losses, losses_b, strict=True))
        if not math.isclose(x, y, rel_tol=tolerance.loss, abs_tol=1e-6)
    ]
    found += [
        f"{name}: {x:g}, {metrics_b[name]:g}"
        for name, x in metrics.items()
        if not math.isclose(x, metrics_b[name], rel_tol=tolerance.metric, abs_tol=tolerance.share)
    ]
    apart = distance(samples, samples_b)
    return found + ([f"samples {apart:.3f} apart"] if apart > tolerance.samples else [])


def test_float32_agrees_with_the_processor(on_processor: Seen, on_device: Seen) -> None:
    assert disagreements(on_processor.path, on_device.path, TOLERANCES["float32"]) == []


def test_another_seed_does_not_agree(task: Path, on_processor: Seen, device: str, tmp_path: Path) -> None:
    """The tolerances tell one chain from another; of a mixture, which has no products that TF32 rounds, the strict."""
    other = run(task, "ce", seed=1, out=tmp_path, device=device, generations=0)
    precision = "float32" if load_task(task).spec.workload.kind == "gmm" else "tf32"
    assert disagreements(on_processor.path, other, TOLERANCES[precision])


def test_tf32_agrees_with_the_processor(
    task: Path, on_processor: Seen, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rounding("tf32", monkeypatch):
        path = run(task, "ce", out=tmp_path, device=device, generations=0)
    assert disagreements(on_processor.path, path, TOLERANCES["tf32"]) == []
    assert "matrix products high" in (path / "run.json").read_text()


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "pretrained-lm"], ids=str, indirect=True)
def test_bfloat16_agrees_with_the_processor_and_differs_from_float32(
    case: Case, on_processor: Seen, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = case.write(tmp_path / "task", **{"workload.training.precision": "bf16"})
    with rounding("bfloat16", monkeypatch):
        path = run(half, "ce", out=tmp_path, device=device, generations=0)
    assert disagreements(on_processor.path, path, TOLERANCES["bfloat16"]) == []
    assert numbers(path)[0] != numbers(on_processor.path)[0]


def test_noise_comes_from_the_processor_and_is_the_same_on_both(
    case: Case, on_processor: Seen, on_device: Seen
) -> None:
    assert on_device.devices == {"cpu"}
    named = set(on_device.drawn)
    assert named == set(on_processor.drawn)
    assert (0, "order") in named
    assert ((0, "sampling") in named) == (case.variant != "beams")  # a beam search draws nothing
    for name, state in on_processor.drawn.items():  # generators of one name in one state have drawn the same numbers
        assert torch.equal(state, on_device.drawn[name]), name
    assert on_device.untouched


# --- the same bytes


@pytest.fixture(scope="module")
def uninterrupted(task: Path, device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generations 0 and 1 on the device, with a loss that masks."""
    return run(task, "tce", out=tmp_path_factory.mktemp("uninterrupted"), device=device, generations=LAST)


def test_the_same_command_twice_gives_the_same_bytes(
    task: Path, uninterrupted: Path, device: str, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    torch.rand(7, device=device)
    assert results(run(task, "tce", out=tmp_path, device=device, generations=LAST)) == results(uninterrupted)


def die_in_training(task: str, out: str, device: str) -> None:
    """Run until the second update of generation 1, then kill the process."""
    original: Callable[..., Tensor] = training.method_loss

    def dying(loss: Any, seen: Any, batch: Any, clock: training.Clock) -> Tensor:
        if (clock.generation, clock.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(loss, seen, batch, clock)

    training.method_loss = dying
    run(task, "tce", out=out, device=device, generations=LAST)


def test_killed_in_another_process_and_resumed_gives_the_same_bytes(
    task: Path, uninterrupted: Path, device: str, tmp_path: Path
) -> None:
    process = _PROCESSES.Process(target=die_in_training, args=(str(task), str(tmp_path), device))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    (path,) = tmp_path.glob("*/tce/seed-0")
    assert not (path / "gen-1").exists()
    run(task, "tce", out=tmp_path, device=device, generations=LAST)
    assert results(path) == results(uninterrupted)

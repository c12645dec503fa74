"""The recursion for every kind of workload: the same bytes every time, however often it was killed; every policy."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command import PATIENCE, Command, start
from damage import flip_bit
from diffusers import DDIMScheduler
from safetensors.torch import load_file
from tiny_task import MICRO_BATCHES, SHORT_UPDATES, results
from torch import Tensor

from collapsebench.api import run
from collapsebench.methods import load_method
from collapsebench.policies import REAL, TrainingSet
from collapsebench.running import artifacts, loop, training
from collapsebench.running.artifacts import MARKER, RunDirectory
from collapsebench.running.cells import Cell
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.images import diffusion, vae
from collapsebench.workloads.images import metrics as image_metrics
from collapsebench.workloads.markov import workload as markov
from collapsebench.workloads.mixture import workload as gmm
from collapsebench.workloads.pretrained import sampling as stream_sampling
from collapsebench.workloads.pretrained import workload as pretrained
from collapsebench.workloads.text import sampling as text_sampling
from collapsebench.workloads.text import workload as text

LAST = 2
WORKLOADS: dict[str, Any] = {
    "text": text.TextWorkload,
    "pretrained-lm": pretrained.PretrainedWorkload,
    "vae": vae.VaeWorkload,
    "diffusion": diffusion.DiffusionWorkload,
    "gmm": gmm.GmmWorkload,
    "markov": markov.MarkovWorkload,
}
SHOWN = {
    "text": "samples.json",
    "pretrained-lm": "samples.json",
    "vae": "samples.png",
    "diffusion": "samples.png",
    "gmm": "density.json",
    "markov": "samples.json",
}
NUMBERS = ("metrics.json", "training.json", "samples.safetensors", "model.safetensors")
FRACTION = 16  # windows of real data that are new to each generation of the short pretrained-lm task


@pytest.fixture(scope="module")
def uninterrupted(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain of the short task; not to be changed."""
    return run(short, "ce", out=tmp_path_factory.mktemp("uninterrupted"), device="cpu")


@pytest.fixture
def copied(uninterrupted: Path, tmp_path: Path) -> Path:
    """A copy of the finished chain, below `tmp_path`."""
    path = tmp_path / uninterrupted.relative_to(uninterrupted.parents[2])
    shutil.copytree(uninterrupted, path)
    return path


def metrics(path: Path, g: int) -> dict[str, Any]:
    return json.loads((path / f"gen-{g}" / "metrics.json").read_text())


def states(path: Path) -> list[str]:
    return [RunDirectory(path).state(g) for g in range(LAST + 1)]


# The same bytes


def test_same_command_twice_gives_the_same_bytes(kind: str, short: Path, uninterrupted: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # global random state does not matter
    torch.rand(7)
    again = results(run(short, "ce", out=tmp_path, device="cpu"))
    assert again == results(uninterrupted)
    assert set(again) == {f"gen-{g}/{name}" for g in range(LAST + 1) for name in (*NUMBERS, SHOWN[kind], MARKER)}


def test_other_seed_gives_other_results(kind: str, short: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other = run(short, "ce", seed=1, out=tmp_path, generations=0, device="cpu")
    for name in NUMBERS:
        assert (other / "gen-0" / name).read_bytes() != (uninterrupted / "gen-0" / name).read_bytes()


def test_generations_differ_from_each_other(kind: str, uninterrupted: Path) -> None:
    for name in (*NUMBERS, SHOWN[kind]):
        assert len({(uninterrupted / f"gen-{g}" / name).read_bytes() for g in range(LAST + 1)}) == LAST + 1


def test_longer_chain_goes_on_where_the_shorter_one_stopped(short: Path, uninterrupted: Path, tmp_path: Path) -> None:
    path = run(short, "ce", out=tmp_path, generations=0, device="cpu")
    events = []
    run(short, "ce", out=tmp_path, device="cpu", listener=events.append)
    assert [e.generation for e in events if e.phase == "reused"] == [0]
    assert [e.generation for e in events if e.phase == "complete"] == [1, 2]
    assert results(path) == results(uninterrupted)


def test_two_processes_at_once_leave_what_one_leaves(short: Path, uninterrupted: Path, tmp_path: Path) -> None:
    arguments = ["run", str(short), "--method", "ce", "--out", str(tmp_path / "runs"), "--device", "cpu"]
    both = [Command(arguments, tmp_path) for _ in range(2)]
    ended = [command.finished() for command in both]
    assert 0 in {e.code for e in ended}
    for e in ended:
        assert e.code == 0 or "in use by another process" in e.err
    (path,) = (tmp_path / "runs").glob("*/ce/seed-0")
    assert results(path) == results(uninterrupted)


# Killed and resumed


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place: Any, name: str, call: int, after: bool = False) -> None:
    """Make the given call of a function the last thing this process does."""
    original, calls = getattr(place, name), []

    def dying(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) == call and not after:
            die()
        value = original(*arguments, **keywords)
        if len(calls) == call:
            die()
        return value

    setattr(place, name, dying)


def die_half_way(place: Any, name: str, file_of: Callable[..., Path], call: int = 2) -> None:
    """Kill the process in the middle of the given call of a function that writes a file."""
    original, calls = getattr(place, name), []

    def dying(*arguments: Any) -> None:
        original(*arguments)
        calls.append(1)
        if len(calls) == call:
            file = file_of(*arguments)
            os.truncate(file, file.stat().st_size // 2)
            die()

    setattr(place, name, dying)


# Function and its call: between two tokens, two batches, two steps of denoising; points are drawn all at once.
SAMPLING_GENERATION_1: dict[str, tuple[Any, str, int]] = {
    "text": (text_sampling, "draw", 16 + 9),
    "pretrained-lm": (stream_sampling, "draw", 2 * 8 + 8 + 5),  # two batches of chunks in generation 0
    "vae": (vae.VaeWorkload, "_means", 3 + 1 + 2),  # three batches and what is shown, per generation
    "diffusion": (DDIMScheduler, "step", 2 * (1 + 1) + 2),  # two steps of sampling and of what is shown
    "gmm": (gmm, "_draw", 1 + 1 + 1),  # the real data, generation 0, generation 1
    "markov": (markov, "draw", 2 * 9 + 8 + 4),  # the real sequences and the held-out ones, generation 0
}
EVALUATING_GENERATION_1: dict[str, tuple[Any, str, int]] = {
    "text": (text, "continuation_log_probs", 2),
    "pretrained-lm": (pretrained, "answer", 2),
    "vae": (image_metrics, "manifold_metrics", 2),
    "diffusion": (image_metrics, "manifold_metrics", 2),
    "gmm": (gmm, "finite", 2),
    "markov": (markov, "finite", 2),
}
# moment: generations finished by then, and what makes a process die there
MOMENTS: dict[str, tuple[int, Callable[[str], None]]] = {
    "before the first update": (0, lambda kind: die_at(training, "method_loss", 1)),
    "training generation 0": (0, lambda kind: die_at(training, "method_loss", 4)),
    "training generation 2": (
        2,
        lambda kind: die_at(training, "method_loss", MICRO_BATCHES[kind] * (sum(SHORT_UPDATES[kind][:2]) + 1) + 1),
    ),
    "sampling generation 1": (1, lambda kind: die_at(*SAMPLING_GENERATION_1[kind])),
    "evaluating generation 1": (1, lambda kind: die_at(*EVALUATING_GENERATION_1[kind])),
    "half of a model written": (
        1,
        lambda kind: die_half_way(WORKLOADS[kind], "save_model", lambda workload, model, path: path),
    ),
    "half of the samples written": (1, lambda _: die_half_way(loop, "save_file", lambda tensors, path: path)),
    "half of what people look at written": (
        1,
        lambda kind: die_half_way(WORKLOADS[kind], "show", lambda workload, folder, *rest: folder / SHOWN[kind]),
    ),
    "model and samples written, metrics not": (1, lambda _: die_at(loop, "write_json", 3 + 2)),
    "metrics written, times not": (1, lambda _: die_at(loop, "write_json", 3 + 3)),
    "all written but the marker": (1, lambda _: die_at(artifacts, "write_atomically", 3)),
    "marker written, folder not renamed": (1, lambda _: die_at(os, "rename", 2)),
    "folder just renamed": (2, lambda _: die_at(os, "rename", 2, after=True)),
}


# The loop writes, and is the same for all: every moment on one kind, two in which the others have work of their own.
KILLED = [
    (kind, moment)
    for kind in WORKLOADS
    for moment in (MOMENTS if kind == "text" else ("training generation 2", "sampling generation 1"))
]


def run_until(kind: str, task: str, out: str, moment: str) -> None:
    MOMENTS[moment][1](kind)
    run(task, "ce", out=out, device="cpu")


@pytest.mark.parametrize(("kind", "moment"), KILLED, indirect=["kind"], scope="module")
def test_chain_killed_and_resumed_equals_uninterrupted_chain(
    kind: str, short: Path, uninterrupted: Path, tmp_path: Path, moment: str
) -> None:
    process = start(run_until, kind, str(short), str(tmp_path), moment)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    (path,) = tmp_path.glob("*/ce/seed-0")
    finished = MOMENTS[moment][0]
    assert states(path) == ["ok"] * finished + ["missing"] * (LAST + 1 - finished)
    run(short, "ce", out=tmp_path, device="cpu")
    assert results(path) == results(uninterrupted)
    assert not list(path.glob(".gen-*"))


def test_chain_killed_again_and_again_at_any_moment_equals_uninterrupted_chain(
    short: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    draw = random.Random(5)
    delays = [0.0, *(draw.uniform(0.0, 0.15) for _ in range(3))]  # a mixture may be finished before all but the first
    arguments = ["run", str(short), "--method", "ce", "--out", str(tmp_path), "--device", "cpu"]
    killed = 0
    for delay in delays:
        before = time.time()
        command = Command(arguments, tmp_path)
        while command.process.is_alive() and not is_working(tmp_path, since=before):
            time.sleep(0.002)
        command.process.join(delay)
        command.process.kill()
        command.process.join(PATIENCE)
        killed += command.process.exitcode == -signal.SIGKILL
    assert killed
    path = run(short, "ce", out=tmp_path, device="cpu")
    assert results(path) == results(uninterrupted)


def is_working(out: Path, since: float) -> bool:
    """Whether a generation has been started since then."""
    try:
        return any(folder.stat().st_ctime >= since for folder in out.glob("*/ce/seed-0/.gen-*.partial"))
    except FileNotFoundError:  # renamed in between
        return True


@pytest.mark.parametrize("name", [*NUMBERS, "shown", MARKER])
def test_flipped_bits_are_detected_and_the_generations_redone_with_the_same_bytes(
    kind: str, short: Path, uninterrupted: Path, copied: Path, name: str
) -> None:
    name = SHOWN[kind] if name == "shown" else name
    for g in (0, LAST):
        file = copied / f"gen-{g}" / name
        flip_bit(file, file.stat().st_size // 3, 2)
    events = []
    run(short, "ce", out=copied.parents[2], device="cpu", listener=events.append)
    assert [e.generation for e in events if e.phase == "complete"] == [0, LAST]
    assert [e.generation for e in events if e.phase == "reused"] == [1]
    assert results(copied) == results(uninterrupted)


# What is common to all methods


def test_weights_order_and_noise_of_generation_0_are_common_to_all_methods(
    kind: str, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_model, sample = WORKLOADS[kind].new_model, WORKLOADS[kind].sample
    method_loss, generator = training.method_loss, Randomness.generator
    begun: list[Tensor] = []
    batches: list[Tensor] = []
    drawn: dict[tuple[int, str], torch.Generator] = {}

    def spy_model(self: Any, randomness: Randomness) -> Any:
        model = new_model(self, randomness)
        begun.extend(p.detach().clone() for p in model.parameters())
        return model

    def spy_loss(loss: Any, leaves: Any, batch: TrainingSet, clock: Any) -> Tensor:
        batches.append(batch.items.clone())
        return method_loss(loss, leaves, batch, clock)

    def spy_sample(self: Any, model: Any, prompts: Any, *rest: Any) -> Tensor:
        begun.append(prompts.items.clone())
        return sample(self, model, prompts, *rest)

    def spy_generator(self: Randomness, generation: int, purpose: str) -> torch.Generator:
        return drawn.setdefault((generation, purpose), generator(self, generation, purpose))

    monkeypatch.setattr(WORKLOADS[kind], "new_model", spy_model)
    monkeypatch.setattr(WORKLOADS[kind], "sample", spy_sample)
    monkeypatch.setattr(training, "method_loss", spy_loss)
    monkeypatch.setattr(Randomness, "generator", spy_generator)
    seen = {}
    for method in ("ce", "focal", "tce", "control", "tce:gamma=0.5"):
        for kept in (begun, batches, drawn):
            kept.clear()
        run(short, method, out=tmp_path, generations=0, device="cpu")
        # a generator of the same name that ends in the same state has drawn the same numbers
        seen[method] = [*begun, *batches, *(drawn[key].get_state() for key in sorted(drawn))]
        assert begun
        assert len(batches) == SHORT_UPDATES[kind][0] * MICRO_BATCHES[kind]
        assert {(0, "order"), (0, "sampling")} <= drawn.keys()
    for method, tensors in seen.items():
        assert len(tensors) == len(seen["ce"])
        assert all(torch.equal(a, b) for a, b in zip(seen["ce"], tensors, strict=True)), method


# Data and weights of every generation


def chain(task: Path, method: str, out: Path) -> loop.Chain:
    """The chain of a run that is on disk."""
    cell = Cell(load_task(task), load_method(method), 0, out, LAST, "cpu")
    return loop.Chain(cell.task, cell.method, 0, load_workload(cell.task, "cpu"), cell.directory)


POLICIES: dict[str, set[int]] = {  # where generation 2's training items come from
    "replace": {1},
    "accumulate": {REAL, 0, 1},
    "accumulate-subsample": {REAL, 0, 1},
    "mix": {REAL, 1},
    "fresh-mix": {REAL, 1},
    "regenerate-fresh": {REAL, 1},
}
SIZES = {"text": 128, "pretrained-lm": 48, "vae": 48, "gmm": 100, "markov": 64}
ALLOWED = [(kind, name) for kind in SIZES for name in POLICIES if kind != "pretrained-lm" or name == "regenerate-fresh"]


@pytest.mark.parametrize(("kind", "policy"), ALLOWED, scope="module")
def test_two_generations_run_under_every_policy(
    kind: str, short_variant: Callable[..., Path], tmp_path: Path, policy: str
) -> None:
    changes: dict[str, Any] = {"policy.real_share": 0.25} if "mix" in policy else {}
    if kind == "pretrained-lm":  # the other tests draw
        changes["workload.sampler.method"] = "beam"
    task = short_variant(**{"policy.name": policy, "policy.size": SIZES[kind]}, **changes)
    path = run(task, "ce", out=tmp_path, device="cpu")
    assert states(path) == ["ok", "ok", "ok"]
    known = chain(task, "ce", tmp_path)
    second = known.training_set(2)
    assert {int(source) for source in second.made_by} == POLICIES[policy]
    share = metrics(path, 2)["real_share"]
    assert share == pytest.approx(float((second.made_by == REAL).double().mean()))
    if "mix" in policy:
        assert share == 0.25
    if policy not in ("accumulate", "regenerate-fresh"):
        assert len(second) == SIZES[kind]
    if policy == "regenerate-fresh":
        assert len(second) == len(known.workload.real)
    copy = tmp_path / "copy" / path.relative_to(tmp_path)
    shutil.copytree(path, copy)
    for g in (1, 2):
        shutil.rmtree(copy / f"gen-{g}")
    assert results(run(task, "ce", out=tmp_path / "copy", device="cpu")) == results(path)


def test_control_trains_on_real_data_only(kind: str, short: Path, tmp_path: Path) -> None:
    path = run(short, "control", out=tmp_path, device="cpu")
    assert [metrics(path, g)["real_share"] for g in range(LAST + 1)] == [1.0] * (LAST + 1)
    known = chain(short, "control", tmp_path)
    real = {item.numpy().tobytes() for item in known.workload.real.items}
    for g in range(1, LAST + 1):
        data = known.training_set(g)
        assert set(data.made_by.tolist()) == {REAL}
        if kind == "pretrained-lm":  # under regenerate-fresh, the real windows that the others see rewritten
            assert torch.equal(data.items, known.workload.real.items[: FRACTION * (g + 1)])
        else:
            assert len(data) == known.task.spec.policy.size
            assert {item.numpy().tobytes() for item in data.items} <= real


def test_generations_train_on_the_samples_of_the_one_before_and_on_what_their_policy_adds(
    kind: str, short: Path, uninterrupted: Path
) -> None:
    known = chain(short, "ce", uninterrupted.parents[2])
    real = known.workload.real.items
    new = FRACTION if kind == "pretrained-lm" else 0  # the others have policy replace
    for g in range(1, LAST + 1):
        data = known.training_set(g)
        samples = load_file(uninterrupted / f"gen-{g - 1}" / "samples.safetensors")["items"]
        assert torch.equal(data.items, torch.cat([samples, real[new * g : new * (g + 1)]]))
        assert data.items.dtype == samples.dtype == real.dtype
        assert data.made_by.tolist() == [g - 1] * len(samples) + [REAL] * new
        assert len(samples) == (new * g or known.task.spec.policy.size)
    shares = [1.0, 1 / 2, 1 / 3] if kind == "pretrained-lm" else [1.0, 0.0, 0.0]
    assert [metrics(uninterrupted, g)["real_share"] for g in range(LAST + 1)] == shares


@pytest.fixture
def started(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights that each generation's training starts from."""
    weights: list[dict[str, Tensor]] = []
    original = loop.train

    def spy(workload: Any, model: Any, *rest: Any) -> Any:
        weights.append({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})
        return original(workload, model, *rest)

    monkeypatch.setattr(loop, "train", spy)
    return weights


def test_scratch_starts_every_generation_from_the_same_new_weights(
    kind: str, short_variant: Callable[..., Path], tmp_path: Path, started: list[dict[str, Tensor]]
) -> None:
    task = short_variant(init="scratch")
    run(task, "ce", out=tmp_path, device="cpu")
    assert len(started) == LAST + 1
    for later in started[1:]:
        assert all(torch.equal(started[0][name], tensor) for name, tensor in later.items())
    if kind == "pretrained-lm":  # "new" are the pretrained ones, whatever the seed
        run(task, "ce", seed=1, out=tmp_path, generations=0, device="cpu")
        given = load_file(task.parent / "model" / "model.safetensors")
        for weights in (started[0], started[-1]):
            assert all(torch.equal(weights[name], tensor) for name, tensor in given.items())


def test_previous_starts_from_the_weights_that_the_last_generation_ended_with(
    short: Path, tmp_path: Path, started: list[dict[str, Tensor]]
) -> None:
    path = run(short, "ce", out=tmp_path, generations=1, device="cpu")
    saved = load_file(path / "gen-0" / "model.safetensors")
    assert all(torch.equal(started[1][name], tensor) for name, tensor in saved.items())
    assert not all(torch.equal(started[0][name], tensor) for name, tensor in saved.items())

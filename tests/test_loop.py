"""The recursion: the same bytes every time, however often it was killed; what is common to methods; every policy."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from command import PATIENCE, Command, start
from safetensors.torch import load_file
from test_artifacts import flip_bit
from tiny_task import results, write_tiny_task
from torch import Tensor

from collapsebench import artifacts, loop
from collapsebench.api import run
from collapsebench.artifacts import MARKER, RunDirectory
from collapsebench.engines import Cell
from collapsebench.errors import DataError, LossError
from collapsebench.losses import Elements, Loss
from collapsebench.methods import load_method
from collapsebench.policies import REAL
from collapsebench.scoring.comparison import read_comparison
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload, text, text_sampling

LAST = 3


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain of the tiny task."""
    return run(tiny, "ce", out=tmp_path_factory.mktemp("uninterrupted"), device="cpu")


def metrics(path: Path, g: int) -> dict[str, Any]:
    return json.loads((path / f"gen-{g}" / "metrics.json").read_text())


def samples(path: Path, g: int) -> Tensor:
    return load_file(path / f"gen-{g}" / "samples.safetensors")["items"]


# The same bytes


def test_same_command_twice_gives_the_same_bytes(tiny: Path, uninterrupted: Path, tmp_path: Path) -> None:
    again = results(run(tiny, "ce", out=tmp_path, device="cpu"))
    assert again == results(uninterrupted)
    files = ("metrics.json", "samples.safetensors", "model.safetensors", "samples.json", MARKER)
    assert set(again) == {f"gen-{g}/{name}" for g in range(LAST + 1) for name in files}


def test_global_random_state_does_not_matter(tiny: Path, uninterrupted: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    torch.rand(7)
    assert results(run(tiny, "ce", out=tmp_path, device="cpu")) == results(uninterrupted)


def test_other_seed_gives_other_results(tiny: Path, uninterrupted: Path, tmp_path: Path) -> None:
    other = run(tiny, "ce", seed=1, out=tmp_path, generations=0, device="cpu")
    for name in ("metrics.json", "samples.safetensors", "model.safetensors"):
        assert (other / "gen-0" / name).read_bytes() != (uninterrupted / "gen-0" / name).read_bytes()


def test_generations_differ_from_each_other(uninterrupted: Path) -> None:
    for name in ("metrics.json", "samples.safetensors", "model.safetensors"):
        assert len({(uninterrupted / f"gen-{g}" / name).read_bytes() for g in range(LAST + 1)}) == LAST + 1


def test_longer_chain_goes_on_where_the_shorter_one_stopped(tiny: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run(tiny, "ce", out=tmp_path, generations=1, device="cpu")
    events = []
    run(tiny, "ce", out=tmp_path, device="cpu", listener=events.append)
    assert [e.generation for e in events if e.phase == "reused"] == [0, 1]
    assert [e.generation for e in events if e.phase == "complete"] == [2, 3]
    assert results(tmp_path / "tiny@1/ce/seed-0") == results(uninterrupted)


# Killed and resumed


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(place: object, name: str, call: int, after: bool = False) -> None:
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


def die_with_half_a_model(call: int) -> None:
    original, calls = text.TextWorkload.save_model, []

    def dying(self: Any, model: Any, path: Path) -> None:
        original(self, model, path)
        calls.append(1)
        if len(calls) == call:
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
            die()

    text.TextWorkload.save_model = dying


MOMENTS: dict[str, Callable[[], None]] = {
    "before the first update": lambda: die_at(text.TextWorkload, "_loss", 1),
    "training generation 0": lambda: die_at(text.TextWorkload, "_loss", 17),
    "training generation 2": lambda: die_at(text.TextWorkload, "_loss", 30 + 12 + 5),
    "sampling, between two tokens of generation 1": lambda: die_at(text_sampling, "draw", 16 + 9),
    "evaluating generation 1": lambda: die_at(text, "continuation_log_probs", 2),
    "half of a model written": lambda: die_with_half_a_model(2),
    "model and samples written, metrics not": lambda: die_at(loop, "write_json", 2 * 3 + 2),
    "all written but the marker": lambda: die_at(artifacts, "write_atomically", 3),
    "marker written, folder not renamed": lambda: die_at(os, "rename", 2),
    "folder just renamed": lambda: die_at(os, "rename", 3, after=True),
}


def run_until(task: str, out: str, moment: str) -> None:
    MOMENTS[moment]()
    run(task, "ce", out=out, device="cpu")


@pytest.mark.parametrize("moment", MOMENTS)
def test_chain_killed_and_resumed_equals_uninterrupted_chain(
    tiny: Path, uninterrupted: Path, tmp_path: Path, moment: str
) -> None:
    process = start(run_until, str(tiny), str(tmp_path), moment)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    path = tmp_path / "tiny@1/ce/seed-0"
    assert RunDirectory(path).state(LAST) == "missing"
    run(tiny, "ce", out=tmp_path, device="cpu")
    assert results(path) == results(uninterrupted)
    assert not list(path.glob(".gen-*"))


def test_chain_killed_again_and_again_at_any_moment_equals_uninterrupted_chain(
    tiny: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    delays = random.Random(5)
    path = tmp_path / "tiny@1/ce/seed-0"
    killed = 0
    for _ in range(5):
        command = Command(["run", str(tiny), "--method", "ce", "--out", str(tmp_path), "--device", "cpu"], tmp_path)
        while not (path / "run.json").is_file() and command.process.is_alive():
            time.sleep(0.005)
        command.process.join(delays.uniform(0.02, 0.25))
        command.process.kill()
        command.process.join(PATIENCE)
        killed += command.process.exitcode == -signal.SIGKILL
    assert killed
    run(tiny, "ce", out=tmp_path, device="cpu")
    assert results(path) == results(uninterrupted)


@pytest.mark.parametrize("name", ["samples.safetensors", "model.safetensors", "metrics.json", "samples.json", MARKER])
@pytest.mark.parametrize("g", [0, 2])
def test_flipped_bit_is_detected_and_the_generation_redone_with_the_same_bytes(
    tiny: Path, uninterrupted: Path, tmp_path: Path, name: str, g: int
) -> None:
    path = run(tiny, "ce", out=tmp_path, device="cpu")
    file = path / f"gen-{g}" / name
    flip_bit(file, file.stat().st_size // 3, 2)
    events = []
    run(tiny, "ce", out=tmp_path, device="cpu", listener=events.append)
    assert [e.generation for e in events if e.phase == "complete"] == [g]
    assert results(path) == results(uninterrupted)


# What is common to all methods


@pytest.mark.parametrize("other", ["focal", "tce", "control", "tce:gamma=0.5"])
def test_weights_order_and_noise_of_generation_0_are_common_to_all_methods(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    seen: dict[str, list[Tensor]] = {}
    new_model, loss, sample = text.TextWorkload.new_model, text.TextWorkload._loss, text.sample_continuations
    for method in ("ce", other):
        log = seen.setdefault(method, [])

        def spy_model(self: Any, randomness: Randomness, log: list = log) -> Any:
            model = new_model(self, randomness)
            log += [p.detach().clone() for p in model.parameters()]
            return model

        def spy_loss(self: Any, model: Any, batch: Any, *rest: Any, log: list = log) -> Tensor:
            log.append(batch.items.clone())
            return loss(self, model, batch, *rest)

        def spy_sample(model: Any, prompts: Tensor, noise: Tensor, *rest: Any, log: list = log) -> Tensor:
            log += [prompts.clone(), noise.clone()]
            return sample(model, prompts, noise, *rest)

        monkeypatch.setattr(text.TextWorkload, "new_model", spy_model)
        monkeypatch.setattr(text.TextWorkload, "_loss", spy_loss)
        monkeypatch.setattr(text, "sample_continuations", spy_sample)
        run(tiny, method, out=tmp_path, generations=0, device="cpu")
    assert len(seen["ce"]) == len(seen[other]) > 30
    assert all(torch.equal(a, b) for a, b in zip(seen["ce"], seen[other], strict=True))


def test_random_draws_depend_on_task_seed_generation_and_purpose() -> None:
    draws = {
        Randomness(task, seed).number(g, purpose)
        for task in ("a@1", "a@2")
        for seed in (0, 1)
        for g in (0, 1)
        for purpose in ("order", "sampling")
    }
    assert len(draws) == 16
    first, second = (Randomness("a@1", 0).generator(0, "order") for _ in range(2))
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


# Chains of every kind


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny task with changes."""
    return lambda **changes: write_tiny_task(tmp_path / "task", **changes)


POLICIES: dict[str, dict[str, Any]] = {
    "replace": {},
    "accumulate": {"policy.size": 256},
    "accumulate-subsample": {"policy.size": 256},
    "mix": {"policy.real_share": 0.25},
    "regenerate-fresh": {"workload.sampler.batch_size": 64},
}


def chain(task: Path, method: str, out: Path) -> loop.Chain:
    """The chain of a run that is on disk."""
    cell = Cell(load_task(task), load_method(method), 0, out, LAST, "cpu")
    return loop.Chain(cell.task, cell.method, 0, load_workload(cell.task, "cpu"), cell.directory)


@pytest.mark.parametrize("policy", POLICIES)
def test_two_generations_run_under_every_policy(variant, tmp_path: Path, policy: str) -> None:
    task = variant(**{"policy.name": policy}, **POLICIES[policy])
    path = run(task, "ce", out=tmp_path, generations=2, device="cpu")
    second = chain(task, "ce", tmp_path).training_set(2)
    sources = {int(source) for source in second.made_by}
    assert (
        sources
        == {
            "replace": {1},
            "accumulate": {REAL, 0, 1},
            "accumulate-subsample": {REAL, 0, 1},
            "mix": {REAL, 1},
            "regenerate-fresh": {REAL, 1},
        }[policy]
    )
    share = metrics(path, 2)["real_share"]
    assert share == pytest.approx(float((second.made_by == REAL).double().mean()))
    if policy == "mix":
        assert share == 0.25
    again = run(task, "ce", out=tmp_path / "again", generations=2, device="cpu")
    assert results(again) == results(path)


def test_training_under_accumulate_grows_with_the_data(variant, tmp_path: Path) -> None:
    task = variant(**{"policy.name": "accumulate", "policy.size": 64})
    path = run(task, "ce", out=tmp_path, generations=2, device="cpu")
    real = len(load_workload(load_task(task), "cpu").real)
    for g in (1, 2):
        updates = round(12 * (real + 64 * g) / 64)
        assert metrics(path, g)["elements_trained"] == updates * 8 * 16
    assert metrics(path, 0)["elements_trained"] == 30 * 8 * 16


def test_too_little_text_for_the_fractions_of_regenerate_fresh_is_a_users_mistake(variant, tmp_path: Path) -> None:
    task = variant(**{"policy.name": "regenerate-fresh", "horizon": 1000, "splits.train_chars": 3000})
    with pytest.raises(DataError, match=r"1001 fractions"):
        run(task, "ce", out=tmp_path, generations=1, device="cpu")


def test_control_trains_on_real_data_only(tiny: Path, tmp_path: Path) -> None:
    path = run(tiny, "control", out=tmp_path, generations=2, device="cpu")
    assert [metrics(path, g)["real_share"] for g in range(3)] == [1.0, 1.0, 1.0]
    for g in (1, 2):
        data = chain(tiny, "control", tmp_path).training_set(g)
        assert len(data) == 32
        assert set(data.made_by.tolist()) == {REAL}


def test_replace_trains_on_the_samples_of_the_generation_before(tiny: Path, uninterrupted: Path) -> None:
    out = uninterrupted.parents[2]
    for g in (1, 2, 3):
        data = chain(tiny, "ce", out).training_set(g)
        assert torch.equal(data.items, samples(uninterrupted, g - 1))
        assert set(data.made_by.tolist()) == {g - 1}
    assert [metrics(uninterrupted, g)["real_share"] for g in range(4)] == [1.0, 0.0, 0.0, 0.0]


def test_scratch_starts_every_generation_from_the_same_new_weights(
    variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Tensor] = []
    original = text.TextWorkload.train

    def spy(self: Any, model: Any, *rest: Any) -> int:
        started.append(model.get_output_embeddings().weight.detach().clone())
        return original(self, model, *rest)

    monkeypatch.setattr(text.TextWorkload, "train", spy)
    run(variant(init="scratch"), "ce", out=tmp_path, generations=2, device="cpu")
    assert torch.equal(started[0], started[1])
    assert torch.equal(started[0], started[2])


def test_previous_starts_from_the_weights_that_the_last_generation_ended_with(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Tensor] = []
    original = text.TextWorkload.train

    def spy(self: Any, model: Any, *rest: Any) -> int:
        started.append(model.get_output_embeddings().weight.detach().clone())
        return original(self, model, *rest)

    monkeypatch.setattr(text.TextWorkload, "train", spy)
    path = run(tiny, "ce", out=tmp_path, generations=1, device="cpu")
    saved = load_file(path / "gen-0" / "model.safetensors")
    assert any(tensor.shape == started[1].shape and torch.equal(tensor, started[1]) for tensor in saved.values())
    assert not torch.equal(started[0], started[1])


def test_greedy_and_truncated_sampling_run(variant, tmp_path: Path) -> None:
    task = variant(**{"workload.sampler": {"prompt_tokens": 4, "temperature": 0.8, "top_k": 20, "top_p": 0.9}})
    assert samples(run(task, "ce", out=tmp_path, generations=0, device="cpu"), 0).shape == (32, 16)


def test_task_without_pairs_has_no_pair_metric(variant, tmp_path: Path) -> None:
    scored = {"perplexity": {"reference": 60.0, "floor": 200.0}}
    task = variant(**{"workload.evaluation.pairs": 0, "scored": scored})
    path = run(task, "ce", out=tmp_path, generations=0, device="cpu")
    assert "pair_accuracy" not in metrics(path, 0)["metrics"]


# What losses do


class NaNLater(Loss):
    """Breaks in the middle of generation 1."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (float("nan") if e.generation == 1 and e.step >= 3 else 1.0)


class WrongShapeLater(Loss):
    """Keeps the contract in generation 0 only."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p.mean() if e.generation == 1 else -e.log_p


class CrashesLater(Loss):
    """Raises in the fifth update."""

    def elementwise(self, e: Elements) -> Tensor:
        if e.step == 4:
            raise RuntimeError("out of ideas")
        return -e.log_p


class SeesProvenance(Loss):
    """Notes the share of synthetic elements per update."""

    track: ClassVar = "provenance"
    seen: ClassVar[list[tuple[int, float]]] = []

    def elementwise(self, e: Elements) -> Tensor:
        assert e.synthetic.shape == e.log_p.shape
        SeesProvenance.seen.append((e.generation, float(e.synthetic.double().mean())))
        return -e.log_p * torch.where(e.synthetic, 0.5, 1.0)


class PeeksAtProvenance(Loss):
    """Looks without having asked, once training has begun."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (~e.synthetic if e.total_steps > 1 else 1.0)


class FromLogits(Loss):
    """Cross entropy the long way round."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        assert e.prediction is e.logits
        return torch.nn.functional.cross_entropy(e.logits.movedim(-1, 1), e.target, reduction="none")


class Counts(Loss):
    """Notes generation, step and number of steps."""

    seen: ClassVar[list[tuple[int, int, int]]] = []

    def elementwise(self, e: Elements) -> Tensor:
        Counts.seen.append((e.generation, e.step, e.total_steps))
        return -e.log_p


def test_nan_in_training_marks_the_run_diverged_with_fidelity_0_from_there(tiny: Path, tmp_path: Path) -> None:
    events = []
    path = run(tiny, NaNLater, out=tmp_path, device="cpu", listener=events.append)
    assert [RunDirectory(path).state(g) for g in range(3)] == ["ok", "diverged", "missing"]
    assert [(e.generation, e.phase) for e in events][-1] == (1, "diverged")
    assert "not finite" in json.loads((path / "gen-1" / "diverged.json").read_text())["reason"]
    comparison = read_comparison(path.parents[1], load_task(tiny), generations=LAST)
    curves = comparison.curves.pivot_table(index="metric", columns="generation", values="fidelity")
    assert (curves[[1, 2, 3]] == 0).all(axis=None)
    assert (curves[0] > 0).any()
    assert any("diverged in generation 1" in note for note in comparison.notes)
    before = results(path)
    run(tiny, NaNLater, out=tmp_path, device="cpu")
    assert results(path) == before


def test_infinite_weights_after_the_last_update_diverge(variant, tmp_path: Path) -> None:
    stage = {"updates": 3, "learning_rate": 1e38, "decay": "none"}
    path = run(variant(**{"workload.training.first": stage}), "ce", out=tmp_path, device="cpu")
    assert RunDirectory(path).state(0) == "diverged"


def test_wrong_shape_in_a_later_generation_is_a_loss_error_and_keeps_what_is_finished(
    tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(LossError, match=r"WrongShapeLater.elementwise returned \(\)"):
        run(tiny, WrongShapeLater, out=tmp_path, device="cpu")
    (path,) = tmp_path.glob("tiny@1/*/seed-0")
    assert [RunDirectory(path).state(g) for g in range(2)] == ["ok", "missing"]


def test_loss_that_raises_in_training_is_a_loss_error_that_says_where(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LossError, match=r"CrashesLater.*generation 0, update 4: RuntimeError: out of ideas"):
        run(tiny, CrashesLater, out=tmp_path, device="cpu")


def test_provenance_is_real_in_generation_0_and_synthetic_later(tiny: Path, tmp_path: Path) -> None:
    run(tiny, SeesProvenance, out=tmp_path, generations=1, device="cpu")
    in_training = SeesProvenance.seen[1:]  # the first is the check when it was loaded
    assert {share for g, share in in_training if g == 0} == {0.0}
    assert {share for g, share in in_training if g == 1} == {1.0}


def test_provenance_is_only_for_losses_that_ask(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LossError, match=r"synthetic is not available"):
        run(tiny, PeeksAtProvenance, out=tmp_path, generations=0, device="cpu")


def test_loss_on_logits_trains_like_the_same_loss_on_log_p(tiny: Path, uninterrupted: Path, tmp_path: Path) -> None:
    path = run(tiny, FromLogits, out=tmp_path, generations=0, device="cpu")
    ours, theirs = (metrics(p, 0)["metrics"]["perplexity"]["value"] for p in (path, uninterrupted))
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_loss_knows_generation_and_step(tiny: Path, tmp_path: Path) -> None:
    Counts.seen.clear()
    run(tiny, Counts, out=tmp_path, generations=1, device="cpu")
    expected = [(0, step, 30) for step in range(30)] + [(1, step, 12) for step in range(12)]
    assert Counts.seen[1:] == expected


def test_cross_entropy_learns(uninterrupted: Path) -> None:
    floor = 250  # a unigram model of this text
    assert metrics(uninterrupted, 0)["metrics"]["perplexity"]["value"] < floor

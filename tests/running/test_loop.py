"""The recursion on text: what its settings do, and what a loss sees and may do wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import results, write_tiny_task
from torch import Tensor

from collapsebench.api import run
from collapsebench.errors import DataError, LossError
from collapsebench.losses import Elements, Loss
from collapsebench.reports.comparison import read_comparison
from collapsebench.running.artifacts import RunDirectory
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload

LAST = 3


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished chain of the tiny task."""
    return run(tiny, "ce", out=tmp_path_factory.mktemp("uninterrupted"), device="cpu")


def metrics(path: Path, g: int) -> dict[str, Any]:
    return json.loads((path / f"gen-{g}" / "metrics.json").read_text())


def samples(path: Path, g: int) -> Tensor:
    return load_file(path / f"gen-{g}" / "samples.safetensors")["items"]


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


# Text


@pytest.fixture
def variant(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny task with changes."""
    return lambda **changes: write_tiny_task(tmp_path / "task", **changes)


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


class PeeksAtProvenance(Loss):
    """Looks without having asked, once training has begun."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (~e.synthetic if e.total_steps > 1 else 1.0)


class FromLogits(Loss):
    """Cross entropy computed from the logits."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        assert e.prediction is e.logits
        return torch.nn.functional.cross_entropy(e.logits.movedim(-1, 1), e.target, reduction="none")


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


def test_provenance_is_only_for_losses_that_ask(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(LossError, match=r"synthetic is not available"):
        run(tiny, PeeksAtProvenance, out=tmp_path, generations=0, device="cpu")


def test_loss_on_logits_trains_like_the_same_loss_on_log_p(tiny: Path, uninterrupted: Path, tmp_path: Path) -> None:
    path = run(tiny, FromLogits, out=tmp_path, generations=0, device="cpu")
    ours, theirs = (metrics(p, 0)["metrics"]["perplexity"]["value"] for p in (path, uninterrupted))
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_cross_entropy_learns(uninterrupted: Path) -> None:
    floor = 250  # a unigram model of this text
    assert metrics(uninterrupted, 0)["metrics"]["perplexity"]["value"] < floor

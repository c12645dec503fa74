"""Methods that are more than a loss: hooks are called in their place, with state that survives being killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from command import collapsebench
from safetensors.torch import load_file
from tiny_task import results
from torch import Tensor

from collapsebench import Elements, Loss, Method, View, run
from collapsebench.errors import MethodError
from collapsebench.hooks import Weights
from collapsebench.methods import load_method

LAST = 2
# As a contestant would write it, in a file of its own.
EMA = '''
from typing import ClassVar

from collapsebench import Method


class Averaged(Method):
    """Every generation samples with the moving average of all generations' weights."""

    track: ClassVar = "open"
    decay: float = 0.5

    def restore(self, state):
        self.average = state

    def after_training(self, weights, see):
        before = getattr(self, "average", weights)
        self.average = {
            name: self.decay * before[name].to(new.device) + (1 - self.decay) * new if new.is_floating_point() else new
            for name, new in weights.items()
        }
        return self.average

    def state(self):
        return self.average
'''


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("method") / "averaged.py"
    file.write_text(EMA)
    return f"{file}:Averaged:decay=0.75"


def weights_of(path: Path, g: int, name: str = "model") -> dict[str, Tensor]:
    return load_file(path / f"gen-{g}" / f"{name}.safetensors")


def test_average_over_generations_is_what_samples_and_is_measured(short: Path, tmp_path: Path, averaged: str) -> None:
    path = run(short, averaged, out=tmp_path, device="cpu")
    plain = run(short, "ce", out=tmp_path, device="cpu")
    files = ("model.safetensors", "samples.safetensors", "metrics.json")
    for g in range(LAST + 1):
        model, average = weights_of(path, g), weights_of(path, g, "method")
        assert all(torch.equal(tensor, average[name]) for name, tensor in model.items())
        for name in files:  # generation 0 has nothing to be averaged with
            same = (path / f"gen-{g}" / name).read_bytes() == (plain / f"gen-{g}" / name).read_bytes()
            assert same == (g == 0), (g, name)
    assert not (plain / "gen-0" / "method.safetensors").exists()


def test_resumed_chain_with_state_equals_uninterrupted_chain(short: Path, tmp_path: Path, averaged: str) -> None:
    path = run(short, averaged, out=tmp_path / "whole", device="cpu")
    copy = tmp_path / "copy" / path.relative_to(tmp_path / "whole")
    for first in (1, 2):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(path, copy)
        for g in range(first, LAST + 1):
            shutil.rmtree(copy / f"gen-{g}")
        assert results(run(short, averaged, out=tmp_path / "copy", device="cpu")) == results(path)
    (copy / "gen-1" / "method.safetensors").write_bytes(b"damaged")
    assert results(run(short, averaged, out=tmp_path / "copy", device="cpu")) == results(path)


def test_method_is_compared_and_reported_but_not_submitted(tiny: Path, tmp_path: Path, averaged: str) -> None:
    done = collapsebench(
        "compare", tiny, "--methods", f"ce,{averaged}", "--seeds", "0,1", "--generations", 1, cwd=tmp_path
    )
    assert done.code == 0, done.err
    assert "Averaged:decay=0.75" in done.out
    refused = collapsebench("submit", "runs", "--method", "Averaged:decay=0.75", "--authors", "A", cwd=tmp_path)
    assert refused.code == 2
    assert "open track" in refused.err


class SoftLoss(Loss):
    gamma: float = 2.0

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * self.gamma


class OnlyALoss(Method):
    loss: ClassVar = SoftLoss(gamma=3.0)


def test_method_without_hooks_is_its_loss(tiny: Path, tmp_path: Path) -> None:
    method = load_method(OnlyALoss)
    assert (method.track, method.make_loss().parameters["gamma"]) == ("loss", 3.0)
    path = run(tiny, OnlyALoss, out=tmp_path, generations=1, device="cpu")
    alone = run(tiny, SoftLoss(gamma=3.0), out=tmp_path, generations=1, device="cpu")
    for g in (0, 1):
        assert (path / f"gen-{g}/metrics.json").read_bytes() == (alone / f"gen-{g}/metrics.json").read_bytes()


class Sneaky(Method):
    def state(self) -> dict[str, Tensor]:
        return {"x": torch.zeros(1)}


def test_hooks_outside_of_the_open_track_are_refused() -> None:
    with pytest.raises(MethodError, match=r"Sneaky overrides state, which only the open track may"):
        load_method(Sneaky)


def _returning(change) -> type[Method]:
    class Returns(Method):
        track: ClassVar = "open"

        def after_training(self, weights: Weights, see: View) -> Weights:
            return change(weights)

    return Returns


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: None, "must return the weights"),
        (lambda w: dict(list(w.items())[1:]), "must return the weights"),
        (lambda w: {k: v.double() for k, v in w.items()}, "expected"),
        (lambda w: {k: v[:1] for k, v in w.items()}, "expected"),
        (lambda w: {k: 3 for k, v in w.items()}, "int for"),
        (lambda w: {k: v * float("nan") for k, v in w.items()}, "NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_an_error_of_the_method(tiny: Path, tmp_path: Path, change, told: str) -> None:
    with pytest.raises(MethodError, match=told):
        run(tiny, _returning(change), out=tmp_path, generations=0, device="cpu")

"""One loss, written once in terms of log p, on every kind of workload; what each of them shows to a loss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from command import collapsebench
from safetensors.torch import load_file
from tiny_task import MICRO_BATCHES, SHORT_UPDATES, SIDE
from torch import Tensor
from torch.nn import functional as F

from collapsebench.api import run
from collapsebench.errors import LossError
from collapsebench.losses import Elements, Loss
from collapsebench.running.artifacts import RunDirectory
from collapsebench.seeding import Randomness
from collapsebench.task import load_task

MY_LOSS = '''
"""Cross entropy that counts an element less, the less likely it is."""

from collapsebench import Elements, Loss


class MyLoss(Loss):
    beta: float = 1.0

    def elementwise(self, e: Elements):
        return -e.log_p * (self.beta * e.log_p.detach()).exp()
'''
SHAPES = {  # of log p in training
    "text": (8, 15),
    "pretrained-lm": (4, 15),
    "vae": (16, 1, SIDE, SIDE),
    "diffusion": (16, 1, SIDE, SIDE),
    "gmm": (100,),
    "markov": (16, 8),
}


@pytest.fixture(scope="module")
def trained_with_ce(short: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of cross entropy after generation 0."""
    return weights(run(short, "ce", out=tmp_path_factory.mktemp("ce"), generations=0, device="cpu"))


def weights(path: Path) -> dict[str, Tensor]:
    return load_file(path / "gen-0" / "model.safetensors")


def are_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_one_file_runs_unchanged_through_the_command_line(
    kind: str, short: Path, trained_with_ce: dict[str, Tensor], tmp_path: Path
) -> None:
    (tmp_path / "my_loss.py").write_text(MY_LOSS)
    finished = collapsebench(
        "run", short, "--method", "my_loss.py:MyLoss:beta=0.3", "--generations", 1, "--device", "cpu", cwd=tmp_path
    )
    assert finished.code == 0, finished.err
    (path,) = tmp_path.glob("runs/*/MyLoss-*/seed-0")
    assert [RunDirectory(path).state(g) for g in (0, 1, 2)] == ["ok", "ok", "missing"]
    about = json.loads((path / "run.json").read_text())
    assert about["loss"] == "my_loss.py:MyLoss"
    method = about["method"]
    assert method["name"] == "MyLoss:beta=0.3"
    assert method["parameters"]["beta"] == 0.3
    assert method["source_sha256"] == hashlib.sha256(MY_LOSS.encode()).hexdigest()
    assert not are_equal(weights(path), trained_with_ce)


# What a loss sees


class Watches(Loss):
    """Cross entropy; keeps what it is shown."""

    seen: ClassVar[list[Elements]] = []

    def elementwise(self, e: Elements) -> Tensor:
        assert e.log_p.requires_grad
        Watches.seen.append(e)
        return -e.log_p


def test_log_p_is_one_finite_number_below_0_per_element(
    kind: str, short: Path, trained_with_ce: dict[str, Tensor], tmp_path: Path
) -> None:
    Watches.seen.clear()
    path = run(short, Watches, out=tmp_path, generations=1, device="cpu")
    in_training = Watches.seen[1:]  # the first is the check when it was loaded
    for e in in_training:
        assert e.log_p.shape == SHAPES[kind]
        assert e.log_p.dtype in (torch.float32, torch.float64)
        assert bool(torch.isfinite(e.log_p).all())
        assert bool((e.log_p <= 0).all())
        untouched = kind == "markov" and e.generation == e.step == 0  # a table in which all is as likely
        assert untouched or float(e.log_p.detach().std()) > 0
    expected = [
        (generation, step, updates)
        for generation, updates in enumerate(SHORT_UPDATES[kind][:2])
        for step in range(updates)
        for _ in range(MICRO_BATCHES[kind])
    ]
    assert [(e.generation, e.step, e.total_steps) for e in in_training] == expected
    assert are_equal(weights(path), trained_with_ce)


class WatchesProvenance(Loss):
    """Cross entropy; keeps the shapes it is shown, and whether elements are synthetic."""

    track: ClassVar = "provenance"
    seen: ClassVar[list[tuple[int, Tensor, torch.Size]]] = []

    def elementwise(self, e: Elements) -> Tensor:
        WatchesProvenance.seen.append((e.generation, e.synthetic, e.log_p.shape))
        return -e.log_p * torch.where(e.synthetic, 0.5, 1.0)


def test_elements_are_synthetic_where_an_earlier_generation_made_their_item(
    kind: str, short: Path, tmp_path: Path
) -> None:
    WatchesProvenance.seen.clear()
    path = run(short, WatchesProvenance, out=tmp_path, generations=1, device="cpu")
    assert [RunDirectory(path).state(g) for g in (0, 1)] == ["ok", "ok"]
    in_training = WatchesProvenance.seen[1:]
    assert [generation for generation, _, _ in in_training] == [
        generation for generation in (0, 1) for _ in range(SHORT_UPDATES[kind][generation] * MICRO_BATCHES[kind])
    ]
    for _, synthetic, shape in in_training:
        assert synthetic.dtype == torch.bool
        assert synthetic.shape == shape == SHAPES[kind]
    first, second = (torch.cat([s for generation, s, _ in in_training if generation == g]) for g in (0, 1))
    assert not bool(first.any())
    if kind == "pretrained-lm":  # half of generation 1's windows are rewritten ones, the other half are new
        order = torch.randperm(32, generator=Randomness(load_task(short).id, 0).generator(1, "order"))
        assert torch.equal(second, (order < 16)[:, None].expand(32, 15))
    else:
        assert bool(second.all())


class WatchesPrediction(Loss):
    """Cross entropy; keeps what the model said, what was observed, and the log p of it."""

    needs_logits: ClassVar = True
    seen: ClassVar[list[tuple[Tensor, Tensor, Tensor]]] = []

    def elementwise(self, e: Elements) -> Tensor:
        WatchesPrediction.seen.append((e.prediction.detach(), e.target.detach(), e.log_p.detach()))
        return -e.log_p


def log_p_again(kind: str, prediction: Tensor, target: Tensor) -> Tensor:
    """log p from what a loss with `needs_logits` sees."""
    if kind in ("text", "pretrained-lm", "markov"):
        return -F.cross_entropy(prediction.movedim(-1, 1), target, reduction="none")
    if kind == "vae":
        return target * F.logsigmoid(prediction) + (1 - target) * F.logsigmoid(-prediction)
    assert kind == "diffusion"
    return -((prediction - target) ** 2) / (2 * 0.5**2)


def test_losses_that_ask_see_prediction_and_target(
    kind: str, short: Path, trained_with_ce: dict[str, Tensor], tmp_path: Path
) -> None:
    WatchesPrediction.seen.clear()
    if kind == "gmm":  # a mixture predicts nothing
        with pytest.raises(LossError, match=r"(has no prediction|Elements.prediction is not available)"):
            run(short, WatchesPrediction, out=tmp_path, generations=0, device="cpu")
        return
    path = run(short, WatchesPrediction, out=tmp_path, generations=0, device="cpu")
    in_training = WatchesPrediction.seen[1:]
    assert len(in_training) == SHORT_UPDATES[kind][0] * MICRO_BATCHES[kind]
    for prediction, target, log_p in in_training:
        assert target.shape == log_p.shape == SHAPES[kind]
        assert prediction.shape[: log_p.dim()] == log_p.shape
        torch.testing.assert_close(log_p_again(kind, prediction, target), log_p, rtol=1e-5, atol=1e-5)
    for name, tensor in weights(path).items():
        torch.testing.assert_close(tensor, trained_with_ce[name], rtol=1e-3, atol=1e-4)


class Huber(Loss):
    """For noise: needs a prediction of the shape of the target."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        return F.huber_loss(e.prediction, e.target, reduction="none")


class BinaryCrossEntropy(Loss):
    """For pixels: needs a target between 0 and 1."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        return F.binary_cross_entropy_with_logits(e.prediction, e.target, reduction="none")


@pytest.mark.parametrize(("loss", "fits"), [(Huber, "diffusion"), (BinaryCrossEntropy, "vae")])
def test_loss_on_predictions_is_checked_against_those_of_its_task(
    kind: str, short: Path, tmp_path: Path, loss: type[Loss], fits: str
) -> None:
    if kind == fits:
        run(short, loss, out=tmp_path, generations=0, device="cpu")
    elif kind in ("text", "pretrained-lm", "markov"):
        with pytest.raises(LossError, match=f"{loss.__name__}.elementwise failed on a batch of 64"):
            run(short, loss, out=tmp_path, generations=0, device="cpu")
        assert not list(tmp_path.iterdir())


class Peeks(Loss):
    """Looks at the prediction without having asked, once training has begun."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p if e.total_steps == 1 else -e.log_p * e.prediction


def test_prediction_is_only_for_losses_that_ask(short: Path, tmp_path: Path) -> None:
    with pytest.raises(LossError, match=r"(has no prediction|Elements.prediction is not available)"):
        run(short, Peeks, out=tmp_path, generations=0, device="cpu")


# What the methods do


class Shifted(Loss):
    """Cross entropy plus one: the same gradient, and no element without a loss."""

    def elementwise(self, e: Elements) -> Tensor:
        return 1 - e.log_p


def test_kept_is_the_mean_where_no_element_is_dropped(
    short: Path, trained_with_ce: dict[str, Tensor], tmp_path: Path
) -> None:
    path = run(short, Shifted(reduction="kept"), out=tmp_path, generations=0, device="cpu")
    assert are_equal(weights(path), trained_with_ce)


def test_focal_loss_with_gamma_0_is_cross_entropy(
    short: Path, trained_with_ce: dict[str, Tensor], tmp_path: Path
) -> None:
    path = run(short, "focal:gamma=0", out=tmp_path, generations=0, device="cpu")
    for name, tensor in weights(path).items():
        torch.testing.assert_close(tensor, trained_with_ce[name], rtol=1e-6, atol=1e-6)


def test_truncated_cross_entropy_trains_other_weights_than_cross_entropy(
    kind: str, short_variant: Callable[..., Path], tmp_path: Path
) -> None:
    longer: dict[str, dict[str, Any]] = {  # until a model of text, or a table, is sure of anything
        "text": {"workload.training.first": {"updates": 120, "learning_rate": 3e-2, "decay": "cosine"}},
        "markov": {"workload.training.first.updates": 60},
        "pretrained-lm": {"workload.training.epochs": 20, "workload.training.learning_rate": 3e-2},
    }
    task = short_variant(**longer.get(kind, {}))
    methods = ("ce", "tce:gamma=0.5", "tce:gamma=0.5,reduction=kept")
    ce, tce, kept = (weights(run(task, m, out=tmp_path, generations=0, device="cpu")) for m in methods)
    assert not are_equal(tce, ce)
    assert not are_equal(kept, ce)
    assert not are_equal(kept, tce)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (tce | kept).values())


class NaNLater(Loss):
    """Breaks in the middle of generation 1."""

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (float("nan") if e.generation == 1 and e.step >= 2 else 1.0)


def test_nan_in_training_marks_the_generation_diverged(short: Path, tmp_path: Path) -> None:
    events: list[Any] = []
    path = run(short, NaNLater, out=tmp_path, device="cpu", listener=events.append)
    assert [RunDirectory(path).state(g) for g in (0, 1, 2)] == ["ok", "diverged", "missing"]
    assert (events[-1].generation, events[-1].phase) == (1, "diverged")
    assert "not finite" in json.loads((path / "gen-1" / "diverged.json").read_text())["reason"]
    assert sorted(file.name for file in (path / "gen-1").iterdir()) == ["complete.json", "diverged.json"]

"""The training loop: what a loss can reach, what is passed on to the model, and what is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from objective_of import objective_of
from torch import Tensor

from collapsebench.errors import Diverged, LossError
from collapsebench.losses import Elements, Loss
from collapsebench.policies import TrainingSet
from collapsebench.running.training import Trained, train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import Workload, load_workload

RANDOMNESS = Randomness("tiny@1", 3)


@pytest.fixture(scope="module")
def workload(short: Path) -> Workload:
    return load_workload(load_task(short), "cpu")


def trained(workload: Workload, loss: Loss, data: TrainingSet | None = None) -> tuple[Trained, Any]:
    """What generation 0's training did, and its model."""
    model = workload.new_model(RANDOMNESS)
    found = train(workload, model, workload.real if data is None else data, loss, 0, RANDOMNESS, lambda _: None)
    return found, model


def weights(model: Any) -> list[Tensor]:
    return [p.detach() for p in model.parameters()]


class CrossEntropy(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p


class FromPrediction(Loss):
    """Something that needs what the model said, besides log p."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        size = e.prediction.square()
        return -e.log_p + 0.01 * (size.flatten(e.log_p.dim()).mean(-1) if size.dim() > e.log_p.dim() else size)


class Reaches(Loss):
    """Tries what a loss must not be able to do."""

    reached: ClassVar[list[Any]] = []
    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        names = ("log_p", "prediction", "logits", "target")
        seen = [getattr(e, name) for name in names if name == "log_p" or name in e._restricted]
        Reaches.reached += [x.grad_fn for x in seen]
        return -e.log_p


class Declares(Loss):
    """Changes a declaration after the first update, when it has been checked."""

    def elementwise(self, e: Elements) -> Tensor:
        if e.step == 0:
            self.track = "provenance"  # type: ignore[misc]
        return -e.log_p


class Computes(Loss):
    """Has its track computed, so that it can be another one each time."""

    track = property(lambda self: "provenance")  # type: ignore[assignment]

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p


class Overwrites(Loss):
    """Cross entropy that then overwrites what it was given."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        value = -e.log_p * 1.0
        e.log_p.data.zero_()
        for tensor in e._restricted.values():
            tensor.data.zero_()
        return value


def test_what_a_loss_declares_cannot_change_while_it_runs(workload: Workload) -> None:
    with pytest.raises(LossError, match=r"Declares changed its track, needs_logits or reduction by update [01]"):
        trained(workload, Declares())
    with pytest.raises(LossError, match=r"Computes.track is a property; it must be written as a str"):
        trained(workload, Computes())


def test_what_a_loss_writes_into_what_it_is_given_changes_nothing(workload: Workload) -> None:
    class Keeps(Overwrites):
        def elementwise(self, e: Elements) -> Tensor:
            return -e.log_p * 1.0

    found, model = trained(workload, Overwrites())
    expected, plain = trained(workload, Keeps())
    assert found.engagement == expected.engagement
    assert found.losses == expected.losses
    for a, b in zip(weights(model), weights(plain), strict=True):
        assert torch.equal(a, b)


def test_loss_sees_leaves_and_cannot_reach_the_weights(kind: str, workload: Workload) -> None:
    Reaches.reached.clear()
    _, model = trained(workload, Reaches())
    assert set(Reaches.reached) == {None}
    _, plain = trained(workload, CrossEntropy())
    for a, b in zip(weights(model), weights(plain), strict=True):  # with logits, sums are in another order
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("loss", [CrossEntropy, FromPrediction])
def test_gradient_passed_on_is_that_of_one_graph(kind: str, workload: Workload, loss: type[Loss], monkeypatch) -> None:
    if loss is FromPrediction and kind == "gmm":
        pytest.skip("mixtures predict nothing")
    model = workload.new_model(RANDOMNESS).train()
    expected = torch.autograd.grad(
        objective_of(workload, model, workload.real[:4], loss()), [p for p in model.parameters() if p.requires_grad]
    )
    found = []

    def stop(optimiser: Any, *_: Any) -> None:
        found.extend(p.grad.clone() for group in optimiser.param_groups for p in group["params"])
        raise KeyboardInterrupt

    single = replace(workload.schedule(0, 4), batch_size=4, micro_batch=None, clip_norm=None)
    monkeypatch.setattr(workload, "schedule", lambda *_: single)
    monkeypatch.setattr(torch.optim.AdamW, "step", stop)
    noise = Randomness.generator
    monkeypatch.setattr(
        Randomness,
        "generator",
        lambda self, g, purpose: torch.Generator().manual_seed(1) if purpose == "noise" else noise(self, g, purpose),
    )
    monkeypatch.setattr("collapsebench.running.training.epochs_of", lambda n, total, generator: torch.arange(4))
    with pytest.raises(KeyboardInterrupt):
        train(workload, model, workload.real[:4], loss(), 0, RANDOMNESS, lambda _: None)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


class Half(Loss):
    """Leaves out every other element."""

    def elementwise(self, e: Elements) -> Tensor:
        kept = torch.arange(e.log_p.numel()).view(e.log_p.shape) % 2 == 0
        return torch.where(kept, -e.log_p, 0.0)


class Nothing(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return 0.0 * e.log_p


def masked(workload: Workload, loss: Loss, data: TrainingSet | None = None) -> float:
    return trained(workload, loss, data)[0].engagement["masked_elements"]


def test_share_of_masked_elements_is_counted(workload: Workload) -> None:
    assert masked(workload, CrossEntropy()) == 0.0
    assert masked(workload, Nothing()) == 1.0
    assert masked(workload, Half()) == pytest.approx(0.5, abs=0.05)


class Times(Loss):
    """Cross entropy in another unit."""

    factor: float = 4.0

    def elementwise(self, e: Elements) -> Tensor:
        return -self.factor * e.log_p


def test_size_of_a_loss_is_no_method_where_its_gradient_is_rescaled(workload: Workload, monkeypatch) -> None:
    schedule = replace(workload.schedule(0, len(workload.real)), clip_norm=None)
    plain, four = (weights(trained(workload, loss)[1]) for loss in (CrossEntropy(), Times()))
    assert any(not torch.equal(a, b) for a, b in zip(plain, four, strict=True))  # with a rate limit on the gradient
    monkeypatch.setattr(workload, "schedule", lambda *_: replace(schedule, rescale=True))
    losses = CrossEntropy(), Times(), Times(factor=2**-40)
    plain, four, tiny = (weights(trained(workload, loss)[1]) for loss in losses)
    for a, b, c in zip(plain, four, tiny, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    _, untouched = trained(workload, Nothing())
    assert all(p.isfinite().all() for p in weights(untouched))


class Weighted(Loss):
    """Cross entropy with a weight for every element, which it remembers."""

    seen: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def elementwise(self, e: Elements) -> Tensor:
        weights = torch.rand(e.log_p.shape, generator=torch.Generator().manual_seed(e.step)).square()
        Weighted.seen.append((e.log_p.detach().double(), weights.double()))
        return -e.log_p * weights


def test_engagement_is_what_its_definition_says(kind: str, workload: Workload) -> None:
    Weighted.seen.clear()
    found = trained(workload, Weighted())[0].engagement
    sure, little, gradients = [], [], []
    for log_p, weights in Weighted.seen:
        p = log_p.exp()
        sure.append(p > 0.9)
        little.append(weights < 0.05 * weights.mean())
        gradients.append((-2 * log_p).clamp(min=0).sqrt() if kind in ("diffusion", "gmm") else 1 - p)
    assert 0.05 < torch.cat(little).double().mean() < 0.2
    assert found["confident_elements"] == pytest.approx(float(torch.cat(sure).double().mean()), abs=1e-12)
    assert found["masked_elements"] == pytest.approx(float(torch.cat(little).double().mean()), abs=1e-12)
    gradient, left_out = torch.cat(gradients), torch.cat(little)
    assert found["masked_gradient"] == pytest.approx(float(gradient[left_out].sum() / gradient.sum()), rel=1e-5)


class FromLogits(Loss):
    """Cross entropy at another temperature, and with a weight of log p."""

    needs_logits: ClassVar = True
    temperature: float = 1.0
    rest: float = 0.0

    def elementwise(self, e: Elements) -> Tensor:
        sharper = (e.logits / self.temperature).log_softmax(-1).gather(-1, e.target[..., None]).squeeze(-1)
        return -sharper - self.rest * e.log_p


class OnlyUnsure(Loss):
    """Cross entropy on the half that the model is less sure of, from logits."""

    needs_logits: ClassVar = True

    def elementwise(self, e: Elements) -> Tensor:
        log_p = e.logits.log_softmax(-1).gather(-1, e.target[..., None]).squeeze(-1)
        return -log_p * (e.log_p < e.log_p.median())


def test_loss_on_logits_masks_what_the_same_loss_on_log_p_masks(workload: Workload, kind: str) -> None:
    if kind not in ("text", "pretrained-lm"):
        pytest.skip("has no logits of classes")
    for temperature, rest in ((1.0, 0.0), (1.0, 2.0), (0.9, 0.0)):
        assert masked(workload, FromLogits(temperature=temperature, rest=rest)) == 0.0
    half = trained(workload, OnlyUnsure())[0].engagement
    assert half["masked_gradient"] < half["masked_elements"] == pytest.approx(0.5, abs=0.05)


def test_losses_of_all_updates_are_kept_and_elements_are_counted(workload: Workload) -> None:
    found, _ = trained(workload, CrossEntropy())
    schedule = workload.schedule(0, len(workload.real))
    assert len(found.losses) == schedule.updates
    assert found.elements == schedule.updates * schedule.batch_size * schedule.elements


def test_weights_of_items_scale_their_losses(kind: str, workload: Workload) -> None:
    real = workload.real
    ones, none = torch.ones(len(real)), None
    _, plain = trained(workload, CrossEntropy(), TrainingSet(real.items, real.made_by, none))
    _, weighted = trained(workload, CrossEntropy(), TrainingSet(real.items, real.made_by, ones))
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(weighted), strict=True))
    assert masked(workload, CrossEntropy(), TrainingSet(real.items, real.made_by, 0 * ones)) == 1.0
    some = (torch.arange(len(real)) % 2).float()
    assert 0.2 < masked(workload, CrossEntropy(), TrainingSet(real.items, real.made_by, some)) < 0.8


class Constant(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return torch.ones_like(e.log_p)


class Infinite(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (float("inf") if e.step >= 1 else 1)


def test_loss_without_gradient_is_an_error_of_the_loss(workload: Workload) -> None:
    with pytest.raises(LossError, match=r"Constant.elementwise has no gradient"):
        trained(workload, Constant())


def test_what_is_not_finite_diverges(workload: Workload) -> None:
    with pytest.raises(Diverged, match="generation 0 not finite by update"):
        trained(workload, Infinite())

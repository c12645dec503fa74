"""Losses: values, gradients, the contract with user code, and the drop-in uses outside the harness."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from collapsebench.errors import LossError, UserError
from collapsebench.losses import (
    Elements,
    Loss,
    Reduction,
    check_loss,
    cross_entropy,
    focal,
    loss_of_elements,
    truncated_cross_entropy,
)
from collapsebench.methods import load_loss, registered_methods

torch.set_num_threads(1)

METHODS = list(registered_methods())
REDUCTIONS: tuple[Reduction, ...] = ("mean", "kept", "sum", "none")
SHAPES = [(7,), (3, 5), (2, 3, 4)]
CLASSES = 11


class CrossEntropy(Loss):
    def elementwise(self, e: Elements) -> Tensor:
        return cross_entropy(e.log_p)


class Tempered(Loss):
    """What a user writes: one annotated parameter, one without default, one line."""

    beta: float = 0.5
    scale: int

    def elementwise(self, e: Elements) -> Tensor:
        return -self.scale * (e.log_p * self.beta).exp() * e.log_p


class Margin(Loss):
    """Needs all logits: cross entropy plus the squared largest logit."""

    needs_logits: ClassVar[bool] = True

    def elementwise(self, e: Elements) -> Tensor:
        assert (e.target >= 0).all()
        return -e.log_p + 0.01 * e.logits.amax(-1) ** 2 + 0.0 * e.prediction.sum(-1)


class RealOnly(Loss):
    track: ClassVar = "provenance"

    def elementwise(self, e: Elements) -> Tensor:
        return torch.where(e.synthetic, 0.0, -e.log_p)


def with_reduction(name: str, reduction: str) -> Loss:
    return (
        load_loss(f"{name}:reduction={reduction}") if reduction in ("mean", "kept") else _any_reduction(name, reduction)
    )


def _any_reduction(name: str, reduction: str) -> Loss:
    loss = load_loss(name)
    return type(loss)(**{**loss.parameters, "reduction": reduction})


def random_batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(shape))
    logits = 3 * torch.randn(*shape, CLASSES, generator=generator, dtype=torch.float64)
    target = torch.randint(CLASSES, shape, generator=generator)
    return logits.to(dtype), target


def gradient_of(loss: Tensor, at: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss.sum(), at)
    return gradient


# --- the three pure functions against numpy -------------------------------------------------------------------------

LOG_P = np.concatenate([np.linspace(-30, -1e-3, 200), [-1e-6, -1e-9, -1e-12]])
P, ONE_MINUS_P = np.exp(LOG_P), -np.expm1(LOG_P)

REFERENCES = {
    "ce": (cross_entropy, {}, -LOG_P, -np.ones_like(LOG_P)),
    **{
        f"focal gamma={g}": (
            focal,
            {"gamma": g},
            -(ONE_MINUS_P**g) * LOG_P,
            g * ONE_MINUS_P ** (g - 1) * P * LOG_P - ONE_MINUS_P**g,
        )
        for g in (0.0, 0.5, 1.0, 2.0, 5.0)
    },
    **{
        f"tce gamma={g}": (
            truncated_cross_entropy,
            {"gamma": g},
            np.where(g >= P, -LOG_P, 0),
            np.where(g >= P, -1.0, 0.0),
        )
        for g in (0.1, 0.9, 1.0)
    },
}


@pytest.mark.parametrize("case", REFERENCES)
def test_pure_loss_and_gradient_equal_numpy_in_float64(case: str) -> None:
    function, parameters, values, slopes = REFERENCES[case]
    log_p = torch.tensor(LOG_P, requires_grad=True)
    loss = function(log_p, **parameters)
    np.testing.assert_allclose(loss.detach().numpy(), values, rtol=1e-12, atol=0)
    np.testing.assert_allclose(gradient_of(loss, log_p).numpy(), slopes, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [(cross_entropy, {}), (focal, {"gamma": 2.0}), (focal, {"gamma": 0.5}), (truncated_cross_entropy, {"gamma": 0.9})],
)
def test_pure_loss_passes_gradcheck(function, parameters) -> None:
    log_p = torch.tensor([-9.0, -2.0, -0.7, -0.2, -0.05, -0.01], dtype=torch.float64, requires_grad=True)
    assert (log_p.exp() - 0.9).abs().min() > 0.01  # away from the jump of tce
    assert torch.autograd.gradcheck(lambda x: function(x, **parameters), log_p)


def test_registered_methods_hold_the_three_of_the_paper() -> None:
    assert {"ce", "focal", "tce"} <= set(METHODS)


def test_registered_losses_are_the_pure_functions() -> None:
    log_p = torch.linspace(-8, -1e-4, 50)
    for spec, expected in {
        "ce": cross_entropy(log_p),
        "focal": focal(log_p, 2.0),
        "focal:gamma=0.5": focal(log_p, 0.5),
        "tce": truncated_cross_entropy(log_p, 0.9),
        "tce:gamma=0.3": truncated_cross_entropy(log_p, 0.3),
    }.items():
        torch.testing.assert_close(load_loss(spec).elementwise(Elements(log_p)), expected, rtol=0, atol=0)


def test_focal_gradient_flows_through_the_factor() -> None:
    log_p = torch.tensor([-3.0, -0.5, -0.1], requires_grad=True)
    flowing = gradient_of(focal(log_p), log_p)
    detached = gradient_of((1 - log_p.detach().exp()) ** 2 * -log_p, log_p)
    assert ((flowing - detached).abs() > 1e-3).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_is_finite_at_certainty(gamma: float) -> None:
    log_p = torch.zeros(3, requires_grad=True)
    loss = focal(log_p, gamma)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(gradient_of(loss, log_p)).all()


def test_tce_mask_carries_no_gradient() -> None:
    log_p = torch.log(torch.tensor([0.2, 0.89, 0.91, 0.999])).requires_grad_()
    assert gradient_of(truncated_cross_entropy(log_p, 0.9), log_p).tolist() == [-1.0, -1.0, 0.0, 0.0]


def test_tce_keeps_the_threshold_itself() -> None:
    assert truncated_cross_entropy(torch.tensor([0.5]).log(), 0.5).item() > 0


@pytest.mark.parametrize("spec", ["focal:gamma=0", "tce:gamma=1"])
def test_neutral_gamma_is_cross_entropy(spec: str) -> None:
    logits, target = random_batch((40,))
    torch.testing.assert_close(load_loss(spec)(logits, target), F.cross_entropy(logits, target))


# --- every registered method -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_extreme_logits_give_finite_loss_and_gradient(name: str) -> None:
    logits = 1e4 * torch.tensor([[1.0, -1, 1], [1, -1, -1], [-1, 1, 1], [0, 0, 0], [-1, -1, -1]])
    logits = logits.repeat_interleave(3, 0).requires_grad_()
    loss = load_loss(name)(logits, torch.arange(15) % 3)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient_of(loss, logits)).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", METHODS)
def test_batch_without_targets_gives_zero_loss_and_gradient(name: str, reduction: str) -> None:
    logits = random_batch((3, 5))[0].requires_grad_()
    loss = with_reduction(name, reduction)(logits, torch.full((3, 5), -100))
    assert (loss == 0).all()
    assert (gradient_of(loss, logits) == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_logits_are_computed_in_float32(name: str) -> None:
    logits, target = random_batch((3, 5), torch.bfloat16)
    logits.requires_grad_()
    loss = load_loss(name)(logits, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, load_loss(name)(logits.float(), target), rtol=0, atol=0)
    gradient = gradient_of(loss, logits)
    assert gradient.dtype == torch.bfloat16
    assert torch.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("name", METHODS)
def test_float64_logits_stay_float64(name: str) -> None:
    assert load_loss(name)(*random_batch((6,), torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in METHODS if not load_loss(name).needs_logits])
def test_masked_elements_hold_anything_without_reaching_loss_or_gradient(name: str) -> None:
    mask = torch.tensor([True, False, True, False, False])
    clean = torch.tensor([-1.0, -2.0, -0.3, -1.0, -1.0], requires_grad=True)
    dirty = torch.tensor([-1.0, -torch.inf, -0.3, torch.nan, torch.inf], requires_grad=True)
    losses = [loss_of_elements(load_loss(name), Elements(x), mask) for x in (clean, dirty)]
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=0)
    torch.testing.assert_close(gradient_of(losses[1], dirty), gradient_of(losses[0], clean), rtol=0, atol=0)


def test_compensated_cross_entropy_has_its_optimum_where_the_sampler_draws_the_data() -> None:
    shares = torch.tensor([0.6, 0.3, 0.1])
    logits = (0.9 * shares.log()).requires_grad_()  # sampled at temperature 0.9, it draws the shares
    loss = load_loss("ce-compensated")
    sum(p * loss(logits[None], torch.tensor([i])) for i, p in enumerate(shares.tolist())).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_registered_loss_passes_its_own_check(name: str) -> None:
    check_loss(load_loss(name))


@pytest.mark.parametrize("name", METHODS)
def test_repr_rebuilds_the_loss(name: str) -> None:
    loss = with_reduction(name, "kept")
    rebuilt = eval(repr(loss), {type(loss).__name__: type(loss)})
    assert rebuilt.parameters == loss.parameters


# --- drop-in for torch.nn.CrossEntropyLoss ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ce_equals_torch_cross_entropy(reduction: str, ignore_index: int, shape: tuple[int, ...]) -> None:
    logits, target = random_batch(shape)
    target.view(-1)[1::3] = ignore_index
    logits.requires_grad_()
    ours = type(load_loss("ce"))(reduction=reduction, ignore_index=ignore_index)(logits, target)
    theirs = torch.nn.CrossEntropyLoss(reduction=reduction, ignore_index=ignore_index)(
        logits.reshape(-1, CLASSES), target.reshape(-1)
    ).reshape(ours.shape)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(gradient_of(ours, logits), gradient_of(theirs, logits))


def test_leading_shape_does_not_change_the_loss() -> None:
    logits, target = random_batch((2, 3, 4))
    for name in METHODS:
        flat = load_loss(name)(logits.view(-1, CLASSES), target.view(-1))
        torch.testing.assert_close(load_loss(name)(logits, target), flat)


def test_classes_not_last_is_refused_with_the_remedy() -> None:
    logits, target = random_batch((3, 5))
    with pytest.raises(ValueError, match=r"\(3, 11, 5\).*\(3, 5\).*classes last.*movedim\(1, -1\)"):
        CrossEntropy()(logits.movedim(-1, 1), target)


def test_kept_averages_over_elements_with_non_zero_loss() -> None:
    p = torch.tensor([0.2, 0.5, 0.95, 0.99, 0.5])
    mask = torch.tensor([True, True, True, True, False])
    kept, mean = (loss_of_elements(with_reduction("tce", r), Elements(p.log()), mask) for r in ("kept", "mean"))
    summed = -(p[0].log() + p[1].log())
    torch.testing.assert_close(kept, summed / 2)
    torch.testing.assert_close(mean, summed / 4)


# --- parameters ------------------------------------------------------------------------------------------------------

MISUSES = {
    "unknown": ("focal", {"gama": 2.0}, ["gama", "gamma, reduction, ignore_index"]),
    "wrong type": ("focal", {"gamma": "much"}, ["gamma='much'", "number"]),
    "none": ("tce", {"gamma": None}, ["gamma=None", "number"]),
    "focal negative": ("focal", {"gamma": -1}, ["gamma=-1.0", "gamma ≥ 0"]),
    "focal nan": ("focal", {"gamma": "nan"}, ["gamma=nan", "gamma ≥ 0"]),
    "tce zero": ("tce", {"gamma": 0}, ["gamma=0.0", "0 < gamma ≤ 1"]),
    "tce above one": ("tce", {"gamma": "1.5"}, ["gamma=1.5", "0 < gamma ≤ 1"]),
    "tce nan": ("tce", {"gamma": "nan"}, ["gamma=nan", "0 < gamma ≤ 1"]),
    "reduction": ("ce", {"reduction": "median"}, ["reduction='median'", "'mean', 'kept', 'sum' or 'none'"]),
    "ignore_index": ("ce", {"ignore_index": 0.5}, ["ignore_index=0.5", "integer"]),
    "two at once": ("tce", {"gamma": "x", "delta": 1}, ["gamma='x'", "delta"]),
}


@pytest.mark.parametrize("case", MISUSES)
def test_wrong_parameter_is_a_user_error_in_one_line_naming_what_is_allowed(case: str) -> None:
    name, parameters, expected = MISUSES[case]
    with pytest.raises(UserError) as caught:
        type(load_loss(name))(**parameters)
    assert "\n" not in str(caught.value)
    for text in expected:
        assert text in str(caught.value)


def test_strings_are_converted_to_the_annotated_type() -> None:
    loss = Tempered(beta="0.25", scale="3", reduction="kept", ignore_index="7")
    assert loss.parameters == {"beta": 0.25, "scale": 3, "reduction": "kept", "ignore_index": 7}
    assert type(loss.beta) is float
    assert type(loss.scale) is int


def test_parameter_without_default_must_be_given() -> None:
    with pytest.raises(UserError, match="'scale' has no default"):
        Tempered()


def test_user_loss_computes_what_it_says() -> None:
    log_p = torch.tensor([-1.0, -0.25], requires_grad=True)
    loss = Tempered(beta=0.5, scale=2)
    check_loss(loss)
    torch.testing.assert_close(loss.elementwise(Elements(log_p)), -2 * log_p * (0.5 * log_p).exp())
    assert repr(loss) == "Tempered(scale=2)"


def test_parameters_of_one_object_do_not_leak_into_another() -> None:
    Tempered(beta=0.9, scale=1)
    assert Tempered(scale=1).beta == 0.5


# --- what a loss may see ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "declaration"),
    [
        ("synthetic", 'track: ClassVar = "provenance"'),
        ("logits", "needs_logits: ClassVar = True"),
        ("prediction", "needs_logits: ClassVar = True"),
        ("target", "needs_logits: ClassVar = True"),
    ],
)
def test_restricted_element_raises_and_names_the_declaration(name: str, declaration: str) -> None:
    with pytest.raises(LossError) as caught:
        getattr(Elements(torch.zeros(2)), name)
    assert f"Elements.{name}" in str(caught.value)
    assert declaration in str(caught.value)


def test_restricted_element_is_there_when_allowed() -> None:
    synthetic = torch.tensor([True, False])
    elements = Elements(torch.tensor([-1.0, -2.0]), _restricted={"synthetic": synthetic})
    assert elements.synthetic is synthetic
    assert loss_of_elements(RealOnly(), elements).item() == 1.0
    assert loss_of_elements(RealOnly(), elements, torch.tensor([True, True])).item() == 1.0
    check_loss(RealOnly())


def test_loss_that_did_not_ask_for_logits_sees_none_in_the_drop_in() -> None:
    class Undeclared(Margin):
        needs_logits: ClassVar[bool] = False

    with pytest.raises(LossError, match="needs_logits"):
        Undeclared()(*random_batch((4,)))


def test_loss_that_needs_logits_works_as_drop_in() -> None:
    logits, target = random_batch((3, 4))
    target[0] = -100
    check_loss(Margin())
    expected = F.cross_entropy(logits[1:].reshape(-1, CLASSES), target[1:].reshape(-1))
    torch.testing.assert_close(Margin()(logits, target), expected + 0.01 * (logits[1:].amax(-1) ** 2).mean())


# --- check_loss ------------------------------------------------------------------------------------------------------


def _raises(log_p: Tensor) -> Tensor:
    raise RuntimeError("first line\nsecond line")


BROKEN = {
    "reduced": (lambda x: -x.mean(), r"returned \(\) torch.float32.*one loss per element"),
    "wrong shape": (lambda x: -x[:, None], r"returned \(64, 1\).*\(64,\)"),
    "not a tensor": (lambda x: (-x).tolist(), "returned list; expected a floating tensor"),
    "none": (lambda x: None, "returned NoneType"),
    "integers": (lambda x: (-x).long(), "torch.int64"),
    "NaN": (lambda x: (x - 1).log(), "NaN or infinity"),
    "infinite gradient": (lambda x: (-x).sqrt(), r"NaN or infinity \(loss or gradient\)"),
    "detached": (lambda x: -x.detach(), "no gradient"),
    "constant": (torch.ones_like, "no gradient"),
    "exception": (_raises, "RuntimeError: first line second line .*test_losses.py:"),
    "typo": (lambda x: x.exq(), "AttributeError.*exq"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_check_refuses_a_broken_loss_in_one_line(case: str) -> None:
    function, message = BROKEN[case]

    class Broken(Loss):
        def elementwise(self, e: Elements) -> Tensor:
            return function(e.log_p)

    with pytest.raises(LossError, match=f"Broken.*{message}") as caught:
        check_loss(Broken())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_check_refuses_a_reduction_that_cannot_train(reduction: str) -> None:
    with pytest.raises(LossError, match=f"'{reduction}'.*'mean' and 'kept'"):
        check_loss(CrossEntropy(reduction=reduction))


def test_check_refuses_a_loss_without_elementwise() -> None:
    class Empty(Loss):
        pass

    with pytest.raises(LossError, match="Empty must define elementwise"):
        check_loss(Empty())


def test_check_covers_the_log_probabilities_its_message_names() -> None:
    seen = []

    class Recorder(CrossEntropy):
        def elementwise(self, e: Elements) -> Tensor:
            seen.append(e.log_p.detach())
            return -e.log_p

    check_loss(Recorder())
    assert seen[0].min().item() == pytest.approx(-30, abs=1e-3)
    assert seen[0].max().item() == 0

"""The Gaussian-mixture workload: its log p, its integrals over the known truth, its sampler, its training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from tiny_task import write_tiny_task
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from collapsebench.api import run
from collapsebench.errors import Diverged, TaskError
from collapsebench.losses import Elements, Loss, cross_entropy
from collapsebench.methods import load_method
from collapsebench.policies import TrainingSet
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.training import train
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.mixture.settings import MixtureModel
from collapsebench.workloads.mixture.workload import GmmWorkload, Mixture

RANDOMNESS = Randomness("tiny-gmm@1", 0)
DRAWS = 100_000
ERRORS = 4.5  # Monte Carlo standard errors
TRUTH = {"weights": [0.8, 0.2], "means": [-2.0, 2.0], "scales": [1.0, 0.5]}  # of the tiny task
THREE = {"weights": [0.5, 0.3, 0.2], "means": [-1.0, 0.5, 4.0], "scales": [1.0, 0.3, 2.0]}
NORMAL = {"weights": [1.0], "means": [1.5], "scales": [0.7]}


def mixture(weights: list[float], means: list[float], scales: list[float]) -> Mixture:
    return Mixture(MixtureModel(weights=tuple(weights), means=tuple(means), scales=tuple(scales)))


@pytest.fixture
def workload(tmp_path: Path) -> Callable[..., GmmWorkload]:
    """The workload of the tiny task, with changes."""

    def of(**changes: Any) -> GmmWorkload:
        loaded = load_workload(load_task(write_tiny_task(tmp_path, "gmm", **changes)), "cpu")
        assert isinstance(loaded, GmmWorkload)
        return loaded

    return of


def with_truth(truth: dict[str, list[float]]) -> dict[str, Any]:
    """Changes of the tiny task to another truth."""
    return {"data": {"source": "mixture", "points": 200, **truth}}


def drawn(workload: GmmWorkload, model: Mixture, n: int) -> Tensor:
    prompts = TrainingSet.of(torch.zeros(n, dtype=torch.float64), 0)
    return workload.sample(model, prompts, 0, RANDOMNESS, lambda _: None)


def measured(workload: GmmWorkload, model: Mixture) -> dict[str, float]:
    values = workload.evaluate(model, torch.tensor([0.0, 1.0], dtype=torch.float64), lambda _: None)
    return {name: m.value for name, m in values.items()}


# log p


POINTS = torch.linspace(-9.0, 9.0, 361, dtype=torch.float64)
MIXTURES = [TRUTH, THREE, NORMAL]


def log_p(model: Mixture, truth: Mixture, points: Tensor) -> Tensor:
    """What a loss sees of a model of this truth."""
    return model.relative_log_p(points, truth.log_peaks(points).detach())


def plain(model: Mixture) -> MixtureSameFamily:
    """The same mixture as torch has it; gradients reach the model."""
    return MixtureSameFamily(Categorical(logits=model.weight_logits), Normal(model.means, model.log_scales.exp()))


@given(
    point=st.floats(-1e6, 1e6),
    mean=st.floats(-1e3, 1e3),
    log_scale=st.floats(-7.0, 7.0),
    weight=st.floats(1e-6, 1 - 1e-6),
)
def test_log_p_is_finite_and_not_above_0(point: float, mean: float, log_scale: float, weight: float) -> None:
    model = mixture([weight, 1 - weight], [mean, 0.0], [math.exp(log_scale), 1.0])
    points = torch.tensor([point, mean, 0.0], dtype=torch.float64)
    for truth in (model, mixture(**TRUTH)):
        values = log_p(model, truth, points)
        assert torch.isfinite(values).all()
        assert (values <= 0).all()


def test_log_p_of_the_truth_is_0_at_the_centre_of_a_lone_component() -> None:
    truth = mixture([0.9, 0.1], [-50.0, 50.0], [3.0, 0.01])
    assert log_p(truth, truth, truth.means.detach()).tolist() == [0.0, 0.0]


def test_log_p_of_one_true_gaussian_is_minus_half_z_squared() -> None:
    z = (POINTS - 1.5) / 0.7
    truth = mixture(**NORMAL)
    assert torch.allclose(log_p(truth, truth, POINTS), -0.5 * z.square(), rtol=0, atol=1e-12)


def test_log_p_sees_that_a_model_is_wider_than_the_truth_and_not_that_it_is_sharper() -> None:
    truth, centre = mixture(**NORMAL), torch.tensor(NORMAL["means"], dtype=torch.float64)
    assert log_p(mixture([1.0], [1.5], [1.4]), truth, centre).item() == pytest.approx(-math.log(2))
    assert log_p(mixture([1.0], [1.5], [0.07]), truth, centre).item() == 0.0


@pytest.mark.parametrize("parameters", MIXTURES)
def test_peak_of_a_point_is_that_of_its_components_averaged_by_responsibility(
    parameters: dict[str, list[float]],
) -> None:
    weights, means, scales = (torch.tensor(v, dtype=torch.float64) for v in parameters.values())
    shares = weights * Normal(means, scales).log_prob(POINTS[:, None]).exp()
    heights = weights / (scales * math.sqrt(2 * math.pi))
    expected = (shares / shares.sum(1, keepdim=True)) @ heights
    assert torch.allclose(mixture(**parameters).log_peaks(POINTS).exp(), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("truth", MIXTURES)
@pytest.mark.parametrize("parameters", MIXTURES)
def test_log_p_has_the_value_of_the_density_ratio_and_the_gradient_of_the_log_density(
    parameters: dict[str, list[float]], truth: dict[str, list[float]]
) -> None:
    model = mixture(**parameters)
    peaks = mixture(**truth).log_peaks(POINTS).detach()
    ours, theirs = model.relative_log_p(POINTS, peaks), plain(model).log_prob(POINTS)
    assert torch.allclose(ours, (theirs - peaks).clamp(max=0.0), rtol=1e-10, atol=1e-10)
    cotangent = torch.randn(len(POINTS), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradients = [torch.autograd.grad(value, list(model.parameters()), cotangent) for value in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("parameters", MIXTURES)
def test_log_p_does_not_depend_on_the_unit(parameters: dict[str, list[float]]) -> None:
    def in_unit(values: dict[str, list[float]], unit: float) -> Mixture:
        return mixture(values["weights"], *([unit * v for v in values[name]] for name in ("means", "scales")))

    ours, theirs = (log_p(in_unit(parameters, u), in_unit(TRUTH, u), POINTS * u) for u in (1.0, 10.0))
    assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)


# Integrals


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.3, 0.5), (-2.0, 3.0), (5.0, 0.2), (1.001, 0.999)])
def test_divergence_between_two_gaussians_is_the_closed_form(workload, mean: float, scale: float) -> None:
    m, s = 1.0, 1.5
    task = workload(**with_truth({"weights": [1.0], "means": [m], "scales": [s]}))
    expected = math.log(scale / s) + (s**2 + (m - mean) ** 2) / (2 * scale**2) - 0.5
    assert measured(task, mixture([1.0], [mean], [scale]))["kl_to_truth"] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("truth", MIXTURES)
def test_divergence_of_the_truth_to_itself_is_0(workload, truth: dict[str, list[float]]) -> None:
    assert measured(workload(**with_truth(truth)), mixture(**truth))["kl_to_truth"] == pytest.approx(0.0, abs=1e-12)


def density(truth: dict[str, list[float]], x: float) -> float:
    return float(sum(w * norm.pdf(x, m, s) for w, m, s in zip(*truth.values(), strict=True)))


@pytest.mark.parametrize("truth", [TRUTH, THREE])
def test_floor_is_the_gaussian_with_the_moments_of_the_data(workload, truth: dict[str, list[float]]) -> None:
    task = workload(**with_truth(truth))
    points = task.real.items.numpy()

    def integrand(x: float) -> float:
        p = density(truth, x)
        return p * (math.log(p) - norm.logpdf(x, points.mean(), points.std()))

    expected = sum(quad(integrand, a, b, limit=200)[0] for a, b in ((-10, -1), (-1, 0.5), (0.5, 3), (3, 20)))
    floors = task.floors()
    assert floors["kl_to_truth"] == pytest.approx(expected, rel=1e-6)
    assert floors["minority_mass"] == 0.0


def test_minority_mass_of_separated_components_is_the_smaller_weight(workload) -> None:
    truth = {"weights": [0.25, 0.75], "means": [10.0, -10.0], "scales": [1.0, 0.5]}
    task = workload(**with_truth(truth))
    assert measured(task, mixture(**truth))["minority_mass"] == pytest.approx(0.25, abs=1e-9)
    collapsed = mixture([0.001, 0.999], truth["means"], truth["scales"])
    assert measured(task, collapsed)["minority_mass"] == pytest.approx(0.001, abs=1e-9)


def test_minority_mass_of_the_tiny_truth_is_its_integral_where_the_smaller_component_dominates(workload) -> None:
    x = np.linspace(-4.0, 12.0, 1_600_001)
    parts = [w * norm.pdf(x, m, s) for w, m, s in zip(*TRUTH.values(), strict=True)]
    expected = np.trapezoid(np.where(parts[1] > parts[0], parts[0] + parts[1], 0.0), x)
    assert measured(workload(), mixture(**TRUTH))["minority_mass"] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("parameters", MIXTURES)
def test_model_variance_is_that_of_the_mixture(workload, parameters: dict[str, list[float]]) -> None:
    weights, means, scales = (np.array(v) for v in parameters.values())
    expected = weights @ (scales**2 + means**2) - (weights @ means) ** 2
    assert measured(workload(), mixture(**parameters))["model_variance"] == pytest.approx(expected, rel=1e-12)


def test_sample_moments_are_those_of_the_samples(workload) -> None:
    values = measured(workload(), mixture(**TRUTH))  # of the samples 0 and 1
    assert (values["sample_mean"], values["sample_variance"]) == (0.5, 0.25)


# Sampling


SEPARATED = {"weights": [0.2, 0.7, 0.1], "means": [-30.0, 0.0, 30.0], "scales": [1.0, 2.0, 0.5]}


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_draws_have_the_shares_means_and_variances_of_the_tempered_components(workload, temperature: float) -> None:
    points = drawn(workload(**{"workload.sampler": {"temperature": temperature}}), mixture(**SEPARATED), DRAWS).numpy()
    powers = np.array(SEPARATED["weights"]) ** (1 / temperature)
    nearest = np.abs(points[:, None] - SEPARATED["means"]).argmin(1)
    for k, share in enumerate(powers / powers.sum()):
        own = points[nearest == k]
        variance = SEPARATED["scales"][k] ** 2 * temperature
        assert abs(len(own) / DRAWS - share) < ERRORS * math.sqrt(share * (1 - share) / DRAWS)
        assert abs(own.mean() - SEPARATED["means"][k]) < ERRORS * math.sqrt(variance / len(own))
        assert abs(own.var() / variance - 1) < ERRORS * math.sqrt(2 / len(own))


def test_real_points_come_from_the_truth_and_are_the_same_for_every_seed(workload) -> None:
    one, other = (workload(**{"data.points": DRAWS}) for _ in range(2))
    assert one.data_sha256 == other.data_sha256
    points = one.real.items.numpy()
    weights, means, scales = (np.array(v) for v in TRUTH.values())
    variance = weights @ (scales**2 + means**2) - (weights @ means) ** 2
    assert abs(points.mean() - weights @ means) < ERRORS * math.sqrt(variance / DRAWS)
    assert points.var() == pytest.approx(variance, rel=0.02)


def test_points_that_are_not_finite_diverge(workload) -> None:
    model = mixture(**TRUTH)
    with torch.no_grad():
        model.means[0] = math.nan
    with pytest.raises(Diverged, match="sampled points not finite"):
        drawn(workload(), model, 100)


# Training


def trained(workload: GmmWorkload, loss: Loss) -> Mixture:
    model = workload.new_model(RANDOMNESS)
    train(workload, model, workload.real, loss, 0, RANDOMNESS, lambda _: None)
    return model


NAMES = {"weights": "weight_logits", "means": "means", "scales": "log_scales"}


@pytest.mark.parametrize("learned", [["weights"], ["means"], ["scales"], ["weights", "scales"]])
def test_training_changes_only_what_is_learned(workload, learned: list[str]) -> None:
    task = workload(**{"workload.model.learned": learned})
    start, end = task.new_model(RANDOMNESS).state_dict(), trained(task, load_method("ce").make_loss()).state_dict()
    changed = {part for part, name in NAMES.items() if not torch.equal(start[name], end[name])}
    assert changed == set(learned)


def test_cross_entropy_comes_close_to_the_truth(workload) -> None:
    task = workload()
    before, after = task.new_model(RANDOMNESS), trained(task, load_method("ce").make_loss())
    assert measured(task, after)["kl_to_truth"] < 0.1 * measured(task, before)["kl_to_truth"]


@pytest.mark.parametrize("learned", [["weights", "means", "scales"], ["scales"]])
def test_saved_model_is_read_back_exactly(workload, tmp_path: Path, learned: list[str]) -> None:
    task = workload(**{"workload.model.learned": learned})
    model = trained(task, load_method("ce").make_loss())
    task.save_model(model, tmp_path / "model.safetensors")
    again = task.load_model(tmp_path / "model.safetensors")
    assert model.state_dict().keys() == again.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert torch.equal(drawn(task, model, 10), drawn(task, again, 10))


class NaNLate(Loss):
    """Breaks in the last update."""

    track: ClassVar = "loss"

    def elementwise(self, e: Elements) -> Tensor:
        return cross_entropy(e.log_p) * (math.nan if e.step == 59 else 1.0)


def test_loss_that_returns_nan_diverges(workload) -> None:
    with pytest.raises(Diverged, match="generation 0 not finite"):
        trained(workload(), NaNLate())


def test_absurd_learning_rate_is_a_diverged_generation(tmp_path: Path) -> None:
    stage = {"updates": 3, "learning_rate": 1e300, "decay": "none"}
    task = write_tiny_task(tmp_path, "gmm", **{"workload.training.first": stage})
    path = run(task, "ce", out=tmp_path / "runs", generations=1, device="cpu")
    assert [RunDirectory(path).state(g) for g in range(2)] == ["diverged", "missing"]


class Records(Loss):
    """Keeps the log-probabilities of the first update."""

    seen: ClassVar[list[Tensor]] = []

    def elementwise(self, e: Elements) -> Tensor:
        if e.step == 0:
            Records.seen.append(e.log_p.detach())
        return cross_entropy(e.log_p)


def test_losses_see_log_p_relative_to_the_peaks_of_the_truth(workload) -> None:
    task = workload(**{"workload.training.batch_size": 200})  # all points
    Records.seen.clear()
    trained(task, Records())
    expected = log_p(task.new_model(RANDOMNESS), mixture(**TRUTH), task.real.items).detach()
    assert torch.allclose(Records.seen[0].sort().values, expected.sort().values, rtol=1e-12, atol=1e-12)


def core_and_edge() -> tuple[Tensor, Tensor]:
    """Points of `NORMAL` where p > 0.9, and where p < 0.9."""
    radius = math.sqrt(-2 * math.log(0.9))
    core, edge = (torch.tensor(z, dtype=torch.float64) for z in ([-0.999, 0.0, 0.5, 0.999], [-1.001, 1.001, 3.0]))
    return tuple(NORMAL["means"][0] + NORMAL["scales"][0] * radius * z for z in (core, edge))


def test_tce_has_no_gradient_from_the_core_of_a_mode() -> None:
    loss, model = load_method("tce:gamma=0.9").make_loss(), mixture(**NORMAL)
    core, edge = core_and_edge()

    def gradients(points: Tensor) -> tuple[Tensor, ...]:
        value = loss.elementwise(Elements(log_p(model, mixture(**NORMAL), points))).sum()
        return torch.autograd.grad(value, [model.means, model.log_scales])

    assert not any(g.any() for g in gradients(core))
    both, alone = gradients(torch.cat([core, edge])), gradients(edge)
    assert all(torch.equal(one, other) and bool(one.any()) for one, other in zip(both, alone, strict=True))


@pytest.mark.parametrize(("method", "moves"), [("tce", False), ("ce", True)])
def test_tce_learns_nothing_from_the_core_of_a_mode(workload, method: str, moves: bool) -> None:
    task = workload(**with_truth(NORMAL), **{"workload.model": NORMAL})
    model, start = task.new_model(RANDOMNESS), task.new_model(RANDOMNESS).state_dict()
    core = TrainingSet.of(core_and_edge()[0], 0)
    train(task, model, core, load_method(method).make_loss(), 0, RANDOMNESS, lambda _: None)
    assert any(not torch.equal(start[name], value) for name, value in model.state_dict().items()) == moves


# What people look at, and what they get wrong


@pytest.mark.parametrize("truth", MIXTURES)
def test_density_that_reports_draw_integrates_to_1(workload, tmp_path: Path, truth: dict[str, list[float]]) -> None:
    task = workload(**with_truth(truth))
    prompts = TrainingSet.of(torch.zeros(2), 0)
    task.show(tmp_path, mixture([0.5, 0.5], [-1.0, 1.0], [1.0, 1.0]), torch.zeros(2), prompts, RANDOMNESS)
    curves = json.loads((tmp_path / "density.json").read_text())
    assert curves.keys() == {"x", "density", "truth"}
    for name in ("density", "truth"):
        assert np.trapezoid(curves[name], curves["x"]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.weights": [0.8, 0.1]}, "data: weights add up to 0.9, not to 1"),
        ({"data.means": [-2.0]}, "data: weights, means and scales need one number per component"),
        ({"data.scales": [1.0, 0.0]}, "data.scales.1: Input should be greater than 0 (given: 0.0)"),
        ({"data.points": 1}, "data.points: Input should be greater than or equal to 2 (given: 1)"),
        ({"workload.model.scales": [1.0]}, "workload.model: weights, means and scales need one number per component"),
        ({"workload.model.weights": [1.0, 0.0]}, "workload.model: weights and scales must be positive"),
        ({"workload.model.learned": []}, "workload.model: weights and scales must be positive, and something"),
        ({"workload.model.learned": ["colour"]}, "workload.model.learned.0: Input should be 'weights', 'means' or"),
        ({"workload.sampler": {"temperature": 0}}, "workload.sampler.temperature: Input should be greater than 0"),
        ({"workload.training.epochs": 3}, "workload.training.epochs: unknown key (given: 3)"),
    ],
)
def test_mistake_in_a_task_file_is_named_by_its_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError) as caught:
        load_task(write_tiny_task(tmp_path, "gmm", **changes))
    assert f"\n  {message}" in str(caught.value)

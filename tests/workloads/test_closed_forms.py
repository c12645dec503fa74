"""The recursion against mathematics: chains of Gaussian mixtures whose collapse is known in closed form.

All chains are the harness's own: `collapsebench.running.loop.Chain`, writing to a run directory. The checks are
functions that raise AssertionError with their name first, and the last section shows that each fails when the loop is
broken on purpose. Notation: n points per generation, v the maximum-likelihood variance (denominator n) that a model is
fitted to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import write_tiny_task

from collapsebench.api import run
from collapsebench.methods import load_method
from collapsebench.policies import TrainingSet, choose
from collapsebench.running import loop
from collapsebench.running.artifacts import RunDirectory
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.task_spec import Policy
from collapsebench.workloads import load_workload

N = 8  # points per generation: 1 - 1/n is 0.27 standard deviations of a ratio below 1
GENERATIONS = 8
CHAINS = 40  # 320 ratios: 1 - 1/n is 4.8 standard errors below 1, the mean log ratio 8.8 below 0
FEW = 6  # chains that suffice to catch a broken loop
ACCUMULATING = 5  # generations under accumulate, where training takes longer and longer
ACCUMULATING_CHAINS = 24
ERRORS = 4.0  # Monte Carlo standard errors within which a mean must be
CONVERGED = 2e-3  # relative distance of a fitted variance to the maximum-likelihood one

Array = np.ndarray


@pytest.fixture(scope="module", autouse=True)
def _fast_and_exact() -> Iterator[None]:
    """One thread as in every cell; and no flushing to the disk, which would take half of the time here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
    torch.set_num_threads(threads)


def measured(task: Path, out: Path, seed: int, generations: int) -> list[dict[str, float]]:
    """The metrics of every generation of one chain."""
    loaded = load_task(task)
    store = RunDirectory.of(out, loaded.id, "ce", seed)
    chain = loop.Chain(loaded, load_method("ce"), seed, load_workload(loaded, "cpu"), store)
    chain.run(generations)
    return [_values(store, g) for g in range(generations + 1)]


def _values(store: RunDirectory, g: int) -> dict[str, float]:
    return {name: m["value"] for name, m in store.read(g, "metrics.json")["metrics"].items()}


def within_errors(name: str, mean: float, expected: float, error: float) -> None:
    """Assert that a Monte Carlo mean is as close to its expectation as its standard error allows."""
    assert abs(mean - expected) < ERRORS * error, f"{name}: {mean:.4f}, expected {expected:.4f} ± {error:.4f}"


# One Gaussian


@dataclass(frozen=True)
class Variances:
    """Chains of one Gaussian.

    Attributes:
        real_mean, real: mean and ML variance of the real points.
        means, drawn: (chains, G+1), mean and ML variance of every generation's samples.
        fitted: (chains, G+1), the models' variances.
    """

    real_mean: float
    real: float
    means: Array
    drawn: Array
    fitted: Array

    def first(self, chains: int) -> Variances:
        """The first so many of the chains."""
        return Variances(self.real_mean, self.real, *(a[:chains] for a in (self.means, self.drawn, self.fitted)))


def write_gaussian(folder: Path, **changes: Any) -> Path:
    """A task that fits one Gaussian to n points by full batches until it has converged; the truth is N(0, 1)."""
    stage = {"updates": 32, "learning_rate": 0.1, "decay": "cosine"}
    training = {
        "batch_size": N, "weight_decay": 0.0, "clip_norm": None, "betas": [0.5, 0.5],
        "first": stage, "later": dict(stage),
    }  # fmt: skip
    gaussian = {
        "data": {"source": "mixture", "weights": [1.0], "means": [0.0], "scales": [1.0], "points": N},
        "policy": {"name": "replace", "size": N},
        "horizon": GENERATIONS,
        "workload": {
            "kind": "gmm",
            "model": {"weights": [1.0], "means": [0.0], "scales": [1.0]},
            "training": training,
            "sampler": {"temperature": 1.0},
        },
        "scored": {"kl_to_truth": {"reference": 0.1, "floor": 1.0}},
    }
    return write_tiny_task(folder, "gmm", **gaussian | changes)


def variances(task: Path, out: Path, seeds: Iterable[int], generations: int = GENERATIONS) -> Variances:
    """Run one chain per seed."""
    chains = [measured(task, out, seed, generations) for seed in seeds]

    def of(name: str) -> Array:
        return np.array([[values[name] for values in chain] for chain in chains])

    real = load_workload(load_task(task), "cpu").real.items.numpy()
    return Variances(real.mean(), real.var(), of("sample_mean"), of("sample_variance"), of("model_variance"))


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gaussian(tmp_path_factory.mktemp("gaussian"))


@pytest.fixture(scope="module")
def replaced(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Variances:
    """Chains under policy replace."""
    return variances(task, tmp_path_factory.mktemp("replace"), range(CHAINS))


def check_fit(chains: Variances) -> None:
    """Every model is the maximum-likelihood fit to the samples of the generation before; model 0 to the real points."""
    given = np.column_stack([np.full(len(chains.drawn), chains.real), chains.drawn[:, :-1]])
    _check_converged(chains.fitted, given)


def _check_converged(fitted: Array, given: Array) -> None:
    worst = np.abs(fitted / given - 1).max()
    assert worst < CONVERGED, f"fit: variances differ by {worst:.2g} from those of the data that was to be fitted"


def check_shrinkage(chains: Variances) -> None:
    """v' / v is χ²(n-1) / n, whatever v is: its mean is 1 - 1/n, and so is the factor per generation of E[v]."""
    ratios = chains.drawn[:, 1:] / chains.drawn[:, :-1]
    within_errors("shrinkage", ratios.mean(), 1 - 1 / N, math.sqrt(2 * (N - 1)) / N / math.sqrt(ratios.size))
    half = torch.tensor((N - 1) / 2, dtype=torch.float64)
    mean_log = float(torch.digamma(half)) + math.log(2 / N)
    sd_log = math.sqrt(torch.polygamma(1, half))
    within_errors("log shrinkage", np.log(ratios).mean(), mean_log, sd_log / math.sqrt(ratios.size))


def check_total_shrinkage(chains: Variances) -> None:
    """E[v_G] / v_0 is (1 - 1/n)^G, with relative variance (1 + 2 / (n-1))^G - 1: products of independent ratios."""
    generations = chains.drawn.shape[1] - 1
    total = chains.drawn[:, -1] / chains.drawn[:, 0]
    expected = (1 - 1 / N) ** generations
    relative = math.sqrt((1 + 2 / (N - 1)) ** generations - 1)
    within_errors("total shrinkage", total.mean(), expected, expected * relative / math.sqrt(len(total)))


def check_generations(chains: Variances) -> None:
    """The ratios of successive generations are uncorrelated."""
    logs = np.diff(np.log(chains.drawn), axis=1)
    _check_uncorrelated("generations", logs[:, :-1], logs[:, 1:])


def check_chains(chains: Variances) -> None:
    """The ratios of different seeds in the same generation are uncorrelated."""
    logs = np.diff(np.log(chains.drawn), axis=1)
    _check_uncorrelated("chains", logs[:-1], logs[1:])


def _check_uncorrelated(name: str, one: Array, other: Array) -> None:
    correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
    within_errors(f"independence of {name}", correlation, 0.0, 1 / math.sqrt(one.size))


CHECKS = (check_fit, check_shrinkage, check_total_shrinkage, check_generations, check_chains)


@pytest.mark.parametrize("check", CHECKS)
def test_variance_under_replace_shrinks_by_one_minus_one_over_n_per_generation(
    replaced: Variances, check: Callable[[Variances], None]
) -> None:
    check(replaced)


def test_enough_chains_tell_shrinkage_from_a_stationary_variance(replaced: Variances) -> None:
    logs = np.diff(np.log(replaced.drawn), axis=1)  # of a stationary variance they average 0
    assert logs.mean() < -ERRORS * logs.std() / math.sqrt(logs.size)
    assert replaced.drawn[:, -1].mean() < 0.6 * replaced.real


def test_chain_run_by_the_public_function_is_the_chain_that_is_checked(
    task: Path, replaced: Variances, tmp_path: Path
) -> None:
    store = RunDirectory(run(task, "ce", seed=1, out=tmp_path, generations=2, device="cpu"))
    assert [_values(store, g)["sample_variance"] for g in range(3)] == replaced.drawn[1, :3].tolist()


# Accumulated data


@pytest.fixture(scope="module")
def accumulated(tmp_path_factory: pytest.TempPathFactory) -> Variances:
    """Chains under policy accumulate: n real points, n more per generation.

    A batch holds every point of every generation's set equally often, so that gradients are those of the whole set.
    """
    folder = tmp_path_factory.mktemp("accumulate")
    changes = {
        "policy.name": "accumulate",
        "workload.training.batch_size": N * math.lcm(*range(1, ACCUMULATING + 2)),
        "workload.training.later.updates": 10,  # times g + 1
    }
    return variances(write_gaussian(folder, **changes), folder / "runs", range(ACCUMULATING_CHAINS), ACCUMULATING)


def pooled(chains: Variances) -> Array:
    """(chains, G+1): ML variance of the real points and all samples before each generation, from their moments."""
    means, squares = chains.means[:, :-1], (chains.drawn + chains.means**2)[:, :-1]
    means = np.insert(means, 0, chains.real_mean, axis=1)
    squares = np.insert(squares, 0, chains.real + chains.real_mean**2, axis=1)
    sets = np.arange(1, means.shape[1] + 1)
    return squares.cumsum(1) / sets - (means.cumsum(1) / sets) ** 2


def accumulated_factor(generation: int) -> float:
    """E[v_g] / v_0 under accumulate.

    Generation g is fitted to g·n points of mean m and ML variance v, which the generation before was fitted to, and n
    points drawn from N(m, v), of mean m' and ML variance s. Their variance is (g v + s) / (g + 1) + g (m' - m)² /
    (g + 1)², with E[s] = v (1 - 1/n) and E[(m' - m)²] = v / n; so its expectation is v (1 - 1 / (n (g + 1)²)).
    """
    return math.prod(1 - 1 / (N * (k + 1) ** 2) for k in range(1, generation + 1))


LIMIT = math.sin(math.pi / math.sqrt(N)) / (math.pi / math.sqrt(N)) / (1 - 1 / N)  # Euler's product for the sine


def test_limit_of_the_accumulated_variance_is_the_infinite_product() -> None:
    assert accumulated_factor(100_000) == pytest.approx(LIMIT, abs=1e-5)
    assert LIMIT > 0.9


def test_models_under_accumulate_fit_all_data_so_far(accumulated: Variances) -> None:
    _check_converged(accumulated.fitted, pooled(accumulated))


@pytest.mark.parametrize("g", range(1, ACCUMULATING + 1))
def test_variance_under_accumulate_is_the_bounded_product(accumulated: Variances, g: int) -> None:
    factors = accumulated.fitted[:, g] / accumulated.real
    error = factors.std(ddof=1) / math.sqrt(len(factors))
    within_errors(f"variance of generation {g}", factors.mean(), accumulated_factor(g), error)
    assert factors.mean() > LIMIT - ERRORS * error


def test_variance_under_replace_is_far_below_the_one_under_accumulate(
    accumulated: Variances, replaced: Variances
) -> None:
    kept = accumulated.fitted[:, ACCUMULATING]
    lost = replaced.fitted[: len(kept), ACCUMULATING]
    assert lost.mean() < 0.75 * LIMIT * accumulated.real
    logs = np.log(kept / lost)
    assert logs.mean() > ERRORS * logs.std(ddof=1) / math.sqrt(len(logs))


# A share of real data


MINORITY = 0.3  # of the truth; generation 0 starts from 0.9
POINTS = 20_000
SHARES = {0.3: 3, 0.6: 2}  # real share: generations, before χ² disappears in the noise


def write_mix(folder: Path, alpha: float) -> Path:
    """A task that fits the weights of two components 20 σ apart, and leaves generation 0 where it starts: far off."""
    later = {"updates": 20, "learning_rate": 0.2, "decay": "cosine"}
    changes: dict[str, Any] = {
        "data": {
            "source": "mixture", "weights": [1 - MINORITY, MINORITY], "means": [-10.0, 10.0], "scales": [1.0, 1.0],
            "points": POINTS,
        },
        "policy": {"name": "mix", "size": POINTS, "real_share": alpha},
        "workload.model": {
            "weights": [0.1, 0.9], "means": [-10.0, 10.0], "scales": [1.0, 1.0], "learned": ["weights"],
        },
        "workload.training": {
            "batch_size": POINTS, "weight_decay": 0.0, "clip_norm": None, "betas": [0.5, 0.5],
            "first": {"updates": 1, "learning_rate": 1e-12, "decay": "none"}, "later": later,
        },
    }  # fmt: skip
    return write_tiny_task(folder, "gmm", **changes)


def minority_weights(folder: Path, alpha: float) -> list[float]:
    """The smaller component's weight in every generation of one chain."""
    chain = measured(write_mix(folder, alpha), folder / "runs", 0, SHARES[alpha])
    return [values["minority_mass"] for values in chain]


def chi_square(weight: float) -> float:
    """χ² divergence of the weights (1 - w, w) to the truth's: Σ (w - w*)² / w*."""
    return (weight - MINORITY) ** 2 * (1 / MINORITY + 1 / (1 - MINORITY))


def check_contraction(weights: list[float], alpha: float) -> None:
    """χ² shrinks by (1 - α)² per generation (arXiv 2602.16601).

    The share of the component in n training points, of which α n are real, has the variance
    ((1 - α) w (1 - w) + α w* (1 - w*)) / n; its error enters the ratio 2 (1 - α) / |w - w*| times.
    """
    assert weights[0] == pytest.approx(0.9, abs=1e-6), "contraction: generation 0 must start far from the truth"
    for old, new in pairwise(weights):
        variance = ((1 - alpha) * old * (1 - old) + alpha * MINORITY * (1 - MINORITY)) / POINTS
        error = 2 * (1 - alpha) * math.sqrt(variance) / abs(old - MINORITY)
        within_errors("contraction", chi_square(new) / chi_square(old), (1 - alpha) ** 2, error)


@pytest.mark.parametrize("alpha", SHARES)
def test_divergence_under_mix_shrinks_by_the_squared_synthetic_share(tmp_path: Path, alpha: float) -> None:
    weights = minority_weights(tmp_path, alpha)
    check_contraction(weights, alpha)
    for wrong in (alpha - 0.1, alpha + 0.1):
        with pytest.raises(AssertionError, match=r"^contraction"):
            check_contraction(weights, wrong)


# Loops that are broken on purpose


def real_data_leaks(patch: pytest.MonkeyPatch) -> None:
    """A quarter of every training set is silently swapped for real items."""
    original = loop.next_training_set

    def leaky(
        policy: Policy, generation: int, horizon: int, real: TrainingSet, samples_of: Any, generator: torch.Generator
    ) -> TrainingSet:
        data = original(policy, generation, horizon, real, samples_of, generator)
        leaked = choose(real, len(data) // 4, generator).items
        return TrainingSet(torch.cat([data.items[: -len(leaked)], leaked]), data.made_by)

    patch.setattr(loop, "next_training_set", leaky)


def trained_like_the_control(patch: pytest.MonkeyPatch) -> None:
    """Every generation trains on real data."""

    def real_only(policy: Policy, generation: int, horizon: int, real: TrainingSet, *rest: Any) -> TrainingSet:
        return choose(real, policy.size, rest[-1])

    patch.setattr(loop, "next_training_set", real_only)


def samples_of_the_generation_before_the_last(patch: pytest.MonkeyPatch) -> None:
    """Generation g trains on the samples of g - 2."""
    original = loop.Chain._samples
    patch.setattr(loop.Chain, "_samples", lambda self, g: original(self, max(g - 1, 0)))


def seeds_ignore_the_generation(patch: pytest.MonkeyPatch) -> None:
    """The same noise in every generation."""
    original = Randomness.number
    patch.setattr(Randomness, "number", lambda self, generation, purpose: original(self, 0, purpose))


def seeds_ignore_the_chain(patch: pytest.MonkeyPatch) -> None:
    """The same noise in every chain."""
    original = Randomness.number
    patch.setattr(Randomness, "number", lambda self, *rest: original(Randomness(self.task, 0), *rest))


Breakage = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def broken(task: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Breakage], Variances]:
    """A few chains of a broken loop; run once per breakage."""
    found: dict[Breakage, Variances] = {}

    def chains_of(breakage: Breakage) -> Variances:
        if breakage not in found:
            with pytest.MonkeyPatch.context() as patch:
                breakage(patch)
                found[breakage] = variances(task, tmp_path_factory.mktemp("broken"), range(FEW))
        return found[breakage]

    return chains_of


@pytest.mark.parametrize("check", CHECKS)
def test_few_chains_of_the_whole_loop_pass_every_check(replaced: Variances, check: Callable[[Variances], None]) -> None:
    check(replaced.first(FEW))


@pytest.mark.parametrize(
    ("breakage", "check", "name"),
    [
        (real_data_leaks, check_fit, "fit"),
        (real_data_leaks, check_shrinkage, "shrinkage"),
        (trained_like_the_control, check_fit, "fit"),
        (trained_like_the_control, check_shrinkage, "shrinkage"),
        (samples_of_the_generation_before_the_last, check_fit, "fit"),
        (samples_of_the_generation_before_the_last, check_shrinkage, "shrinkage"),
        (samples_of_the_generation_before_the_last, check_generations, "independence of generations"),
        (seeds_ignore_the_generation, check_generations, "independence of generations"),
        (seeds_ignore_the_chain, check_chains, "independence of chains"),
    ],
)
def test_broken_loop_is_caught(
    broken: Callable[[Breakage], Variances],
    breakage: Breakage,
    check: Callable[[Variances], None],
    name: str,
) -> None:
    with pytest.raises(AssertionError, match=f"^{name}: "):
        check(broken(breakage))


@pytest.mark.parametrize(
    "breakage", [real_data_leaks, trained_like_the_control, samples_of_the_generation_before_the_last]
)
def test_broken_mix_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breakage: Breakage) -> None:
    breakage(monkeypatch)
    with pytest.raises(AssertionError, match=r"^contraction: "):
        check_contraction(minority_weights(tmp_path, 0.3), 0.3)

"""Chains of a known table: what is exact about the truth, the distance to it, what is drawn, and what is fitted."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import tiny_spec, write_based_task, write_tiny_task
from torch import Tensor

from collapsebench.api import run
from collapsebench.data.markov import transition_weights
from collapsebench.data.sources import MarkovData
from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.markov.workload import (
    MarkovWorkload,
    TransitionTable,
    continued,
    draw,
    stationary_distribution,
    transition_table,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ERRORS = 5  # standard errors that a mean over independent draws may be off
SURE_ROW = [7, 11, 5, 4, 0, 0, 0, 2, 940, 9, 0, 6, 2, 14]
OPEN_ROW = [70, 5, 35, 8, 4, 18, 100, 12, 210, 3, 50, 140, 320, 25]


def data(**changes: Any) -> MarkovData:
    return MarkovData.model_validate(tiny_spec("markov")["data"] | changes)


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> MarkovWorkload:
    return load_workload(load_task(write_tiny_task(tmp_path_factory.mktemp("markov"), "markov")), "cpu")


def model_of(table: Tensor) -> TransitionTable:
    """A model whose probabilities are these, of which none is 0."""
    model = TransitionTable(len(table))
    with torch.no_grad():
        model.logits.copy_(table.log())
    return model


def measured(workload: MarkovWorkload, table: Tensor) -> dict[str, float]:
    found = workload.evaluate(model_of(table), torch.zeros(1, 9, dtype=torch.int32), lambda n: None)
    return {name: m.value for name, m in found.items()}


def positive(workload: MarkovWorkload) -> Tensor:
    """The truth with as little as nothing in place of its zeros."""
    return workload.truth.clamp(min=1e-300)


# The truth


def test_table_is_the_same_whole_numbers_everywhere() -> None:
    weights = transition_weights(data())
    assert all(type(weight) is int for row in weights for weight in row)
    assert [sum(row) for row in weights] == [1000] * 14
    assert weights[0] == SURE_ROW
    assert weights[13] == OPEN_ROW
    assert sorted(weights[0], reverse=True)[:2] == [940, 14]
    assert 0 not in weights[13]  # 14 successors of 14 states


def test_power_squares_the_weights_of_the_same_chain() -> None:
    for row, squared in zip(transition_weights(data()), transition_weights(data(power=2)), strict=True):
        assert squared == [weight**2 for weight in row]


def test_seed_decides_which_states_follow_which() -> None:
    assert transition_weights(data(seed=1)) != transition_weights(data())
    assert sorted(transition_weights(data(seed=1))[0]) == sorted(transition_weights(data())[0])


@pytest.mark.parametrize("changes", [{}, {"power": 2}, {"states": 32, "sure": 10}, {"sure": 14}])
def test_stationary_distribution_is_where_the_chain_ends_up(changes: dict[str, Any]) -> None:
    table = transition_table(data(**changes))
    stationary = stationary_distribution(table)
    reached = torch.full((len(table),), 1 / len(table), dtype=torch.float64)
    for _ in range(3000):
        reached = (reached + reached @ table) / 2  # the lazy chain: the same distribution, and no periods
    torch.testing.assert_close(stationary, reached, rtol=1e-9, atol=1e-12)
    assert float(stationary.sum()) == pytest.approx(1)
    assert float(stationary.min()) > 0


# The distance to it


def test_truth_has_no_distance_and_all_its_rare_transitions(workload: MarkovWorkload) -> None:
    found = measured(workload, positive(workload))
    assert found["transition_kl"] == pytest.approx(0, abs=1e-12)
    assert found["rare_mass"] == pytest.approx(1, abs=1e-12)


def test_distance_is_the_sum_over_all_transitions(workload: MarkovWorkload) -> None:
    table = torch.rand(14, 14, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.01
    table /= table.sum(1, keepdim=True)
    truth, stationary = workload.truth.tolist(), workload.stationary.tolist()
    kl = torch.tensor(0.0, dtype=torch.float64)
    rare, kept, entropy = 0.0, 0.0, 0.0
    for s in range(14):
        for t in range(14):
            p, q = truth[s][t], table[s, t]
            entropy -= float(stationary[s] * q * q.log())
            if p > 0:
                kl += stationary[s] * p * (p / q).log()
            if 0 < p <= 0.02:
                rare += stationary[s] * p
                kept += stationary[s] * min(p, float(q))
    found = measured(workload, table)
    assert found["transition_kl"] == pytest.approx(float(kl), rel=1e-12)
    assert found["rare_mass"] == pytest.approx(kept / rare, rel=1e-12)
    assert found["entropy_rate"] == pytest.approx(entropy, rel=1e-12)
    steps = [(a, b) for row in workload.selection.tolist() for a, b in pairwise(row)]
    nll = -sum(float(table[a, b].log()) for a, b in steps) / len(steps)
    assert found["selection_nll"] == pytest.approx(nll, rel=1e-12)


def test_rare_transitions_count_no_more_than_they_have(workload: MarkovWorkload) -> None:
    heavy = torch.where(workload.rare, workload.truth * 10, positive(workload))
    heavy /= heavy.sum(1, keepdim=True)
    found = measured(workload, heavy)
    assert found["rare_mass"] == pytest.approx(1, abs=1e-12)
    assert found["transition_kl"] > 0.05
    lost = torch.where(workload.rare, workload.truth / 4, positive(workload))
    lost /= lost.sum(1, keepdim=True)
    assert 0.25 <= measured(workload, lost)["rare_mass"] < 0.35


def test_floor_is_what_the_long_run_alone_has(workload: MarkovWorkload) -> None:
    found = measured(workload, workload.stationary.expand(14, 14))
    floors = workload.floors()
    assert floors["transition_kl"] == pytest.approx(found["transition_kl"], rel=1e-12)
    assert floors["selection_nll"] == pytest.approx(found["selection_nll"], rel=1e-12)


# Draws


def test_what_has_no_probability_is_never_drawn() -> None:
    probabilities = torch.tensor([0.0, 0.1, 0.0, 0.2, 0.0], dtype=torch.float64)
    uniform = torch.cat([torch.tensor([0.0, 1.0, 1 - 2**-53]), torch.linspace(0, 1, 1001)]).double()
    drawn = draw((probabilities / probabilities.sum()).expand(len(uniform), -1), uniform)
    assert drawn[:3].tolist() == [1, 3, 3]
    assert set(drawn.tolist()) == {1, 3}


def test_states_are_drawn_as_often_as_they_are_probable(workload: MarkovWorkload) -> None:
    n = 20_000
    first = torch.zeros(n, dtype=torch.int64)
    uniform = torch.rand(n, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    shares = torch.bincount(continued(workload.truth, first, uniform)[:, 1], minlength=14) / n
    p = workload.truth[0]
    assert bool(((shares - p).abs() <= ERRORS * (p * (1 - p) / n).sqrt()).all())
    assert bool((shares[p == 0] == 0).all())


def test_sequences_go_where_the_truth_goes_from_where_it_is_in_the_long_run(tmp_path: Path) -> None:
    n = 4000
    file = write_tiny_task(tmp_path, "markov", **{"data.sequences": n})
    found: MarkovWorkload = load_workload(load_task(file), "cpu")
    items = found.real.items.long()
    assert items.shape == (n, 9)
    for place in (0, 8):
        shares = torch.bincount(items[:, place], minlength=14) / n
        p = found.stationary
        assert bool(((shares - p).abs() <= ERRORS * (p * (1 - p) / n).sqrt()).all())
    assert bool((found.truth[items[:, :-1], items[:, 1:]] > 0).all())


def test_splits_are_draws_of_their_own(tmp_path: Path) -> None:
    # 33 states in a row are hardly ever drawn twice
    same = tiny_spec("markov")["data"] | {"sequences": 200, "sure": 0}
    changes = {"workload.length": 33, "workload.selection_sequences": 200, "data": same, "base.data": same}
    file = write_based_task(tmp_path, "markov", train=False, **changes)
    found: MarkovWorkload = load_workload(load_task(file), "cpu")
    splits = [found.real.items, found.selection, found.base_items().items]
    rows = [{tuple(row) for row in split.tolist()} for split in splits]
    assert [len(split) for split in rows] == [200, 200, 200]
    assert len(set.union(*rows)) == 600
    listed = found.listing()
    assert not set(listed["train"]) & set(listed["selection"])


# What is fitted


def counts_of(items: Tensor) -> Tensor:
    """(S, S) float64, how often a state follows another."""
    counts = torch.zeros(14, 14, dtype=torch.float64)
    pairs = torch.stack([items[:, :-1].flatten(), items[:, 1:].flatten()]).long()
    return counts.index_put_(tuple(pairs), torch.ones(pairs.shape[1], dtype=torch.float64), accumulate=True)


def test_cross_entropy_fits_the_counts(tmp_path: Path) -> None:
    first = {"updates": 500, "learning_rate": 0.3, "decay": "cosine"}
    changes = {"workload.training.batch_size": 120, "workload.training.first": first}
    file = write_tiny_task(tmp_path / "task", "markov", **changes)
    path = run(file, "ce", out=tmp_path, generations=0, device="cpu")
    counts = counts_of(load_workload(load_task(file), "cpu").real.items)
    seen = counts.sum(1) > 0
    logits = load_file(path / "gen-0" / "model.safetensors")["logits"]
    empirical = counts / counts.sum(1, keepdim=True)
    torch.testing.assert_close(logits.softmax(1)[seen], empirical[seen], rtol=0, atol=2e-3)
    assert float((logits[~seen].abs()).sum()) == 0  # of what was never seen, nothing was learned


def test_every_model_writes_what_follows_the_first_states_of_its_prompts(workload: MarkovWorkload) -> None:
    prompts = TrainingSet.of(workload.real.items[:30], REAL)
    randomness = Randomness("tiny-markov@1", 0)
    written = workload.sample(model_of(positive(workload)), prompts, 1, randomness, lambda n: None)
    assert written.shape == (30, 9)
    assert written[:, 0].tolist() == prompts.items[:, 0].tolist()
    assert bool((workload.truth[written[:, :-1].long(), written[:, 1:].long()] > 0).all())
    other = workload.sample(model_of(positive(workload)), prompts, 2, randomness, lambda n: None)
    assert not torch.equal(written, other)


@pytest.mark.parametrize("n", [8, 40])
def test_diversity_of_a_row_falls_by_one_over_n_per_generation(workload: MarkovWorkload, n: int) -> None:
    """Wright and Fisher: refitted to n draws from itself, E[1 - Σ p²] of a row shrinks by the factor 1 - 1/n."""
    chains, generations = 3000, 6
    noise = torch.Generator().manual_seed(11)
    rows = workload.truth[0].expand(chains, -1)
    diversity = [1 - float((workload.truth[0] ** 2).sum())]
    expected = diversity[0]
    for _ in range(generations):
        uniform = torch.rand(chains, n, generator=noise, dtype=torch.float64)
        drawn = torch.stack([draw(rows, numbers) for numbers in uniform.unbind(1)], 1)
        counts = torch.zeros_like(rows).scatter_add_(1, drawn, torch.ones_like(uniform))
        assert bool((counts[rows == 0] == 0).all())  # what is lost never comes back
        rows = counts / n
        expected *= 1 - 1 / n
        kept = 1 - (rows**2).sum(1)
        assert abs(float(kept.mean()) - expected) <= ERRORS * float(kept.std()) / chains**0.5


# Generation by generation


def test_chain_from_a_base_model_without_rare_transitions(tmp_path: Path) -> None:
    file = write_based_task(tmp_path / "task", "markov")
    path = run(file, "ce", out=tmp_path / "runs", device="cpu")
    found: MarkovWorkload = load_workload(load_task(file), "cpu")
    base = found.load_model(tmp_path / "task" / "base.safetensors")
    before = measured(found, base.logits.detach().softmax(1))
    values = []
    for g in range(3):
        content = json.loads((path / f"gen-{g}" / "metrics.json").read_text())
        values.append({name: m["value"] for name, m in content["metrics"].items()})
        logits = load_file(path / f"gen-{g}" / "model.safetensors")["logits"]
        again = measured(found, logits.softmax(1))
        assert again == pytest.approx(values[g], rel=1e-9)
        if g > 0:  # it was trained on what the one before wrote
            samples = load_file(path / f"gen-{g - 1}" / "samples.safetensors")["items"]
            nll = -logits.log_softmax(1)[samples[:, :-1].long(), samples[:, 1:].long()].mean()
            real = -logits.log_softmax(1)[found.real.items[:, :-1].long(), found.real.items[:, 1:].long()].mean()
            assert float(nll) < float(real)
    assert before["rare_mass"] < 0.1
    assert values[0]["rare_mass"] > before["rare_mass"]
    assert values[0]["transition_kl"] < values[1]["transition_kl"] < values[2]["transition_kl"]
    shown = json.loads((path / "gen-2" / "samples.json").read_text())
    assert [len(s["prompt"] + s["text"]) for s in shown] == [9] * 8

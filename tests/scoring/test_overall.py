from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from collapsebench.scoring.overall import (
    LEVELS,
    mean_over_tasks,
    missing_tasks,
    performance_profile,
    probability_of_improvement,
)

TASKS = ["a", "b"]
MINE = {"a": np.array([0.5, 0.6, 0.7]), "b": np.array([0.2, 0.3, 0.1, 0.2])}
CE = {"a": np.array([0.4, 0.6, 0.5]), "b": np.array([0.3, 0.3, 0.3, 0.4])}


def test_tasks_weigh_the_same_whatever_their_number_of_seeds():
    found = mean_over_tasks(MINE, TASKS)
    assert found is not None
    assert found.estimate == pytest.approx((0.6 + 0.2) / 2)
    assert found.low < found.estimate < found.high


def test_missing_task_leaves_no_overall_score_and_is_named():
    only = {"a": MINE["a"]}
    assert missing_tasks(only, TASKS) == ["b"]
    assert mean_over_tasks(only, TASKS) is None
    assert probability_of_improvement(only, CE, TASKS) is None
    assert probability_of_improvement(MINE, only, TASKS) is None
    assert performance_profile(only, TASKS) is None
    assert mean_over_tasks({}, []) is None


def test_probability_counts_pairs_of_runs_and_ties_half():
    found = probability_of_improvement(MINE, CE, TASKS)
    assert found is not None
    on_a, on_b = (1.5 + 2.5 + 3) / 9, (0 + 1.5 + 0 + 0) / 16
    assert found.estimate == pytest.approx((on_a + on_b) / 2)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    itself = probability_of_improvement(CE, CE, TASKS)
    assert itself is not None
    assert itself.estimate == 0.5


def test_zero_on_one_task_does_not_decide():
    found = mean_over_tasks({"a": MINE["a"], "b": np.zeros(3)}, TASKS)
    assert found is not None
    assert found.estimate == pytest.approx(0.3)


def test_same_input_gives_the_same_interval():
    assert mean_over_tasks(MINE, TASKS) == mean_over_tasks(dict(MINE), list(TASKS))
    assert probability_of_improvement(MINE, CE, TASKS) == probability_of_improvement(MINE, CE, TASKS)


def test_one_seed_has_no_interval():
    found = mean_over_tasks({"a": MINE["a"], "b": np.array([0.5])}, TASKS)
    assert found is not None
    assert (found.low, found.high) == (None, None)


def test_interval_is_as_wide_as_the_noise_over_few_seeds_makes_it():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.5, 0.1, size=(300, 4, 5))
    widths = []
    for draw in draws:
        found = mean_over_tasks(dict(zip("abcd", draw, strict=True)), list("abcd"))
        assert found is not None
        widths.append((found.high - found.low) / 2 / 1.96)
    assert np.mean(widths) == pytest.approx(0.1 / np.sqrt(20), rel=0.1)


def test_profile_falls_from_one():
    profile = performance_profile(MINE, TASKS)
    assert profile is not None
    assert profile[0] == 1
    assert (np.diff(profile) <= 0).all()
    assert profile[LEVELS.index(0.6)] == pytest.approx((2 / 3 + 0) / 2)


def test_better_in_every_run_is_not_better_for_certain():
    found = probability_of_improvement({"a": np.arange(10.0) + 20}, {"a": np.arange(10.0)}, ["a"])
    assert found is not None
    assert (found.estimate, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0.6 < found.low < 0.9
    mirrored = probability_of_improvement({"a": np.arange(10.0)}, {"a": np.arange(10.0) + 20}, ["a"])
    assert mirrored is not None
    assert (mirrored.estimate, mirrored.low, mirrored.high) == (0.0, 0.0, pytest.approx(1 - found.low))


@pytest.mark.parametrize("distance", [0.0, 2.5, 3.5])
def test_interval_of_the_probability_covers_it(distance):
    rng, truth, draws = np.random.default_rng(0), float(stats.norm.cdf(distance / np.sqrt(2))), 200
    covered = 0
    for _ in range(draws):
        found = probability_of_improvement({"a": rng.normal(distance, 1, 10)}, {"a": rng.normal(0, 1, 10)}, ["a"])
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / draws >= 0.92

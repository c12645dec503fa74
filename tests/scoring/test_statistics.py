from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from collapsebench.scoring.statistics import (
    Estimate,
    mean_interval,
    paired_difference,
    paired_ratio,
    paired_t,
    two_sided_p,
)

score = st.floats(0.01, 50)
pairs = st.lists(st.tuples(score, score), min_size=1, max_size=12)
NAN = math.nan


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


# means


@given(st.lists(score, min_size=2, max_size=12))
def test_interval_of_a_mean_is_students(values):
    assume(np.ptp(values) > 1e-6)
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.estimate, found.low, found.high) == pytest.approx((np.mean(values), low, high))


def test_mean_says_what_it_can():
    assert mean_interval([]) == Estimate(None, None, None, 0)
    assert mean_interval([2.0]) == Estimate(2.0, None, None, 1)
    assert mean_interval([2.0, 2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 3)
    found = mean_interval([1.0, 3.0], [False, True])
    assert found.censored
    assert found.low is not None
    assert found.high is None


@pytest.mark.parametrize(
    ("values", "censored", "confidence", "told"),
    [([1.0], [True, False], 0.95, "one flag"), ([NAN], None, 0.95, "finite"), ([1.0], None, 1.0, "confidence")],
)
def test_means_without_meaning_are_refused(values, censored, confidence, told):
    with pytest.raises(ValueError, match=told):
        mean_interval(values, censored, confidence)


# differences and ratios


def test_only_common_seeds_are_paired():
    ours, theirs = array(5, 7, NAN, 9), array(4, 5, 100, NAN)
    assert paired_difference(ours, theirs).estimate == pytest.approx(1.5)
    assert paired_difference(ours, theirs).n == 2
    assert paired_ratio(ours, theirs).estimate == pytest.approx(math.sqrt(5 / 4 * 7 / 5))


@given(pairs)
def test_ratio_to_the_other_side_is_the_inverse(values):
    ours, theirs = np.array(values).T
    one, other = paired_ratio(ours, theirs), paired_ratio(theirs, ours)
    assert one.estimate == pytest.approx(1 / other.estimate)
    if one.n > 1:
        assert one.low == pytest.approx(1 / other.high)


@given(pairs)
def test_difference_to_the_other_side_is_the_negative(values):
    ours, theirs = np.array(values).T
    one, other = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert one.estimate == pytest.approx(-other.estimate)
    if one.n > 1:
        assert one.low == pytest.approx(-other.high)


@given(st.lists(score, min_size=2, max_size=12))
def test_an_entry_against_itself_has_an_interval_without_width(values):
    mine = np.array(values)
    assert paired_ratio(mine, mine) == Estimate(1.0, 1.0, 1.0, len(values))
    assert paired_difference(mine, mine) == Estimate(0.0, 0.0, 0.0, len(values))


@pytest.mark.parametrize(("ours", "theirs"), [((0, 1), (1, 1)), ((1, 1), (0, 1)), ((0, 0), (0, 0))])
def test_a_zero_leaves_no_ratio_but_a_difference(ours, theirs):
    assert paired_ratio(array(*ours), array(*theirs)) == Estimate(None, None, None, 2)
    assert paired_difference(array(*ours), array(*theirs)).low is not None


def test_a_zero_of_a_seed_that_is_not_paired_does_not_count():
    assert paired_ratio(array(2, 4, 0), array(1, 2, NAN)).estimate == pytest.approx(2.0)


def test_one_pair_has_no_interval_and_none_has_nothing():
    assert paired_ratio(array(3), array(3)) == Estimate(1.0, None, None, 1)
    assert paired_ratio(array(3, NAN), array(NAN, 2)) == Estimate(None, None, None, 0)
    assert paired_difference(array(3, NAN), array(NAN, 2)) == Estimate(None, None, None, 0)


@pytest.mark.parametrize("seeds", [3, 10])
def test_intervals_hold_the_truth_in_95_per_cent(seeds):
    rng = np.random.default_rng(seeds)
    logs = rng.normal(0.2, 0.1, size=(2000, seeds))
    found = [paired_ratio(np.exp(row), np.ones(seeds)) for row in logs]
    held = np.mean([f.low < math.exp(0.2) < f.high for f in found])
    assert held == pytest.approx(0.95, abs=0.015)


# tests


@given(st.lists(st.tuples(score, score), min_size=2, max_size=12))
def test_paired_t_is_that_of_scipy(values):
    ours, theirs = np.array(values).T
    assume(np.std(ours - theirs) > 1e-3)
    t, n = paired_t(np.stack([ours, theirs]), theirs)
    expected = stats.ttest_rel(ours, theirs)
    assert t[0] == pytest.approx(expected.statistic)
    assert two_sided_p(t, n)[0] == pytest.approx(expected.pvalue)
    assert (t[1], two_sided_p(t, n)[1]) == (0.0, 1.0)


def test_without_spread_equal_is_tied_and_different_is_certain():
    t, n = paired_t(np.array([[1.0] * 3, [0.74] * 3, [NAN, 1.0, NAN], [NAN] * 3]), np.ones(3))
    assert t[:2].tolist() == [0.0, -math.inf]
    assert np.isnan(t[2:]).all()
    assert n.tolist() == [3, 3, 1, 0]
    assert two_sided_p(t, n).tolist() == [1.0, 0.0, 1.0, 1.0]

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from collapsebench.scoring.statistics import Mean, Ratio, mean_interval, paired_ratio, rank_methods

interval = st.floats(0.01, 50)
pairs = st.lists(st.tuples(interval, interval), min_size=1, max_size=9)


def side(values, censored=(), seeds=None) -> pd.DataFrame:
    flags = [index in censored for index in range(len(values))]
    return pd.DataFrame({"seed": seeds or range(len(values)), "fi": values, "censored": flags}).astype({"fi": float})


def board(censored=(), auf=None, **methods) -> pd.DataFrame:
    frames = []
    for name, values in methods.items():
        flags = range(len(values)) if name in censored else ()
        frames.append(side(values, flags).assign(method=name, auf=(auf or {}).get(name, 0.5)))
    return pd.concat(frames)


# ratio


def test_ratio_is_the_geometric_mean_over_common_seeds():
    ratio = paired_ratio(side([2, 8, 99], seeds=[0, 1, 5]), side([1, 1, 99], seeds=[1, 0, 6]))
    assert ratio.estimate == pytest.approx(4.0)
    assert (ratio.n, ratio.bound) == (2, "exact")


@given(pairs)
def test_ratio_is_antisymmetric(rows):
    ours, theirs = (side(list(values)) for values in zip(*rows, strict=True))
    there, back = paired_ratio(ours, theirs), paired_ratio(theirs, ours)
    assert there.estimate * back.estimate == pytest.approx(1)
    if there.low is not None:
        assert math.log(there.low) == pytest.approx(-math.log(back.high), abs=1e-9)
        assert there.tied == back.tied


@given(st.lists(st.tuples(interval, interval), min_size=2, max_size=9), st.sampled_from([0.8, 0.95, 0.99]))
def test_interval_below_ten_seeds_is_that_of_the_paired_t_test_on_logs(rows, confidence):
    ours, theirs = (np.array(values) for values in zip(*rows, strict=True))
    logs = np.log(ours) - np.log(theirs)
    if np.ptp(logs) < 1e-6:
        return
    ratio = paired_ratio(side(ours), side(theirs), confidence)
    expected = stats.ttest_rel(np.log(ours), np.log(theirs)).confidence_interval(confidence)
    assert [math.log(ratio.low), math.log(ratio.high)] == pytest.approx([expected.low, expected.high], abs=1e-8)


@settings(max_examples=10)
@given(st.lists(st.tuples(interval, interval), min_size=10, max_size=15))
def test_interval_from_ten_seeds_is_finite_and_repeatable(rows):
    ours, theirs = (side(list(values)) for values in zip(*rows, strict=True))
    ratio = paired_ratio(ours, theirs)
    assert 0 < ratio.low <= ratio.high < math.inf
    assert ratio == paired_ratio(ours, theirs)


def test_interval_from_ten_seeds_is_the_bca_bootstrap_of_scipy():
    ours = np.random.default_rng(3).uniform(1, 9, 12)
    ratio = paired_ratio(side(ours), side(np.full(12, 2.0)))
    data = (np.log(ours) - np.log(2.0),)
    expected = stats.bootstrap(data, np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0))
    assert math.log(ratio.low) == pytest.approx(expected.confidence_interval.low)
    assert math.log(ratio.high) == pytest.approx(expected.confidence_interval.high)


def test_order_of_rows_does_not_change_the_interval():
    ours, theirs = side(range(1, 13)), side([3] * 12)
    assert paired_ratio(ours.iloc[::-1], theirs) == paired_ratio(ours, theirs.sample(frac=1, random_state=1))


@given(st.lists(interval, min_size=2, max_size=12))
def test_identical_vectors_tie_with_an_interval_of_one(values):
    ratio = paired_ratio(side(values), side(values))
    assert (ratio.estimate, ratio.low, ratio.high, ratio.tied) == (1.0, 1.0, 1.0, True)


@pytest.mark.parametrize("n", [3, 12])
def test_equal_log_ratios_give_an_interval_without_width(n):
    base = np.linspace(1, 7, n)
    ratio = paired_ratio(side(base * 3), side(base))
    assert ratio.low == ratio.high == pytest.approx(3.0)
    assert ratio.tied is False


def test_one_seed_has_no_interval_and_no_verdict():
    ratio = paired_ratio(side([3]), side([2]))
    assert ratio == Ratio(pytest.approx(1.5), None, None, 1, "exact")
    assert ratio.tied is None


def test_no_common_seed_has_no_ratio():
    assert paired_ratio(side([3], seeds=[0]), side([2], seeds=[1])) == Ratio(None, None, None, 0, "none")


def test_zero_interval_gives_the_ratio_of_means_without_interval():
    assert paired_ratio(side([0, 4]), side([1, 3])) == Ratio(1.0, None, None, 2, "exact")
    assert paired_ratio(side([1, 3]), side([0, 2])) == Ratio(2.0, None, None, 2, "exact")
    assert paired_ratio(side([0, 4]), side([1, 3]), 0.9).tied is None


def test_baseline_of_zeros_has_no_ratio():
    assert paired_ratio(side([1, 3]), side([0, 0])) == Ratio(None, None, None, 2, "none")


def test_censored_method_gives_a_lower_bound_open_above():
    exact = paired_ratio(side([9, 10, 8]), side([2, 2, 2]))
    ratio = paired_ratio(side([9, 10, 8], censored=[1]), side([2, 2, 2]))
    assert ratio == Ratio(exact.estimate, exact.low, None, 3, "lower")
    assert ratio.tied is False


def test_censored_baseline_gives_an_upper_bound_open_below():
    exact = paired_ratio(side([2, 2, 2]), side([9, 10, 8]))
    ratio = paired_ratio(side([2, 2, 2]), side([9, 10, 8], censored=[1]))
    assert ratio == Ratio(exact.estimate, None, exact.high, 3, "upper")
    assert ratio.tied is False


def test_bound_that_does_not_settle_the_question_has_no_verdict():
    assert paired_ratio(side([2, 10, 5], censored=[1]), side([3, 4, 6])).tied is None
    assert paired_ratio(side([3, 4, 6]), side([2, 10, 5], censored=[1])).tied is None


def test_censoring_on_both_sides_says_nothing():
    ratio = paired_ratio(side([10, 9], censored=[0]), side([8, 10], censored=[1]))
    assert ratio == Ratio(None, None, None, 2, "none")
    assert ratio.tied is None


def test_censoring_outside_the_common_seeds_does_not_matter():
    ratio = paired_ratio(side([4, 9], censored=[1], seeds=[0, 1]), side([2, 9], seeds=[0, 2]))
    assert (ratio.estimate, ratio.bound) == (pytest.approx(2.0), "exact")


@given(pairs, st.sets(st.integers(0, 8)))
def test_swapping_the_sides_swaps_the_bound(rows, censored):
    ours, theirs = (list(values) for values in zip(*rows, strict=True))
    there = paired_ratio(side(ours, censored), side(theirs))
    back = paired_ratio(side(theirs), side(ours, censored))
    assert {"exact": "exact", "lower": "upper"}[there.bound] == back.bound


@pytest.mark.parametrize(
    ("ours", "confidence", "told"),
    [
        (side([1, 2], seeds=[0, 0]), 0.95, "more than one row"),
        (side([1, math.nan]), 0.95, "finite"),
        (side([1, -1]), 0.95, "negative"),
        (side([1, 2]).drop(columns="censored"), 0.95, "censored"),
        (side([1, 2]), 95, "confidence"),
    ],
)
def test_impossible_input_of_a_ratio_is_refused(ours, confidence, told):
    with pytest.raises(ValueError, match=told):
        paired_ratio(ours, side([1, 2]), confidence)


# mean


@given(st.lists(st.floats(0, 50), min_size=2, max_size=15))
def test_mean_interval_is_that_of_the_t_test(values):
    if np.ptp(values) < 1e-6:
        return
    mean = mean_interval(values, [False] * len(values))
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert [mean.low, mean.high] == pytest.approx([expected.low, expected.high], abs=1e-8)
    assert mean.estimate == pytest.approx(np.mean(values))


def test_mean_of_one_seed_has_no_interval():
    assert mean_interval([3.0], [False]) == Mean(3.0, None, None, 1, False)


def test_mean_of_no_seed_is_nothing():
    assert mean_interval([], []) == Mean(None, None, None, 0, False)


def test_mean_with_a_censored_seed_is_open_above():
    mean = mean_interval([3.0, 4.0, 5.0], [False, True, False])
    assert mean.censored
    assert mean.high is None
    assert mean.low < mean.estimate == 4.0


def test_mean_of_equal_values_has_an_interval_without_width():
    assert mean_interval([4.0, 4.0, 4.0], [False] * 3) == Mean(4.0, 4.0, 4.0, 3, False)


@pytest.mark.parametrize(
    ("values", "censored", "told"), [([1.0], [], "one flag per value"), ([math.inf], [False], "finite")]
)
def test_impossible_input_of_a_mean_is_refused(values, censored, told):
    with pytest.raises(ValueError, match=told):
        mean_interval(values, censored)


# ranks


def test_methods_tied_with_the_leader_share_its_rank_and_the_next_takes_its_position():
    scores = board(ce=[1, 1.1, 0.9], a=[5, 6, 7], b=[5.1, 5.8, 6.9], focal=[1.05, 1.0, 0.9])
    assert rank_methods(scores) == {"a": 1, "b": 1, "focal": 3, "ce": 3}


def test_one_seed_ranks_by_value_and_shares_only_when_equal():
    assert rank_methods(board(a=[3], b=[4], c=[4])) == {"b": 1, "c": 1, "a": 3}


def test_methods_that_are_all_zero_share_a_rank():
    assert rank_methods(board(a=[0, 0], b=[0, 0], c=[5, 6])) == {"c": 1, "a": 2, "b": 2}


def test_methods_censored_at_the_same_horizon_share_a_rank():
    assert rank_methods(board(censored=("a", "b"), a=[10, 10], b=[10, 10], c=[2, 3])) == {"a": 1, "b": 1, "c": 3}


def test_area_then_name_order_methods_of_equal_interval():
    scores = board(a=[3, 3], c=[3, 3], b=[3, 3], auf={"a": 0.1, "b": 0.2, "c": 0.2})
    assert list(rank_methods(scores)) == ["b", "c", "a"]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(interval, min_size=3, max_size=3), min_size=1))
def test_ranks_start_at_one_never_fall_and_are_never_beyond_the_position(methods):
    ranks = list(rank_methods(board(**methods)).values())
    assert ranks[0] == 1
    assert ranks == sorted(ranks)
    assert all(rank <= position for position, rank in enumerate(ranks, start=1))


def test_rank_refuses_a_frame_with_several_thresholds():
    with pytest.raises(ValueError, match="more than one row"):
        rank_methods(pd.concat([board(a=[1, 2]), board(a=[1, 2])]))


def test_undecided_methods_are_ranked_apart_only_when_below_in_every_seed() -> None:
    def cell(method: str, fis: list[float]) -> pd.DataFrame:
        return pd.DataFrame(
            {"method": method, "seed": range(len(fis)), "fi": fis, "censored": [fi == 10.0 for fi in fis], "auf": 0.5}
        )

    frame = pd.concat([cell("a", [10.0, 10.0, 9.0]), cell("b", [10.0, 9.5, 8.0]), cell("c", [0.0, 0.0, 0.0])])
    assert rank_methods(frame) == {"a": 1, "b": 1, "c": 3}

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collapsebench.scoring.ranks import holm, rank_intervals, size_class, verdicts

NAN = math.nan


def noisy(means: list[float], seeds: int = 10, deviation: float = 0.1, draw: int = 0) -> np.ndarray:
    return np.array(means)[:, None] + deviation * np.random.default_rng(draw).normal(size=(len(means), seeds))


def test_size_class_is_the_next_one_up():
    numbers = {1: 4, 4: 4, 5: 12, 12: 12, 13: 50, 50: 50, 51: 200, 200: 200, 201: 800, 801: 3200}
    assert {n: size_class(n) for n in numbers} == numbers


def test_clear_differences_give_ranks_of_one_number():
    assert rank_intervals(noisy([3.0, 9.0, 6.0])).tolist() == [[3, 3], [1, 1], [2, 2]]


def test_equal_entries_share_all_their_ranks():
    mfi = np.ones((3, 5))
    assert rank_intervals(mfi).tolist() == [[1, 3]] * 3


def test_entries_without_common_seeds_are_not_told_apart():
    assert rank_intervals(np.array([[1.0, 1.1, NAN, NAN], [NAN, NAN, 9.0, 9.1]])).tolist() == [[1, 2], [1, 2]]
    assert rank_intervals(np.array([[1.0], [9.0]])).tolist() == [[1, 2], [1, 2]]


def test_only_common_seeds_decide():
    mfi = np.array([[5.0, 5.1, 5.2, 0.0], [4.0, 4.1, 4.3, NAN]])
    assert rank_intervals(mfi).tolist() == [[1, 1], [2, 2]]


def test_failing_a_seed_completely_needs_no_special_case():
    assert rank_intervals(np.array([[5.0, 5.2, 5.1], [0.0, 0.0, 0.0]])).tolist() == [[1, 1], [2, 2]]


def test_a_diverged_seed_hides_no_loss_on_the_others():
    mfi = noisy([5.0, 4.7])
    mfi[1, 3] = 0.0
    diverged = mfi == 0.0
    assert rank_intervals(mfi).tolist() == [[1, 2], [1, 2]]  # the one seed that differs most makes the test blind
    assert rank_intervals(mfi, diverged).tolist() == [[1, 1], [2, 2]]
    assert verdicts(mfi, mfi[:1], [0], (diverged, diverged[:1])).ravel().tolist() == [0, -1]
    assert verdicts(mfi, mfi[1:], [1], (diverged, diverged[1:])).ravel().tolist() == [1, 0]


def test_a_diverged_seed_is_not_forgiven():
    mfi = noisy([5.0, 5.3])
    mfi[1, 3] = 0.0
    diverged = mfi == 0.0
    assert rank_intervals(mfi, diverged).tolist() == [[1, 2], [1, 2]]
    assert verdicts(mfi, mfi[:1], [0], (diverged, diverged[:1])).ravel().tolist() == [0, 0]


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(3, 12))
def test_removing_an_entry_changes_no_verdict_within_a_size_class(draw, entries):
    mfi = noisy(list(np.linspace(0, 0.4, entries)), draw=draw)
    before, after = rank_intervals(mfi), rank_intervals(mfi[:-1])
    if size_class(entries) == size_class(entries - 1):
        moved = before[:-1] - after
        assert ((moved[:, 0] == 0) | (moved[:, 0] == 1)).all()
        assert ((moved[:, 1] == 0) | (moved[:, 1] == 1)).all()
    assert (before[:, 0] <= before[:, 1]).all()


def test_removing_an_entry_takes_no_badge_from_the_others():
    for draw in range(50):
        mfi = noisy([0.0, 0.05, 0.1, 0.15, 0.2], draw=draw)
        all_of_them = verdicts(mfi, mfi[:2], (0, 1))
        fewer = verdicts(mfi[:-1], mfi[:2], (0, 1))
        assert (fewer[all_of_them[:-1] != 0] == all_of_them[:-1][all_of_them[:-1] != 0]).all()


def test_holm_is_the_textbook_procedure():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == [True, False, False, True]
    assert holm(np.array([0.01, 0.02, 0.03])).tolist() == [True, True, True]
    assert holm(np.array([])).tolist() == []


def test_better_worse_and_tied_are_told_apart():
    mfi = noisy([5.0, 6.0, 4.0, 5.0])
    assert verdicts(mfi, mfi[:1], [0]).ravel().tolist()[:3] == [0, 1, -1]


def test_baseline_of_another_table_is_compared_with_every_entry():
    mfi = noisy([5.0, 6.0])
    assert verdicts(mfi, noisy([5.5], draw=1), [None]).ravel().tolist() == [-1, 1]


def test_one_seed_gives_no_verdict():
    assert verdicts(np.array([[1.0], [9.0]]), np.array([[1.0]]), [0]).tolist() == [[0], [0]]


@pytest.mark.parametrize("entries", [3, 12])
def test_tables_of_equal_entries_have_a_badge_in_at_most_five_per_cent(entries):
    false = missed = 0
    for draw in range(400):
        mfi = noisy([0.0] * entries, seeds=5, draw=draw)
        false += bool(verdicts(mfi, mfi[:2], (0, 1)).any())
        missed += int((rank_intervals(mfi) != [1, entries]).any(axis=1).sum())
    assert false / 400 <= 0.075
    assert missed / 400 / entries <= 0.06


def test_noise_never_improves_a_worst_rank_on_average():
    worst = []
    for factor in (1.0, 5.0):
        found = []
        for draw in range(200):
            mfi = noisy([0.0, 0.2, 0.4], draw=draw)
            mfi[1] = 0.2 + factor * (mfi[1] - 0.2)
            found.append(rank_intervals(mfi)[1, 1])
        worst.append(np.mean(found))
    assert worst[1] >= worst[0]

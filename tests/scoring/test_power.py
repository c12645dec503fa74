from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from collapsebench.scoring.power import detectable, spread_to


@pytest.mark.parametrize("seeds", [5, 10, 20])
def test_power_at_the_difference_is_80_per_cent_of_the_noncentral_t(seeds):
    mean = detectable(1.0, seeds, 1.0).difference * math.sqrt(seeds)
    limit = stats.t.isf(0.025, seeds - 1)
    assert stats.nct.sf(limit, seeds - 1, mean) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_power_at_the_difference_is_80_per_cent_in_simulation(seeds):
    data = np.random.default_rng(0).normal(detectable(1.0, seeds, 1.0).difference, 1.0, size=(20_000, seeds))
    assert (stats.ttest_1samp(data, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_difference_scales_with_the_spread_and_is_a_share_of_the_baseline():
    one, two = detectable(0.1, 10, 5.0), detectable(0.2, 10, 5.0)
    assert two.difference == pytest.approx(2 * one.difference)
    assert one.share == pytest.approx(one.difference / 5)
    assert detectable(0.1, 10, 0.0).share is None


def test_spread_is_a_large_one_of_those_published():
    ce, rise = np.array([5.0, 6.0, 7.0]), np.array([0.0, 1.0, 2.0])
    mfi = np.stack([ce, ce + 0.1 * rise, ce + rise])
    found = spread_to(mfi, ["ce", "quiet", "loud"], "ce")
    assert found is not None
    assert (found.of, found.methods, found.deviation) == ("loud", 2, pytest.approx(1.0))
    many = np.stack([ce, *(ce + 0.1 * i * rise for i in range(1, 10)), ce + 50 * rise])
    crowd = spread_to(many, ["ce", *map(str, range(10))], "ce")
    assert crowd is not None
    assert crowd.deviation < 1.0


def test_without_another_method_there_is_no_spread():
    assert spread_to(np.ones((1, 3)), ["ce"], "ce") is None
    assert spread_to(np.ones((1, 3)), ["tce"], "ce") is None
    assert spread_to(np.array([[1.0, 2.0], [math.nan, 1.0]]), ["ce", "tce"], "ce") is None

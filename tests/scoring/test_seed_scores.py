"""Scores of synthetic cells: every shape of curve lands where the definition says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapsebench.scoring.cells import Cells
from collapsebench.scoring.fidelity import ALL, fidelity_interval
from collapsebench.scoring.seed_scores import seed_scores

share = st.floats(0, 1)
LAST = 10
CE = np.maximum(1 - 0.08 * np.arange(LAST + 1), 0)
HALF_SPEED = 0.8 * (1 - 0.04 * np.arange(LAST + 1))
NAN_AT_FIVE = np.where(np.arange(LAST + 1) == 5, 0.0, 1.0)


def cells_of(*curves: dict[str, list[float]], method: str = "ce") -> Cells:
    """Cells of one method, one per seed, from a curve per metric."""
    metrics = tuple(sorted(curves[0]))
    fidelity = np.array([[curve[metric] for metric in metrics] for curve in curves], dtype=float)
    return Cells(
        (method,) * len(curves),
        tuple(range(len(curves))),
        metrics,
        fidelity,
        fidelity[..., 0],
        np.zeros(len(curves), bool),
    )


def overall(*curves: dict[str, list[float]]) -> pd.DataFrame:
    scores = seed_scores(cells_of(*curves))
    return scores[scores["metric"] == ALL].reset_index(drop=True)


@pytest.mark.parametrize(
    ("curve", "mfi", "start", "retention", "interval", "censored"),
    [
        pytest.param([1.0] * 11, 10.0, 1.0, 1.0, 10.0, True, id="frozen"),
        pytest.param([0.74] * 11, 7.4, 0.74, 1.0, 0.0, False, id="flat at 0.74"),
        pytest.param([0.3] * 11, 3.0, 0.3, 1.0, 0.0, False, id="constant 0.3"),
        pytest.param(CE, 6.0, 1.0, 0.6, 3.125, False, id="falls by 0.08"),
        pytest.param(HALF_SPEED, 6.4, 0.8, 0.8, 1.5625, False, id="0.8 of it at half speed"),
        pytest.param([1.0, 0.2, 0.2, 0.2] + [0.8] * 7, 6.39, 1.0, 0.639, 0.3125, False, id="late recovery"),
        pytest.param([1.0] * 3 + [0.0] * 8, 2.5, 1.0, 0.25, 2.25, False, id="diverged at 3"),
        pytest.param([0.0] * 11, 0.0, 0.0, math.nan, 0.0, False, id="diverged at once"),
        pytest.param(NAN_AT_FIVE, 1 * 5 + 5 * 5 / 6 - (1 - 5 / 6) / 2, 1.0, 0.908333, 4.25, False, id="one NaN"),
    ],
)
def test_shapes_of_curves_land_where_the_definition_says(curve, mfi, start, retention, interval, censored):
    (row,) = overall({"m": list(curve)}).to_dict("records")
    assert row["mfi"] == pytest.approx(mfi, abs=1e-9)
    assert row["share"] == pytest.approx(mfi / LAST)
    assert row["start"] == pytest.approx(start)
    assert row["retention"] == pytest.approx(retention, abs=1e-6, nan_ok=True)
    assert row["fi_0.75"] == pytest.approx(interval)
    assert row["fi_0.75_censored"] == censored


def test_flat_below_the_threshold_is_better_than_falling_through_it():
    flat, ce = (overall({"m": list(curve)})["mfi"].item() for curve in ([0.74] * 11, CE))
    assert flat > ce


@given(st.lists(st.lists(st.tuples(share, share), min_size=6, max_size=6), min_size=1, max_size=4))
def test_score_of_an_entry_is_the_smallest_mean_over_its_metrics(seeds):
    scores = seed_scores(cells_of(*({"a": [p[0] for p in s], "b": [p[1] for p in s]} for s in seeds)))
    means = scores.groupby("metric")["mfi"].mean()
    assert means[ALL] == pytest.approx(min(means["a"], means["b"]))
    over_all = scores[scores["metric"] == ALL]
    assert over_all["binds"].nunique() == 1
    assert means[over_all["binds"].iloc[0]] == pytest.approx(means[ALL])
    for interval in ("fi_0.9", "fi_0.75", "fi_0.5"):
        each = scores[scores["metric"] != ALL].groupby("seed")[interval].min()
        assert over_all[interval].tolist() == each.tolist()


def test_metric_that_binds_an_entry_is_kept_in_seeds_in_which_another_is_smaller():
    scores = overall({"a": [1.0, 0.4], "b": [1.0, 0.6]}, {"a": [1.0, 1.0], "b": [1.0, 0.6]})
    assert scores["binds"].tolist() == ["a", "a"] or scores["binds"].tolist() == ["b", "b"]
    scores = overall({"a": [1.0, 0.4], "b": [1.0, 0.6]}, {"a": [1.0, 0.9], "b": [1.0, 0.6]})
    assert scores["binds"].tolist() == ["b", "b"]
    assert scores["smallest"].tolist() == ["a", "b"]
    assert scores["mfi"].tolist() == pytest.approx([0.8, 0.8])


def test_smallest_mean_takes_less_noise_for_loss_than_the_mean_of_the_smallest():
    rng = np.random.default_rng(0)
    noisy = 0.5 + 0.05 * rng.normal(size=(100, 10, 2, 1)) + np.zeros(5)
    entry = [
        seed_scores(Cells(("m",) * 10, tuple(range(10)), ("a", "b"), f, f[..., 0], np.zeros(10, bool)))
        .query("metric == 'all'")["mfi"]
        .mean()
        for f in noisy
    ]
    truth = 0.5 * 4
    assert truth - np.mean(entry) < 0.27 * 0.05 * 4
    assert truth - 4 * noisy.min(axis=2).mean() > 0.5 * 0.05 * 4


def test_methods_have_binding_metrics_of_their_own():
    one, other = cells_of({"a": [1, 0], "b": [1, 1]}, method="x"), cells_of({"a": [1, 1], "b": [1, 0]}, method="y")
    both = Cells(
        (*one.methods, *other.methods),
        (*one.seeds, *other.seeds),
        one.metrics,
        np.concatenate([one.fidelity, other.fidelity]),
        np.concatenate([one.start, other.start]),
        np.concatenate([one.diverged, other.diverged]),
    )
    scores = seed_scores(both)
    assert scores[scores["metric"] == ALL].set_index("method")["binds"].to_dict() == {"x": "a", "y": "b"}


@pytest.mark.parametrize(
    ("curve", "generation"),
    [([0.6, 0.6, 0.6], 0), ([1.0, 0.9, 0.2, 0.2], 2), ([1.0, 1.0], -1), ([0.9, 0.9, 0.0, 0.0, 0.0], 2)],
)
def test_generation_that_takes_most_is_named(curve, generation):
    assert overall({"m": curve})["generation"].item() == generation


def test_intervals_of_single_metrics_are_those_of_their_curves():
    curve = [1.0, 0.8, 0.6, 0.7]
    scores = seed_scores(cells_of({"m": curve})).query("metric == 'm'")
    for threshold in (0.9, 0.75, 0.5):
        found = fidelity_interval(curve, threshold)
        assert scores[f"fi_{threshold:g}"].item() == found.generations
        assert scores[f"fi_{threshold:g}_censored"].item() == found.censored


def test_one_generation_has_no_share():
    (row,) = overall({"m": [0.9]}).to_dict("records")
    assert (row["mfi"], row["start"]) == (0.0, 0.9)
    assert math.isnan(row["share"])
    assert math.isnan(row["retention"])


def test_reserved_name_and_impossible_threshold_are_refused():
    with pytest.raises(ValueError, match="kept for"):
        seed_scores(cells_of({ALL: [1.0]}))
    with pytest.raises(ValueError, match="thresholds"):
        seed_scores(cells_of({"m": [1.0]}), [0.0])

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collapsebench.scoring.fidelity import (
    ALL,
    FidelityInterval,
    Scale,
    fidelity,
    fidelity_curves,
    fidelity_interval,
    incomplete_cells,
    own_scales,
    seed_scores,
)

PERPLEXITY = Scale(reference=10.0, floor=1000.0, kind="log")
ACCURACY = Scale(reference=0.9, floor=0.5, kind="linear")
SCALES = {"perplexity": PERPLEXITY, "pair_accuracy": ACCURACY}

positive = st.floats(1e-3, 1e3)
share = st.floats(0, 1)
curve = st.lists(share, min_size=1, max_size=12)
threshold = st.floats(0.01, 1)
broken = st.sampled_from([math.nan, math.inf, -math.inf])


def raw_rows(method="ce", seed=0, values=((10.0, 0.9), (100.0, 0.7)), diverged_from=None) -> pd.DataFrame:
    rows = [
        {"method": method, "seed": seed, "generation": generation, "metric": metric, "value": value}
        for generation, pair in enumerate(values)
        for metric, value in zip(SCALES, pair, strict=True)
    ]
    frame = pd.DataFrame(rows)
    late = frame["generation"] >= (math.inf if diverged_from is None else diverged_from)
    return frame.assign(status=np.where(late, "diverged", "ok"))


def curve_rows(**metrics: list[float]) -> pd.DataFrame:
    rows = [
        {"method": "ce", "seed": 0, "generation": generation, "metric": metric, "fidelity": value}
        for metric, values in metrics.items()
        for generation, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def values_of(curves: pd.DataFrame, metric: str, method="ce", seed=0) -> list[float]:
    chosen = curves[(curves["metric"] == metric) & (curves["method"] == method) & (curves["seed"] == seed)]
    return chosen["fidelity"].tolist()


# fidelity


@pytest.mark.parametrize("scale", [PERPLEXITY, ACCURACY, Scale(-3.0, 5.0, "linear"), Scale(8.0, 2.0, "log")])
def test_fidelity_is_one_at_the_reference_and_zero_at_the_floor(scale):
    assert fidelity(scale.reference, scale) == 1
    assert fidelity(scale.floor, scale) == 0


def test_half_way_is_geometric_on_a_log_scale_and_arithmetic_on_a_linear_one():
    assert fidelity(100.0, PERPLEXITY) == pytest.approx(0.5)
    assert fidelity(0.7, ACCURACY) == pytest.approx(0.5)


@given(positive, positive, positive, st.floats(0.3, 3), positive)
def test_log_fidelity_is_invariant_to_powers_and_units(value, reference, floor, power, unit):
    assume(abs(math.log(reference / floor)) > 1e-3)
    moved = [unit * x**power for x in (value, reference, floor)]
    expected = fidelity(value, Scale(reference, floor, "log"))
    assert fidelity(moved[0], Scale(moved[1], moved[2], "log")) == pytest.approx(float(expected), abs=1e-8)


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-100, 100), st.floats(0.1, 10), st.floats(-50, 50))
def test_linear_fidelity_is_invariant_to_affine_maps_of_either_sign(value, reference, floor, factor, shift):
    assume(abs(reference - floor) > 1e-2)
    expected = float(fidelity(value, Scale(reference, floor, "linear")))
    for sign in (1, -1):
        moved = [sign * factor * x + shift for x in (value, reference, floor)]
        assert fidelity(moved[0], Scale(moved[1], moved[2], "linear")) == pytest.approx(expected, abs=1e-8)


@given(st.floats(allow_nan=True, allow_infinity=True), positive, positive, st.sampled_from(["log", "linear"]))
def test_fidelity_of_any_number_is_between_zero_and_one(value, reference, floor, kind):
    assume(abs(math.log(reference / floor)) > 1e-6)
    assert 0 <= fidelity(value, Scale(reference, floor, kind)) <= 1


@given(positive, positive, positive, positive, st.sampled_from(["log", "linear"]))
def test_a_value_nearer_to_the_reference_side_is_never_less_faithful(one, other, reference, floor, kind):
    assume(abs(math.log(reference / floor)) > 1e-6)
    better, worse = (min(one, other), max(one, other)) if reference < floor else (max(one, other), min(one, other))
    scale = Scale(reference, floor, kind)
    assert fidelity(better, scale) >= fidelity(worse, scale)


@given(broken, st.sampled_from([PERPLEXITY, ACCURACY, Scale(8.0, 2.0, "log"), Scale(-3.0, 5.0, "linear")]))
def test_nan_and_infinity_have_fidelity_zero(value, scale):
    assert fidelity(value, scale) == 0


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_value_that_is_not_positive_has_fidelity_zero_on_a_log_scale(value):
    assert fidelity(value, PERPLEXITY) == 0


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_fidelity_keeps_the_shape(shape):
    result = fidelity(np.full(shape, 20.0), PERPLEXITY)
    assert isinstance(result, np.ndarray)
    assert result.shape == shape


@pytest.mark.parametrize(
    ("reference", "floor", "kind", "told"),
    [
        (1.0, 1.0, "linear", "undefined"),
        (math.nan, 1.0, "linear", "finite"),
        (1.0, math.inf, "log", "finite"),
        (0.0, 1.0, "log", "positive"),
        (None, None, "log", "not measured"),
        (1.0, 2.0, "cubic", "allowed"),
    ],
)
def test_a_scale_that_defines_no_fidelity_is_refused(reference, floor, kind, told):
    with pytest.raises(ValueError, match=told):
        Scale(reference, floor, kind)


# fidelity interval


def test_crossing_is_interpolated_between_generations():
    assert fidelity_interval([1.0, 0.8, 0.6], 0.75) == FidelityInterval(pytest.approx(1.25), censored=False)


def test_only_the_first_fall_below_counts():
    assert fidelity_interval([1.0, 0.5, 1.0, 0.0], 0.75).generations == pytest.approx(0.5)


@given(curve, threshold)
def test_curve_that_never_falls_below_is_censored_at_the_last_generation(values, limit):
    high = [max(value, limit) for value in values]
    assert fidelity_interval(high, limit) == FidelityInterval(len(values) - 1, censored=True)


@given(curve, threshold, share)
def test_curve_that_starts_below_scores_zero(values, limit, part):
    assume(limit * part < limit)
    assert fidelity_interval([limit * part, *values], limit) == FidelityInterval(0.0, censored=False)


def test_touching_the_threshold_is_not_falling_below():
    assert fidelity_interval([1.0, 0.75, 1.0], 0.75) == FidelityInterval(2.0, censored=True)
    assert fidelity_interval([1.0, 0.75, 0.5], 0.75) == FidelityInterval(1.0, censored=False)


@given(curve, threshold, threshold)
def test_interval_does_not_shrink_when_the_threshold_falls(values, one, other):
    low, high = fidelity_interval(values, min(one, other)), fidelity_interval(values, max(one, other))
    assert low.generations >= high.generations
    assert low.censored or not high.censored


@given(st.lists(st.tuples(share, share), min_size=1, max_size=12), threshold)
def test_pointwise_larger_curve_has_no_smaller_interval(pairs, limit):
    upper = fidelity_interval([max(pair) for pair in pairs], limit)
    lower = fidelity_interval([min(pair) for pair in pairs], limit)
    assert upper.generations >= lower.generations - 1e-9
    assert upper.censored or not lower.censored


@given(curve, threshold)
def test_interval_lies_within_the_chain(values, limit):
    found = fidelity_interval(values, limit)
    assert 0 <= found.generations <= len(values) - 1


@pytest.mark.parametrize(
    ("values", "limit", "told"),
    [([], 0.5, "at least one"), ([1.0, math.nan], 0.5, "NaN"), ([1.0], 0.0, "threshold"), ([1.0], 1.1, "threshold")],
)
def test_a_curve_or_threshold_without_meaning_is_refused(values, limit, told):
    with pytest.raises(ValueError, match=told):
        fidelity_interval(values, limit)


# curves


def test_curves_have_every_scored_metric_of_every_generation_sorted():
    raw = pd.concat([raw_rows("tce", 1), raw_rows("ce", 0)]).sample(frac=1, random_state=0)
    profile = raw_rows("ce", 0).assign(metric=["x", "y", "x", "y"])
    curves = fidelity_curves(pd.concat([raw, profile]), SCALES)
    keys = ["method", "seed", "generation", "metric"]
    assert list(curves.columns) == [*keys, "fidelity"]
    assert len(curves) == 8
    assert curves.equals(curves.sort_values(keys, ignore_index=True))
    assert values_of(curves, "perplexity") == pytest.approx([1.0, 0.5])
    assert values_of(curves, "pair_accuracy", "tce", 1) == pytest.approx([1.0, 0.5])


@given(st.integers(0, 3), st.integers(3, 8))
def test_diverged_cell_scores_zero_from_there_to_the_horizon(diverged_from, horizon):
    good = [(10.0, 0.9)]
    stopped = raw_rows("bad", 0, good * (diverged_from + 1), diverged_from)
    curves = fidelity_curves(pd.concat([stopped, raw_rows("ce", 0, good * (horizon + 1))]), SCALES)
    expected = [1.0] * diverged_from + [0.0] * (horizon + 1 - diverged_from)
    assert values_of(curves, "perplexity", "bad") == expected
    assert values_of(curves, "perplexity", "ce") == [1.0] * (horizon + 1)


def test_diverged_generation_needs_no_metrics():
    marker = {"method": "ce", "seed": 0, "generation": 2, "metric": None, "value": None, "status": "diverged"}
    curves = fidelity_curves(pd.concat([raw_rows(), pd.DataFrame([marker])]), SCALES)
    assert values_of(curves, "pair_accuracy") == pytest.approx([1.0, 0.5, 0.0])


def test_measurements_after_divergence_do_not_count():
    raw = raw_rows(values=[(10.0, 0.9)] * 4)
    raw.loc[raw["generation"] == 1, "status"] = "diverged"
    assert values_of(fidelity_curves(raw, SCALES), "perplexity") == [1, 0, 0, 0]


def test_nan_scores_zero_in_its_own_generation():
    raw = raw_rows(values=[(10.0, 0.9), (math.nan, 0.9), (10.0, math.inf)])
    curves = fidelity_curves(raw, SCALES)
    assert values_of(curves, "perplexity") == [1, 0, 1]
    assert values_of(curves, "pair_accuracy") == [1, 1, 0]


def test_horizon_makes_the_curve_of_a_cell_independent_of_its_company():
    stopped = raw_rows("bad", 0, [(10.0, 0.9)] * 2, diverged_from=1)
    together = fidelity_curves(pd.concat([stopped, raw_rows("ce", 0, [(10.0, 0.9)] * 6)]), SCALES)
    alone = fidelity_curves(stopped, SCALES, horizon=5)
    assert values_of(alone, "perplexity", "bad") == values_of(together, "perplexity", "bad")


def test_missing_metric_is_named_with_its_cell_and_generation():
    raw = raw_rows("tce", 7, [(10.0, 0.9)] * 3)
    raw = raw[~((raw["generation"] == 1) & (raw["metric"] == "pair_accuracy"))]
    with pytest.raises(ValueError, match="tce seed 7 generation 1: pair_accuracy"):
        fidelity_curves(raw, SCALES)


def test_incomplete_cell_is_named_and_refused():
    raw = pd.concat([raw_rows("tce", 3), raw_rows("ce", 0, [(10.0, 0.9)] * 4)])
    assert incomplete_cells(raw, 3) == [("tce", 3, 1)]
    assert incomplete_cells(raw, 4) == [("ce", 0, 3), ("tce", 3, 1)]
    with pytest.raises(ValueError, match=r"tce seed 3 \(last generation 1\)"):
        fidelity_curves(raw, SCALES)


def test_diverged_cell_is_not_incomplete():
    assert incomplete_cells(raw_rows(diverged_from=1), 10) == []


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (pd.concat([raw_rows(), raw_rows()]), "more than one row"),
        (raw_rows().drop(columns="status"), "status"),
        (raw_rows().assign(generation=-1), "generation"),
    ],
)
def test_impossible_raw_metrics_are_refused(raw, told):
    with pytest.raises(ValueError, match=told):
        fidelity_curves(raw, SCALES)


def test_no_cells_give_no_scores():
    curves = fidelity_curves(raw_rows().iloc[:0], SCALES)
    assert curves.empty
    assert seed_scores(curves).empty


# scores


@given(st.lists(st.tuples(share, share, share), min_size=1, max_size=10))
def test_score_over_all_metrics_is_the_smallest(rows):
    metrics = dict(zip("abc", map(list, zip(*rows, strict=True)), strict=True))
    scores = seed_scores(curve_rows(**metrics))
    for _, at in scores.groupby("threshold"):
        over_all, each = at[at["metric"] == ALL].iloc[0], at[at["metric"] != ALL]
        assert over_all["fi"] == each["fi"].min()
        assert over_all["censored"] == each["censored"].all()
        assert over_all["auf"] <= each["auf"].min() + 1e-12


def test_scores_have_a_row_per_metric_and_threshold_and_one_over_all():
    scores = seed_scores(curve_rows(a=[1.0, 0.6], b=[0.7, 0.9]), thresholds=(0.75, 0.5))
    assert list(scores.columns) == ["method", "seed", "metric", "threshold", "fi", "censored", "auf"]
    assert scores[["metric", "threshold"]].to_numpy().tolist() == [
        ["a", 0.5], ["a", 0.75], [ALL, 0.5], [ALL, 0.75], ["b", 0.5], ["b", 0.75],
    ]  # fmt: skip
    assert scores["auf"].tolist() == pytest.approx([0.8, 0.8, 0.65, 0.65, 0.8, 0.8])
    assert scores["censored"].tolist() == [True, False, True, False, True, False]


def test_area_over_all_metrics_is_the_mean_of_the_pointwise_minimum():
    scores = seed_scores(curve_rows(a=[1.0, 0.0], b=[0.0, 1.0]))
    assert set(scores.loc[scores["metric"] == ALL, "auf"]) == {0.0}
    assert set(scores.loc[scores["metric"] != ALL, "auf"]) == {0.5}


@pytest.mark.parametrize(
    ("curves", "told"),
    [
        (curve_rows(all=[1.0]), "kept for"),
        (curve_rows(a=[1.0, 1.0, 1.0]).query("generation != 1"), "gaps"),
        (curve_rows(a=[1.0, 1.0], b=[1.0]), "NaN"),
    ],
)
def test_curves_with_holes_or_a_reserved_name_are_refused(curves, told):
    with pytest.raises(ValueError, match=told):
        seed_scores(curves)


# own reference


def test_own_reference_is_the_mean_over_the_seeds_of_generation_zero():
    raw = pd.concat([raw_rows(seed=0, values=[(20.0, 0.8)]), raw_rows(seed=1, values=[(40.0, 0.6)])])
    own = own_scales(raw, SCALES)["ce"]
    assert own["perplexity"] == Scale(30.0, 1000.0, "log")
    assert own["pair_accuracy"].reference == pytest.approx(0.7)
    assert own["pair_accuracy"].floor == 0.5


@pytest.mark.parametrize("start", [math.nan, math.inf, 1000.0, 5000.0, -1.0])
def test_generation_zero_without_quality_keeps_the_shared_reference(start):
    own = own_scales(raw_rows(values=[(start, 0.8)]), SCALES)["ce"]
    assert own["perplexity"] == PERPLEXITY
    assert own["pair_accuracy"].reference == 0.8


def test_seed_that_diverged_at_generation_zero_keeps_the_shared_references():
    raw = pd.concat([raw_rows(seed=0), raw_rows(seed=1, diverged_from=0), raw_rows("tce", values=[(20.0, 0.8)])])
    own = own_scales(raw, SCALES)
    assert own["ce"] == SCALES
    assert own["tce"]["perplexity"].reference == 20.0


def test_scoring_imports_neither_torch_nor_streamlit():
    code = (
        "import sys, collapsebench.scoring.fidelity, collapsebench.scoring.statistics; "
        "print([name for name in ('torch', 'streamlit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

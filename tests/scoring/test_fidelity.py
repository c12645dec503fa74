from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collapsebench.scoring.fidelity import (
    FidelityInterval,
    Scale,
    fidelity,
    fidelity_interval,
    first_below,
    losses_by_generation,
    mean_fidelity_interval,
    non_increasing,
)

PERPLEXITY = Scale(reference=10.0, floor=1000.0, kind="log")
ACCURACY = Scale(reference=0.9, floor=0.5, kind="linear")

positive = st.floats(1e-3, 1e3)
share = st.floats(0, 1)
curve = st.lists(share, min_size=1, max_size=12)
threshold = st.floats(0.01, 1)
broken = st.sampled_from([math.nan, math.inf, -math.inf])


# fidelity


@pytest.mark.parametrize("scale", [PERPLEXITY, ACCURACY, Scale(-3.0, 5.0, "linear"), Scale(8.0, 2.0, "log")])
def test_fidelity_is_one_at_the_reference_and_zero_at_the_floor(scale):
    assert fidelity(scale.reference, scale) == 1
    assert fidelity(scale.floor, scale) == 0


def test_half_way_is_geometric_on_a_log_scale_and_arithmetic_on_a_linear_one():
    assert fidelity(100.0, PERPLEXITY) == pytest.approx(0.5)
    assert fidelity(0.7, ACCURACY) == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_later_references_are_those_of_their_generations(kind):
    scale = Scale(4.0, 16.0, kind, later=(2.0, 1.0))
    values = np.array([[4.0, 2.0, 1.0], [4.0, 4.0, 4.0], [16.0, 16.0, 16.0]])
    found = fidelity(values, scale, np.arange(3))
    for g, reference in enumerate((4.0, 2.0, 1.0)):
        alone = Scale(reference, 16.0, kind)
        assert found[:, g].tolist() == fidelity(values[:, g], alone).tolist()
        assert fidelity(4.0, scale, g) == fidelity(4.0, alone)
    assert found[0].tolist() == [1, 1, 1]


@pytest.mark.parametrize("wrong", [math.nan, 16.0, -1.0])
def test_later_references_are_checked_as_the_first_one(wrong):
    with pytest.raises(ValueError, match="scale: reference"):
        Scale(4.0, 16.0, "log", later=(2.0, wrong))


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


@given(st.lists(st.tuples(share, share, share), min_size=1, max_size=12), threshold)
def test_many_curves_cross_where_each_does(rows, limit):
    curves = np.array(rows).T
    generations, censored = first_below(curves, limit)
    each = [fidelity_interval(row, limit) for row in curves]
    assert generations.tolist() == [found.generations for found in each]
    assert censored.tolist() == [found.censored for found in each]


# mean fidelity interval


def integral_of_intervals(fitted: np.ndarray) -> float:
    """∫₀¹ FI(λ) dλ by pieces, between two values of the curve, where FI is linear in λ and its mean in the middle."""
    corners = np.unique([0.0, 1.0, *fitted])
    middles = (corners[1:] + corners[:-1]) / 2
    pieces = [(middle, width) for middle, width in zip(middles, np.diff(corners), strict=True) if width > 1e-12]
    return float(sum(fidelity_interval(fitted, middle).generations * width for middle, width in pieces))


@given(curve)
def test_mean_fidelity_interval_is_the_integral_over_all_thresholds(values):
    fitted = non_increasing(np.array(values))
    assert float(mean_fidelity_interval(fitted)) == pytest.approx(integral_of_intervals(fitted), abs=1e-9)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0, 1.0],  # never crossing
        [0.4, 0.3, 0.2],  # starts below
        [1.0, 0.6, 0.0, 0.0],  # diverged
        [0.9, 0.2, 0.8, 0.7],  # recovers
        [0.0, 0.0],
        [1.0],
    ],
)
def test_the_integral_holds_for_every_shape_of_curve(values):
    fitted = non_increasing(np.array(values))
    assert float(mean_fidelity_interval(fitted)) == pytest.approx(integral_of_intervals(fitted), abs=1e-12)


@given(st.lists(st.tuples(share, share), min_size=1, max_size=12))
def test_fit_never_rises_keeps_the_sum_and_leaves_a_falling_curve_alone(rows):
    curves = np.array(rows).T
    fitted = non_increasing(curves)
    assert (np.diff(fitted, axis=-1) <= 1e-12).all()
    assert fitted.sum(axis=-1) == pytest.approx(curves.sum(axis=-1))
    assert non_increasing(fitted) == pytest.approx(fitted)


def test_fit_does_not_change_what_it_is_given():
    curves = np.array([[0.2, 0.8]])
    non_increasing(curves)
    assert curves.tolist() == [[0.2, 0.8]]


@given(st.lists(st.tuples(share, share), min_size=1, max_size=12))
def test_a_curve_that_is_nowhere_lower_has_no_smaller_mean_interval(pairs):
    upper = mean_fidelity_interval(non_increasing(np.array([max(pair) for pair in pairs])))
    lower = mean_fidelity_interval(non_increasing(np.array([min(pair) for pair in pairs])))
    assert upper >= lower - 1e-9


@given(curve)
def test_what_generations_take_adds_up_to_what_is_missing(values):
    fitted = non_increasing(np.array(values))
    losses = losses_by_generation(fitted)
    assert (losses >= -1e-12).all()
    assert losses.sum() == pytest.approx(len(values) - 1 - float(mean_fidelity_interval(fitted)), abs=1e-9)


def test_noise_on_a_plateau_does_not_move_the_mean_interval_as_it_moves_a_running_minimum():
    level, deviation, last, curves = 0.8, 0.02, 10, 20_000
    noisy = level + deviation * np.random.default_rng(0).normal(size=(curves, last + 1))
    truth = level * last
    error = mean_fidelity_interval(non_increasing(noisy)).mean() / truth - 1
    of_minimum = mean_fidelity_interval(np.minimum.accumulate(noisy, axis=1)).mean() / truth - 1
    assert abs(error) < 0.001
    assert of_minimum < -0.02


def test_scoring_imports_neither_torch_nor_streamlit():
    code = (
        "import sys, collapsebench.scoring.table, collapsebench.scoring.power, collapsebench.scoring.overall; "
        "print([name for name in ('torch', 'streamlit') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

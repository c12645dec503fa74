from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collapsebench.scoring.cells import fidelity_cells, incomplete_cells
from collapsebench.scoring.fidelity import Scale

PERPLEXITY = Scale(reference=10.0, floor=1000.0, kind="log")
ACCURACY = Scale(reference=0.9, floor=0.5, kind="linear")
SCALES = {"perplexity": PERPLEXITY, "pair_accuracy": ACCURACY}


def raw_rows(method="ce", seed=0, values=((10.0, 0.9), (100.0, 0.7)), diverged_from=None) -> pd.DataFrame:
    rows = [
        {"method": method, "seed": seed, "generation": generation, "metric": metric, "value": value}
        for generation, pair in enumerate(values)
        for metric, value in zip(SCALES, pair, strict=True)
    ]
    frame = pd.DataFrame(rows)
    late = frame["generation"] >= (math.inf if diverged_from is None else diverged_from)
    return frame.assign(status=np.where(late, "diverged", "ok"))


def curves_of(raw: pd.DataFrame, scales=SCALES, horizon=None) -> pd.DataFrame:
    return fidelity_cells(raw, scales, horizon).frame()


def values_of(curves: pd.DataFrame, metric: str, method="ce", seed=0) -> list[float]:
    chosen = curves[(curves["metric"] == metric) & (curves["method"] == method) & (curves["seed"] == seed)]
    return chosen["fidelity"].tolist()


def test_every_generation_is_scored_by_its_own_reference_where_it_has_one():
    scales = SCALES | {"pair_accuracy": Scale(0.9, 0.5, "linear", later=(1.0,))}
    curves = curves_of(raw_rows(values=((10.0, 0.9), (100.0, 0.75))), scales)
    assert values_of(curves, "pair_accuracy") == pytest.approx([1.0, 0.5])
    assert values_of(curves, "perplexity") == pytest.approx([1.0, 0.5])


def test_curves_have_every_scored_metric_of_every_generation_sorted():
    raw = pd.concat([raw_rows("tce", 1), raw_rows("ce", 0)]).sample(frac=1, random_state=0)
    profile = raw_rows("ce", 0).assign(metric=["x", "y", "x", "y"])
    curves = curves_of(pd.concat([raw, profile]), SCALES)
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
    curves = curves_of(pd.concat([stopped, raw_rows("ce", 0, good * (horizon + 1))]), SCALES)
    expected = [1.0] * diverged_from + [0.0] * (horizon + 1 - diverged_from)
    assert values_of(curves, "perplexity", "bad") == expected
    assert values_of(curves, "perplexity", "ce") == [1.0] * (horizon + 1)


def test_diverged_generation_needs_no_metrics():
    marker = {"method": "ce", "seed": 0, "generation": 2, "metric": None, "value": None, "status": "diverged"}
    curves = curves_of(pd.concat([raw_rows(), pd.DataFrame([marker])]), SCALES)
    assert values_of(curves, "pair_accuracy") == pytest.approx([1.0, 0.5, 0.0])


def test_measurements_after_divergence_do_not_count():
    raw = raw_rows(values=[(10.0, 0.9)] * 4)
    raw.loc[raw["generation"] == 1, "status"] = "diverged"
    assert values_of(curves_of(raw, SCALES), "perplexity") == [1, 0, 0, 0]


def test_nan_scores_zero_in_its_own_generation():
    raw = raw_rows(values=[(10.0, 0.9), (math.nan, 0.9), (10.0, math.inf)])
    curves = curves_of(raw, SCALES)
    assert values_of(curves, "perplexity") == [1, 0, 1]
    assert values_of(curves, "pair_accuracy") == [1, 1, 0]


def test_horizon_makes_the_curve_of_a_cell_independent_of_its_company():
    stopped = raw_rows("bad", 0, [(10.0, 0.9)] * 2, diverged_from=1)
    together = curves_of(pd.concat([stopped, raw_rows("ce", 0, [(10.0, 0.9)] * 6)]), SCALES)
    alone = curves_of(stopped, SCALES, horizon=5)
    assert values_of(alone, "perplexity", "bad") == values_of(together, "perplexity", "bad")


def test_missing_metric_is_named_with_its_cell_and_generation():
    raw = raw_rows("tce", 7, [(10.0, 0.9)] * 3)
    raw = raw[~((raw["generation"] == 1) & (raw["metric"] == "pair_accuracy"))]
    with pytest.raises(ValueError, match="tce seed 7 generation 1: pair_accuracy"):
        curves_of(raw, SCALES)


def test_incomplete_cell_is_named_and_refused():
    raw = pd.concat([raw_rows("tce", 3), raw_rows("ce", 0, [(10.0, 0.9)] * 4)])
    assert incomplete_cells(raw, 3) == [("tce", 3, 1)]
    assert incomplete_cells(raw, 4) == [("ce", 0, 3), ("tce", 3, 1)]
    with pytest.raises(ValueError, match=r"tce seed 3 \(last generation 1\)"):
        curves_of(raw, SCALES)


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
        curves_of(raw, SCALES)


def test_start_is_not_capped():
    cells = fidelity_cells(raw_rows(values=[(5.0, 0.4), (5.0, 0.9)]), SCALES)
    assert cells.metrics == ("pair_accuracy", "perplexity")
    assert cells.start.tolist() == [pytest.approx([-0.25, 1 + math.log(2) / math.log(100)])]
    assert cells.fidelity[0, :, 0].tolist() == [0, 1]


def test_start_of_a_cell_that_diverged_at_once_is_zero():
    assert fidelity_cells(raw_rows(diverged_from=0), SCALES).start.tolist() == [[0, 0]]


def test_no_cells_give_no_curves():
    assert curves_of(raw_rows().iloc[:0]).empty

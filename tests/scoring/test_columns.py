"""What a row of a table says in words."""

from __future__ import annotations

import pandas as pd
import pytest

from collapsebench.scoring.columns import (
    COLUMNS,
    against_text,
    binding_text,
    by_seed_text,
    interval_text,
    masks_text,
    rank_text,
    reason,
    reasons,
    shown_columns,
    start_text,
)


def row(**values: object) -> dict[str, object]:
    return {"method": "mine", "x": 3.21, "x_low": 3.05, "x_high": 3.4, **values}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "3.21 [3.05, 3.40]"),
        ({"x_censored": True, "x_high": None}, "≥ 3.21 [3.05, …]"),
        ({"x_low": None, "x_high": None}, "3.21 [n/a]"),
        ({"x": None, "x_low": None, "x_high": None}, "n/a"),
    ],
)
def test_number_with_its_interval(values, told):
    assert interval_text(row(**values), "x") == told


@pytest.mark.parametrize(("best", "worst", "told"), [(1, 1, "1"), (1, 3, "1–3"), (None, None, "–")])
def test_rank_is_an_interval(best, worst, told):
    assert rank_text({"rank_best": best, "rank_worst": worst}) == told


@pytest.mark.parametrize(("verdict", "mark"), [("better", " ▲"), ("worse", " ▼"), ("tied", " ≈"), (None, "")])
def test_ratio_bears_the_verdict(verdict, mark):
    mine = {"method": "mine", "ratio_ce": 1.2, "ratio_ce_low": 1.1, "ratio_ce_high": 1.3, "verdict_ce": verdict}
    assert against_text(mine, "ce") == f"1.20 [1.10, 1.30]{mark}"
    assert against_text({**mine, "method": "ce"}, "ce") == "–"
    assert against_text({**mine, "ratio_ce": None, "verdict_ce": "worse"}, "ce") == "n/a ▼"


def test_start_shows_what_the_cap_hides():
    assert start_text({"start": 1.0, "start_uncapped": 1.03}) == "1.00 (1.03)"
    assert start_text({"start": 0.5, "start_uncapped": 0.5}) == "0.50"


def test_reason_names_metric_and_generation():
    mine = {"method": "mine", "binds": "coverage", "binds_seeds": 4, "seeds": 5}
    mine |= {"generation": 3, "generation_low": 2, "generation_high": 4}
    assert binding_text(mine) == "coverage, gen. 3 (2–4)"
    assert reason(mine) == (
        "mine: coverage is the binding metric, smallest in 4 of 5 seeds; it loses most in generation 3 (2 to 4 over "
        "seeds)."
    )
    still = mine | {"generation": -1, "generation_low": -1, "generation_high": -1}
    assert binding_text(still) == "coverage, nothing lost"
    assert "it loses nothing" in reason(still)


def test_reason_names_the_generation_of_every_seed():
    scores = pd.DataFrame(
        {
            "method": ["mine"] * 4,
            "metric": ["all", "all", "all", "coverage"],
            "seed": [1, 0, 2, 0],
            "generation": [3, 4, -1, 9],
            "binds": ["coverage"] * 4,
            "smallest": ["coverage", "coverage", "recall", "recall"],
        }
    )
    mine = {"method": "mine", "binds": "coverage", "binds_seeds": 2, "seeds": 3}
    mine |= {"generation": 3, "generation_low": 3, "generation_high": 4}
    assert reasons([mine], scores) == [
        "mine: coverage is the binding metric, smallest in 2 of 3 seeds; it loses most in generation 3 "
        "(4 in seed 0; 3 in seed 1; none (recall is smaller) in seed 2)."
    ]


def test_seeds_that_agree_are_counted():
    rows = [{"seed": seed, "generation": 1, "binds": "kl", "smallest": "kl"} for seed in range(9)]
    assert by_seed_text(rows) == "in every seed"
    rows[4]["generation"] = 2
    assert by_seed_text(rows) == "1 in 8 seeds; 2 in seed 4"
    assert by_seed_text(rows[:1]) == "1 in seed 0"


@pytest.mark.parametrize(
    ("masked", "told"),
    [
        (None, "–"), (0.0, "only 0 %"), (0.0004, "only 0.04 %"), (0.004, "only 0.4 %"), (0.0499, "only 5.0 %"),
        (0.05, "5.0 %"), (0.312, "31 %"), (1.0, "100 %"),
    ],
)  # fmt: skip
def test_a_row_says_how_little_its_loss_masks(masked, told):
    mine = {"method": "mine", "masked_gradient": masked}
    assert masks_text(mine) == told
    assert masks_text(mine | {"method": "ce"}) == masks_text(mine | {"method": "control"}) == "–"
    about = {"binds": "coverage", "binds_seeds": 1, "seeds": 1}
    about |= {"generation": 3, "generation_low": 3, "generation_high": 3}
    assert ("masks only" in reason(mine | about)) == told.startswith("only")


def test_a_row_says_where_confidence_is_a_density():
    row = {"method": "mine", "masked_gradient": 0.312}
    assert masks_text(row | {"symbols": False}) == "31 % (p is a density)"
    assert masks_text(row | {"symbols": True}) == masks_text(row) == "31 %"
    assert masks_text(row | {"symbols": False, "method": "ce"}) == "–"


def test_a_table_without_engagement_has_no_column_for_it():
    old, new = {"method": "old"}, {"method": "new", "masked_gradient": 0.1}
    assert [c.header for c in COLUMNS if c not in shown_columns([old])] == ["masks"]
    assert shown_columns([old, new]) == COLUMNS


def test_columns_have_names_of_their_own():
    assert len({column.name for column in COLUMNS}) == len({column.header for column in COLUMNS}) == len(COLUMNS)

"""The table of a comparison, from fidelity curves that say what must stand in it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from collapsebench.scoring.cells import Cells
from collapsebench.scoring.fidelity import Scale
from collapsebench.scoring.seed_scores import seed_scores
from collapsebench.scoring.table import SeedTable, ranked_table, score_methods, unranked

LAST = 4


def falling(method: str, speed: float, seeds: int = 5, start: float = 1.0) -> pd.DataFrame:
    """Scores of a method that falls by `speed` a generation in metric a, half as fast in b, with a little noise."""
    noise = 0.01 * np.random.default_rng(len(method)).normal(size=(seeds, 1))
    curves = np.stack(
        [np.clip(start - (speed + noise) * share * np.arange(LAST + 1), 0, 1) for share in (1.0, 0.5)], axis=1
    )
    return seed_scores(
        Cells((method,) * seeds, tuple(range(seeds)), ("a", "b"), curves, curves[..., 0], np.zeros(seeds, bool))
    )


def table_of(*scores: pd.DataFrame, tracks=None) -> pd.DataFrame:
    return ranked_table(pd.concat(scores, ignore_index=True), LAST, tracks).set_index("method")


def test_methods_stand_by_mean_with_rank_intervals_and_verdicts():
    table = table_of(falling("ce", 0.2), falling("tce", 0.1), falling("worse", 0.24), falling("control", 0.0))
    assert list(table.index) == ["tce", "ce", "worse", "control"]
    assert table["mfi"][:3].is_monotonic_decreasing
    assert table.loc["tce", ["rank_best", "rank_worst"]].tolist() == [1, 1]
    assert table["verdict_ce"].fillna("–").tolist() == ["better", "–", "worse", "–"]
    assert table["verdict_tce"].fillna("–").tolist() == ["–", "worse", "worse", "–"]
    assert pd.isna(table.loc["control", "rank_best"])
    assert table.loc["control", "ratio_ce"] > 1


def test_row_holds_what_explains_the_score():
    row = table_of(falling("ce", 0.2)).loc["ce"]
    assert row["binds"] == "a"
    assert row["binds_seeds"] == row["seeds"] == 5
    assert row["mfi"] == row["mfi_a"] < row["mfi_b"]
    assert row["share"] == pytest.approx(row["mfi"] / LAST)
    assert row["generation"] == 1
    assert row["start"] == row["start_a"] == 1
    assert row["retention"] == pytest.approx(row["share"])
    assert row["mfi_low"] < row["mfi"] < row["mfi_high"]


def test_without_a_ranking_numbers_stay_and_methods_stand_by_name():
    names = ("control", "tce", "ce", "Best")
    scores = pd.concat([falling(n, s) for n, s in zip(names, (0.0, 0.15, 0.2, 0.1), strict=True)], ignore_index=True)
    ranked = ranked_table(scores, LAST)
    found = unranked(ranked)
    assert found["method"].tolist() == ["Best", "ce", "tce", "control"]
    withdrawn = ["rank_best", "rank_worst", "verdict_ce", "verdict_tce"]
    assert found[withdrawn].isna().all(axis=None)
    assert dict(ranked.dtypes[["rank_best", "mfi"]]) == dict(found.dtypes[["rank_best", "mfi"]])
    same = [column for column in ranked if column not in (*withdrawn, "method")]
    pd.testing.assert_frame_equal(
        found.set_index("method").loc[ranked["method"], same].reset_index(drop=True), ranked[same]
    )
    by_track = unranked(ranked, {"control": "loss", "tce": "loss", "ce": "loss", "Best": "provenance"})
    assert by_track["method"].tolist() == ["ce", "tce", "Best", "control"]


def test_one_seed_has_neither_intervals_nor_verdicts():
    table = table_of(falling("ce", 0.2, seeds=1), falling("tce", 0.1, seeds=1))
    assert table[["rank_best", "rank_worst"]].to_numpy().tolist() == [[1, 2], [1, 2]]
    assert table[["mfi_low", "ratio_ce_low", "verdict_ce", "verdict_tce"]].isna().all(axis=None)
    assert table.loc["tce", "ratio_ce"] > 1


def test_tracks_are_ranked_apart_against_the_same_baselines():
    tracks = {"ce": "loss", "sees": "provenance", "slow": "loss"}
    table = table_of(falling("ce", 0.2), falling("sees", 0.1), falling("slow", 0.15), tracks=tracks)
    assert list(table.index) == ["slow", "ce", "sees"]
    assert table["rank_best"].tolist() == [1, 2, 1]
    assert table.loc["sees", "verdict_ce"] == "better"


def test_a_start_of_zero_leaves_no_retention_and_a_score_of_zero_no_ratio():
    table = table_of(falling("ce", 0.2), falling("dead", 0.2, start=0.0))
    assert pd.isna(table.loc["dead", "retention"])
    assert pd.isna(table.loc["dead", "ratio_ce"])
    assert table.loc["dead", "difference_ce"] == pytest.approx(-table.loc["ce", "mfi"])
    assert table.loc["dead", "verdict_ce"] == "worse"
    assert table.loc["dead", ["rank_best", "rank_worst"]].tolist() == [2, 2]


def test_interval_ends_where_scores_do():
    table = table_of(falling("control", 0.004), falling("poor", 0.9, start=0.02))
    assert table.loc["control", "mfi_high"] <= LAST
    assert table.loc["poor", "mfi_low"] >= 0


def test_methods_with_other_seeds_keep_their_own_means():
    few, many = falling("few", 0.2, seeds=2), falling("ce", 0.2)
    table = table_of(few, many)
    assert table["seeds"].to_dict() == {"few": 2, "ce": 5}
    alone = table_of(few)
    assert table.loc["few", "mfi"] == alone.loc["few", "mfi"]


def test_seed_that_is_there_twice_is_refused():
    with pytest.raises(ValueError, match="more than one row"):
        SeedTable.of(pd.concat([falling("ce", 0.2), falling("ce", 0.2)]))


def test_raw_metrics_become_scores_and_curves():
    rows = [
        {"method": "ce", "seed": seed, "generation": g, "metric": "a", "value": 1 - 0.1 * g, "status": "ok"}
        for seed in (0, 1)
        for g in range(LAST + 1)
    ]
    found = score_methods(pd.DataFrame(rows), {"a": Scale(1.0, 0.0, "linear")}, LAST)
    assert found.curves["fidelity"].tolist() == pytest.approx([1, 0.9, 0.8, 0.7, 0.6] * 2)
    assert found.scores["mfi"].tolist() == pytest.approx([3.2] * 4)

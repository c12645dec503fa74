"""Sentences, tables, cards and charts of the site, without a page around them."""

from __future__ import annotations

from dataclasses import replace

import charts
import pandas as pd
import pytest
from altair.utils import schemapi
from cards import pieces, site_markdown
from forest import MOST, foremost, forest_rows
from rankings import ranking
from summary import missing_tasks, standing, uncalibrated

from collapsebench.paths import bundled
from collapsebench.publishing.across_tasks import compared_methods, methods_by_label, paired_seeds, profile_table
from collapsebench.publishing.board import (
    Board,
    crossings,
    fidelity_bands,
    machines,
)
from collapsebench.scoring.columns import records
from collapsebench.task import registered_tasks


def test_ranking_keeps_numbers_as_numbers(board: Board) -> None:
    mine = board.table[board.table["modality"] == "text"]
    shown = ranking(mine)
    assert shown["mfi"].tolist() == mine["mfi"].tolist()
    assert shown["mfi_ends"].str.startswith("[").all()
    assert shown["rank_best"].str.fullmatch(r"\d+(–\d+)?").all()
    assert list(shown["entry"]) == [f"submission?entry={digest}" for digest in mine["digest"]]
    assert shown["curve"].map(len).eq(mine["curve"].map(len).to_numpy()).all()


def test_standing_names_devices_and_verification(board: Board) -> None:
    found = machines(board)
    assert "All were run on a CPU." in standing(board, found)
    mixed = found.assign(device=["cuda", *found["device"][1:]])
    assert "1 on a CUDA GPU" in standing(board, mixed)
    table = board.table.assign(verified=["verified", *board.table["verified"][1:]])
    assert "1 verified by others." in standing(replace(board, table=table), found)


def test_standing_says_that_only_the_project_has_submitted(board: Board) -> None:
    named = {digest: replace(entry, name="ce") for digest, entry in board.entries.items()}
    assert "by the project itself" in standing(replace(board, entries=named), machines(board))
    assert "by the project itself" not in standing(board, machines(board))


def test_missing_tasks_are_named_when_all_methods_miss_them() -> None:
    none = pd.DataFrame({"missing": [["a@1"], ["a@1", "b@1"]]})
    assert "nobody has an entry on a@1" in missing_tasks(none, 2)
    some = pd.DataFrame({"missing": [[], ["b@1"]]})
    assert "1 method has no overall score" in missing_tasks(some, 2)
    assert missing_tasks(pd.DataFrame({"missing": [[]]}), 2) == ""


def test_tasks_that_cannot_have_entries_are_named() -> None:
    assert "diffusion-cifar10@1" in uncalibrated("standard")
    assert "text-bytes-micro@1" not in uncalibrated("micro")


@pytest.mark.parametrize("name", sorted(registered_tasks()))
def test_cards_are_cut_at_their_pictures(name: str) -> None:
    card = (bundled("tasks") / name / "card.md").read_text("utf-8")
    found = pieces(card)
    assert sum(kind == "picture" for kind, _ in found) == card.count("![")
    texts = "\n".join(text for kind, text in found if kind == "text")
    assert "![" not in texts
    assert f"# {name}" not in texts.splitlines()


def test_links_into_the_repository_become_text() -> None:
    assert site_markdown("[a](b.md) and [c](https://e.org)\n## d") == "a and [c](https://e.org)\n### d"


def test_baselines_look_the_same_whoever_is_beside_them() -> None:
    alone, among = charts.styles(["tce"]), charts.styles(["X", "tce", "Y", "ce"])
    assert alone["tce"] == among["tce"]
    assert len({(s.colour, tuple(s.dash), s.mark) for s in among.values()}) == 4


def test_nobody_gets_the_colour_of_a_baseline() -> None:
    looks = charts.styles(["ce", "focal", "tce", *map(str, range(20))])
    taken = {looks[name].colour for name in ("ce", "focal", "tce")}
    assert not any(look.colour in taken for name, look in looks.items() if name.isdigit())


def test_eight_methods_differ_in_colour_dash_and_mark() -> None:
    looks = charts.styles(["ce", "focal", "tce", *"abcde"]).values()
    for feature in ("colour", "mark"):
        assert len({getattr(look, feature) for look in looks}) == 8
    assert len({tuple(look.dash) for look in looks}) == 8


@pytest.mark.parametrize("threshold", [0.9, 0.5])
def test_charts_keep_to_the_schema(threshold: float, board: Board) -> None:
    digests = list(board.table.loc[board.table["modality"] == "text", "digest"])
    scores = board.scores(digests)
    look = charts.styles([board.label(d) for d in digests])
    bands, crossed = fidelity_bands(scores.curves), crossings(scores.scores)
    rows = pd.DataFrame(records(board.table[board.table["modality"] == "text"].drop(columns="curve"))).assign(text="")
    text = board.table[board.table["modality"] == "text"]
    known = methods_by_label(board)
    pair = known["Loss_A:beta=1"], known["Loss_B"]
    ratios = compared_methods(board, *pair).assign(text="")
    density = pd.DataFrame({"x": [0.0, 1.0], "truth": [0.1, 0.2], "model": [0.2, 0.1]})
    calibration = scores.curves.replace({"method": {"Loss_B": "control"}})
    with schemapi.debug_mode(True):
        for chart in (
            charts.fidelity_chart(bands, crossed[crossed["threshold"] == threshold], look, threshold, 2),
            charts.band_chart(bands, look, "nats", 2, log=True),
            charts.calibration_chart(calibration, 2),
            charts.interval_chart(rows, look, 2),
            charts.interval_chart(forest_rows(text, 3), look, 1, "share"),
            charts.profile_chart(profile_table(board, "micro", "loss"), look),
            charts.ratio_chart(ratios, "a", "b"),
            charts.difference_chart(paired_seeds(board, *pair), "a", "b"),
            charts.density_chart(density, (0.0, 1.0), 1.0),
        ):
            assert chart.to_dict()["layer"]


def test_forest_has_the_best_methods_and_the_baselines() -> None:
    methods = [*"abcdefgh", "ce"]
    values = [float(10 - i) for i in range(len(methods))]
    table = pd.DataFrame(
        {
            "method": methods,
            "mfi": values,
            "mfi_low": None,
            "mfi_high": values,
        }
    )
    found = forest_rows(table[foremost(table)], 10)
    assert found["method"].tolist() == [*methods[:MOST], "ce"]
    assert found["mfi"].iloc[0] == 1.0
    assert found["text"].iloc[0] == "10.00 […, 10.00]"


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("background", ["#FFFFFF", "#0A0C10"])
def test_curves_stand_out_from_both_backgrounds(background: str) -> None:
    for style in charts.styles(["ce", "focal", "tce", "control", *"abcde"]).values():
        light, dark = sorted((luminance(style.colour), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_backgrounds_are_those_of_the_theme() -> None:
    config = (bundled("leaderboard") / ".streamlit" / "config.toml").read_text("utf-8")
    assert 'backgroundColor = "#FFFFFF"' in config
    assert 'backgroundColor = "#0A0C10"' in config
    for setting in ("gatherUsageStats = false", "maxUploadSize = 2", "enableXsrfProtection = true"):
        assert setting in config

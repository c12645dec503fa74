"""The report and what notebooks show: the takeaway with its uncertainty, the figures, the command, the frames."""

from __future__ import annotations

import html
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_task import write_tiny_task
from torch import Tensor

from collapsebench.api import compare
from collapsebench.errors import UserError
from collapsebench.losses import Elements, Loss
from collapsebench.reports.comparison import Comparison
from collapsebench.reports.plots import figure_svg
from collapsebench.reports.sections import command
from collapsebench.reports.takeaway import Takeaway, takeaway
from collapsebench.scoring.table import HEADLINE
from collapsebench.task import load_task

NAME = "a<b>&$x$_" + "long" * 20


class Halved(Loss):
    """Half of <cross> entropy."""

    weight: float = 0.5

    def elementwise(self, e: Elements) -> Tensor:
        return -self.weight * e.log_p


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("report")
    task = load_task(write_tiny_task(folder, "gmm", seeds=[0, 1, 2], horizon=2))
    return compare(task, ["ce", "tce", Halved], out=folder / "runs", device="cpu")


@pytest.fixture(scope="module")
def page(compared: Comparison) -> str:
    return compared.report().read_text("utf-8")


def against_ce(comparison: Comparison, **verdicts: tuple[str | None, float | None, int]) -> Takeaway:
    """The takeaway where methods stand to ce as given: verdict, ratio, seeds."""
    table = comparison.table.set_index("method").loc[["ce", *verdicts]]
    for method, (verdict, ratio, seeds) in verdicts.items():
        table.loc[method, "verdict_ce"] = verdict
        table.loc[method, ["ratio_ce", "ratio_ce_low", "ratio_ce_high"]] = (
            [ratio, ratio - 0.1, ratio + 0.1] if ratio else [None, None, None]
        )
        table.loc[method, ["difference_ce", "difference_ce_low", "difference_ce_high"]] = [-1.0, -1.5, -0.5]
        table.loc[[method, "ce"], "seeds"] = seeds
    return takeaway(replace(comparison, table=table.reset_index()))


def test_takeaway_names_the_best_method_with_its_interval(compared: Comparison) -> None:
    found = against_ce(compared, tce=("better", 1.3, 10), Halved=("tied", 1.0, 10))
    assert found.headline == (
        "tce stays faithful longer than cross entropy: 1.30 times as long (95 % interval 1.20 to 1.40, over 10 seeds)."
    )
    assert (
        "Halved does not differ significantly from ce: 1.00 times as long (95 % interval 0.90 to 1.10)."
        in found.details
    )


def test_takeaway_claims_nothing_that_no_test_found(compared: Comparison) -> None:
    tied = against_ce(compared, tce=("tied", 1.3, 3), Halved=("worse", 0.5, 3))
    assert tied.headline == "No method stays faithful significantly longer than cross entropy over 3 seeds."
    assert any("1.20 to 1.40), which is not enough once all comparisons" in sentence for sentence in tied.details)
    worse = against_ce(compared, tce=("worse", 0.8, 3), Halved=("worse", None, 3))
    assert worse.headline == "Cross entropy stays faithful longest over 3 seeds."
    assert "Halved is worse than ce: -1.00 generations (95 % interval -1.50 to -0.50)." in worse.details
    one = against_ce(compared, tce=(None, None, 1), Halved=(None, None, 1))
    assert one.headline == "One seed is not enough to tell whether methods differ from cross entropy."


def test_takeaway_of_a_part_of_the_task_says_so(compared: Comparison) -> None:
    part = replace(compared, generations=1)
    assert takeaway(part).headline.startswith("In a try-out on a part of the task: ")


def test_report_leads_with_the_takeaway_and_shows_every_method_as_a_card(compared: Comparison, page: str) -> None:
    found = takeaway(compared)
    text = html.unescape(page)
    assert text.index(found.headline) < text.index("<svg")
    assert all(line in text for line in found.details)
    assert "Half of &lt;cross&gt; entropy." in page
    assert "gamma = 0.9, reduction = mean" in page
    assert "weight = 0.5" in page


def test_report_names_the_command_where_there_is_one(compared: Comparison, page: str) -> None:
    assert "a loss here exists only in a notebook or script" in page
    named = replace(compared, cells=[c for c in compared.cells if c["label"] != "Halved"], generations=1)
    words = shlex.split(command(named) or "")
    assert words[:4] == ["collapsebench", "compare", "task.yaml", "--methods"]
    assert sorted(words[4].split(",")) == ["ce", "tce"]
    assert words[5:] == ["--seeds", "0,1,2", "--generations", "1"]


def test_forest_has_a_point_per_seed_and_survives_any_name(compared: Comparison) -> None:
    renamed = {"Halved": NAME}
    table, scores = (frame.replace({"method": renamed}) for frame in (compared.table, compared.scores))
    figure = replace(compared, table=table, scores=scores).plot("forest")
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [len(line.get_xdata()) for line in rings] == [3, 3, 3]
    svg = figure_svg(figure)
    assert "a&lt;b&gt;&amp;$x$_" in svg
    assert "<b>" not in svg
    assert "url(" not in svg
    assert "currentColor" in svg, "so that it can be read on a dark page"


def test_threshold_is_named_on_the_axis_and_nothing_pokes_above_its_line(compared: Comparison) -> None:
    panels = compared.plot().axes
    assert f"λ = {HEADLINE}" in [label.get_text() for label in panels[0].get_yticklabels()]
    for axes, metric in zip(panels, compared.task.spec.scored, strict=True):
        assert not axes.texts
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        mine = compared.scores[compared.scores["metric"] == metric]
        assert len(dotted) == (~mine.groupby("method")[f"fi_{HEADLINE:g}_censored"].any()).sum()
        assert all(list(line.get_ydata()) == [0, HEADLINE] for line in dotted)
        assert all(line.get_marker() != "|" for line in axes.lines)


def test_notebook_shows_takeaway_table_and_curves(compared: Comparison) -> None:
    shown = compared._repr_html_()
    assert html.escape(takeaway(compared).headline) in shown
    assert all(f">{method}<" in shown for method in compared.methods)
    assert 'src="data:image/png;base64,' in shown
    assert compared.plot()._repr_png_().startswith(b"\x89PNG")


def test_frames_are_copies_and_misspelt_ones_are_named(compared: Comparison) -> None:
    frame = compared.to_pandas()
    assert list(frame["method"]) == compared.methods
    frame["mfi"] = 0.0
    assert (compared.table["mfi"] > 0).any()
    assert set(compared.to_pandas("scores")["seed"]) == {0, 1, 2}
    with pytest.raises(UserError, match="give one of table, curves, scores, raw, engagement"):
        compared.to_pandas("tabel")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="give one of curves, forest"):
        compared.plot("curve")  # type: ignore[arg-type]


def test_comparing_shows_progress_on_the_error_stream(
    compared: Comparison, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    compare(compared.task, ["ce"], seeds=[0], generations=0, out=tmp_path, device="cpu")
    told = capsys.readouterr()
    assert "generation 0/0 complete" in told.err
    assert told.out == ""


def test_a_notebook_has_one_line_of_progress(
    compared: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    compare(compared.task, ["ce"], seeds=[0], generations=1, out=tmp_path, device="cpu")
    told = capsys.readouterr()
    written = told.out.split("\r")
    assert any(line.startswith("1 of 2 generations, about 0:0") for line in written)
    assert written[-1].startswith("2 of 2 generations, 0:0")
    assert told.out.count("\n") == 1
    assert "generation" not in told.err

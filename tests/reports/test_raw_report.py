"""The report of a task without references: what it says, how its numbers look, and all that the other report has."""

from __future__ import annotations

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tiny_task import write_tiny_task
from torch import Tensor

from collapsebench.api import compare
from collapsebench.losses import Elements, Loss
from collapsebench.reports.palette import COLOURS
from collapsebench.reports.raw_comparison import RawComparison, read_raw_comparison
from collapsebench.task import load_task

TITLE = "Of <i>my</i> & $other$ data"
SCORED = {"scored": {"kl_to_truth": {}, "minority_mass": {}}}


class Halved(Loss):
    """Half of <cross> entropy."""

    def elementwise(self, e: Elements) -> Tensor:
        return -0.5 * e.log_p


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("raw")


@pytest.fixture(scope="module")
def compared(folder: Path) -> RawComparison:
    task = load_task(write_tiny_task(folder, "gmm", title=TITLE, seeds=[0, 1, 2], horizon=2, **SCORED))
    found = compare(task, ["control", "tce", "ce", Halved], out=folder / "runs", device="cpu")
    assert isinstance(found, RawComparison)
    return found


@pytest.fixture(scope="module")
def page(compared: RawComparison) -> str:
    return compared.report().read_text("utf-8")


def with_numbers(comparison: RawComparison, metric: str, **rows: tuple[float | None, ...]) -> RawComparison:
    """The comparison with other numbers of one metric: first, last, difference to ce, each with its interval."""
    names = [f"{n}{end}" for n in ("first", "last", "difference_ce") for end in ("", "_low", "_high")]
    table = [
        {"metric": metric, "method": method, "seeds": 3} | dict(zip(names, numbers, strict=True))
        for method, numbers in rows.items()
    ]
    return replace(comparison, table=pd.DataFrame(table), metrics=(metric,))


def cells(shown: str) -> list[list[str]]:
    """The texts of a table's rows, with plain spaces."""
    plain = html.unescape(shown).replace("\u00a0", " ")
    rows = re.findall(r"<tr>(<td.*?)</tr>", plain, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_page_leads_with_every_metric_and_says_that_nothing_is_ranked(compared: RawComparison, page: str) -> None:
    text = html.unescape(page)
    head = text[: text.index("<svg")]
    assert "Raw measurements over 3 seeds: nothing is ranked, and nothing is tested together." in head
    for title in ("KL(truth ‖ model), nats, lower is better", "Mass of the minority mode, higher is better"):
        (line,) = re.findall(rf"<p>{re.escape(title)}: (.*?)</p>", head)
        assert re.match(
            r"ce goes from [\d.]+ in generation 0 to [\d.]+ in generation 2\. There, Halved minus ce is", line
        )
        assert re.search(r"tce minus ce is [+−][\d.]+ \(95 % interval [+−][\d.]+ to [+−][\d.]+\)", line)
        assert line.endswith(").")


def test_one_seed_is_said_to_tell_nothing(compared: RawComparison) -> None:
    shown = html.unescape(read_raw_comparison(compared.folder, compared.task, seeds=[0], generations=1)._repr_html_())
    assert (
        "In a try-out on a part of the task: One seed cannot tell whether methods differ: nothing is ranked, and "
        "nothing is tested." in shown
    )
    assert "95 % interval" not in shown
    assert all("[" not in number for row in cells(shown) for number in row)


def test_a_method_without_a_number_is_not_compared(compared: RawComparison) -> None:
    nothing = (None,) * 3
    lost = (0.1, 0.0, 0.2, *nothing, *nothing)
    kept = (0.5, 0.4, 0.6, 1.5, 1.4, 1.6, *nothing)
    told = html.unescape(with_numbers(compared, "kl_to_truth", ce=kept, tce=lost)._repr_html_())
    assert "There, tce has no number to compare." in told
    told = html.unescape(with_numbers(compared, "kl_to_truth", ce=lost, tce=kept)._repr_html_())
    assert "ce starts at 0.10 and has no number in generation 2" in told
    assert "tce goes from 0.50 in generation 0 to 1.50 in generation 2" in told
    assert "minus ce is" not in told


def test_numbers_have_the_decimals_of_their_intervals_and_align(compared: RawComparison) -> None:
    nothing = (None,) * 3
    shown = with_numbers(
        compared,
        "kl_to_truth",
        ce=(1.5876, 1.4747, 1.7006, 11.7063, 11.6958, 11.7168, *nothing),
        tce=(1.5865, 1.4844, 1.6886, 1.7071, 1.6799, 1.7343, 0.0007722, -0.01592, 10.01746),
        Halved=(1.5865, 1.4844, 1.6886, 1.7071, 1.6799, 1.7343, 0.0107722, -0.0001592, 0.01746),
    )._repr_html_()
    ce, tce, halved = (row[2:] for row in cells(shown))
    assert ce == ["1.588 [1.475, 1.701]", "11.706 [11.696, 11.717]", "–"]
    assert [number.replace("\u2007", "") for number in tce[:2]] == ["1.587 [1.484, 1.689]", "1.707 [1.680, 1.734]"]
    assert [len(numbers[1]) for numbers in (ce, tce, halved)] == [23] * 3
    assert tce[2] == "\u2007+0.0008 [\u2007−0.0159, +10.0175]"
    assert len(halved[2]) == len(tce[2])


def test_nothing_of_a_user_is_markup_and_no_folder_is_named(compared: RawComparison, page: str, folder: Path) -> None:
    for shown in (page, compared._repr_html_()):
        assert "<i>" not in shown
        assert str(folder) not in shown
    assert html.escape(TITLE) in page
    assert "Half of &lt;cross&gt; entropy." in page
    assert "collapsebench calibrate task.yaml --write" in html.unescape(page)
    assert set(re.findall(r'(?:src|href)="([a-z]+:)', page)) <= {"data:"}


def test_page_has_the_parts_of_the_other_report(compared: RawComparison, page: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "What was measured, not ranked", "What was compared", "What the models believe",
        "How much each loss leaves out", "All metrics", "How it was run",
    ]  # fmt: skip
    assert re.findall(r'<div class="card"><h3>(.*?)</h3>', page) == ["ce", "Halved", "tce", "control"]
    assert "In the table (2)" in page
    assert "a loss here exists only in a notebook or script" in page
    assert page.count('<figure role="group"') == 2 * 2 + len(compared.methods), "curves and differences, densities"
    by_seed = page[page.index("<summary>By seed</summary>") :]
    assert re.search(
        r"<th>method</th><th scope=\"col\">0</th><th scope=\"col\">1</th><th scope=\"col\">2</th>", by_seed
    )


def test_command_names_files_without_their_folders(folder: Path) -> None:
    task = load_task(write_tiny_task(folder / "filed", "gmm", horizon=1, **SCORED))
    file = folder / "filed" / "mine.py"
    file.write_text(
        "from collapsebench import Loss\nclass Mine(Loss):\n    def elementwise(self, e): return -e.log_p\n"
    )
    found = compare(task, ["ce", f"{file}:Mine"], seeds=[0], out=folder / "filed" / "runs", device="cpu")
    (shown,) = re.findall(r"<pre>(.*?)</pre>", found.report().read_text("utf-8"))
    assert shlex.split(html.unescape(shown)) == [
        "collapsebench", "compare", "task.yaml", "--methods", "ce,mine.py:Mine", "--seeds", "0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "metric", "heading"),
    [("text", "perplexity", "What the models write"), ("vae", "negative_elbo", "What the models draw")],
)
def test_page_shows_what_the_models_made(folder: Path, kind: str, metric: str, heading: str) -> None:
    task = load_task(write_tiny_task(folder / kind, kind, horizon=1, scored={metric: {}}))
    found = compare(task, ["ce"], seeds=[0], out=folder / kind / "runs", device="cpu")
    text = found.report().read_text("utf-8")
    shown = text[text.index(f"<h2>{heading}</h2>") :]
    assert "Generation 1" in shown
    assert ("<blockquote>" in shown) == (kind == "text")
    assert ("data:image/webp" in shown) == (kind == "vae") == (found.folder / "ce.webp").is_file()
    assert "minus ce is" not in text, "there is nothing but ce"


def test_curves_have_the_colours_of_the_methods_and_their_title_fits(compared: RawComparison) -> None:
    (panel, _) = compared.plot().axes
    lines = {line.get_label(): line for line in panel.lines}
    assert [lines[m].get_color() for m in ("ce", "tce")] == [COLOURS[0], COLOURS[2]]
    assert len({lines[m].get_marker() for m in compared.methods}) == 4
    single = replace(compared, metrics=("kl_to_truth",)).plot()
    single.draw_without_rendering()
    title = single._suptitle.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= single.bbox.x1


def test_notebook_shows_the_table_and_the_curves(compared: RawComparison) -> None:
    shown = compared._repr_html_()
    assert [row[0] for row in cells(shown)] == compared.methods * 2
    assert 'src="data:image/png;base64,' in shown
    assert "not calibrated" in shown

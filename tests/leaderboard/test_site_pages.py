"""Every page over small folders of submissions: what it shows, filters, links, what is broken or gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest
from submission_files import engaged, entry_of, tiny_task, valid_submission, write

from collapsebench.publishing.board import Board
from collapsebench.publishing.submission import (
    Attestation,
    Submission,
    attestation_path,
    canonical_bytes,
    sha256_of,
)
from collapsebench.task import Task

Site = Callable[..., AppTest]
PAGES = ("board", "task", "gallery", "compare", "submission", "check", "rules")


def texts(app: AppTest) -> str:
    """All text of a page outside tables and charts."""
    kinds = (app.title, app.header, app.subheader, app.markdown, app.caption, app.text, app.info, app.warning)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def ranking_tables(app: AppTest) -> list[pd.DataFrame]:
    """Every ranking of a page: the column of digests is one that only rankings have."""
    return [frame.value for frame in app.dataframe if "entry" in frame.value and "mfi" in frame.value]


def rankings(app: AppTest) -> dict[str, list[str]]:
    """Methods in the order of every ranking."""
    return {str(n): list(table["method"]) for n, table in enumerate(ranking_tables(app))}


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_without_an_exception(page: str, published: Path, site: Site) -> None:
    app = site(published, page)
    assert not app.exception
    assert app.title[0].value
    assert not app.warning


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_over_an_empty_folder(page: str, tmp_path: Path, site: Site) -> None:
    app = site(tmp_path / "nowhere", page)
    assert not app.exception


@pytest.mark.parametrize("page", PAGES)
def test_page_opens_over_one_submission(page: str, tmp_path: Path, tasks: dict[str, Task], site: Site) -> None:
    write(valid_submission(tasks["text"], name="Alone"), tmp_path)
    app = site(tmp_path, page)
    assert not app.exception


def test_board_ranks_every_task_by_itself(published: Path, board: Board, site: Site) -> None:
    app = site(published)
    expected = {
        str(n): list(mine["method"])
        for n, (_, mine) in enumerate(board.table[board.table["tier"] == "micro"].groupby("task"))
    }
    assert rankings(app) == expected


def test_board_says_which_tasks_a_method_misses(published: Path, tasks: dict[str, Task], site: Site) -> None:
    (overall,) = (f.value for f in site(published).dataframe if "missing" in f.value)
    missing = dict(zip(overall["method"], overall["missing"], strict=True))
    assert tasks["vae"].id in missing["Loss_C"]
    assert tasks["text"].id not in missing["Loss_C"]


def test_board_says_on_what_the_entries_ran(published: Path, site: Site) -> None:
    said = texts(site(published))
    assert "7 entries: 3 methods on 3 tasks." in said
    assert "All were run on a CPU." in said
    assert "None has been verified by others yet." in said


def test_modality_filter_keeps_its_tasks(published: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(published, modality=["gmm"])
    assert [header.anchor for header in app.header] == ["forest", "overall", tasks["gmm"].spec.name]
    assert len(rankings(app)) == 1


def test_search_filter_keeps_methods_and_authors(published: Path, site: Site) -> None:
    assert list(rankings(site(published, search="loss_c")).values()) == [["Loss_C"]]
    assert len(rankings(site(published, search="ünïcode"))) == 3
    assert "No entry passes these filters." in texts(site(published, search="nobody"))


def test_verified_filter_hides_what_nobody_has_verified(published: Path, site: Site) -> None:
    assert "No entry passes these filters." in texts(site(published, verified="true"))


def test_tier_and_track_without_entries_say_so(published: Path, site: Site) -> None:
    assert "not calibrated yet" in texts(site(published, tier="standard"))
    assert "No entries on the provenance track" in texts(site(published, track="provenance"))


def test_filters_can_be_used(published: Path, site: Site) -> None:
    app = site(published)
    app.text_input(key="search").set_value("Loss_B").run()
    assert set(map(tuple, rankings(app).values())) == {("Loss_B",)}


def test_broken_files_are_listed_among_good_ones(folder: Path, site: Site) -> None:
    good = sum(len(methods) for methods in rankings(site(folder)).values())
    (folder / "broken.json").write_text("{", "utf-8")
    (folder / "text@1").mkdir()
    (folder / "text@1" / "MyLoss-0123456789abcdef.json").write_text('{"a": 1}', "utf-8")
    app = site(folder)
    assert not app.exception
    assert app.expander[-1].label == "2 files are not valid and not ranked"
    (problems,) = (f.value for f in app.dataframe if "code" in f.value)
    assert {"not-json", "schema"} <= set(problems["code"])
    assert sum(len(methods) for methods in rankings(app).values()) == good


def test_submission_that_vanishes_leaves_the_board(folder: Path, site: Site) -> None:
    app = site(folder)
    for path in folder.rglob("Loss_C*.json"):
        path.unlink()
    app.run()
    assert not app.exception
    assert all("Loss_C" not in methods for methods in rankings(app).values())


def test_submission_that_vanishes_while_a_page_is_made_is_said(
    folder: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = site(folder, "submission")
    import reading

    state = reading._state(folder)
    monkeypatch.setattr(reading, "_state", lambda _: state)  # as if it went after the folder was listed
    for path in folder.rglob("*.json"):
        path.unlink()
    reading._kept.clear()
    app.run()
    assert not app.exception
    assert "has just changed or gone" in app.warning[0].value


@pytest.mark.parametrize(
    ("page", "key"), [("task", "task"), ("task", "methods"), ("task", "metric"), ("gallery", "task"),
                      ("compare", "a"), ("compare", "on"), ("submission", "entry")]
)  # fmt: skip
def test_unknown_name_in_the_address_is_said(page: str, key: str, published: Path, site: Site) -> None:
    app = site(published, page, **{key: "[nobody](https://example.org)"})
    assert not app.exception
    assert "there is no such" in app.warning[0].value
    assert "](" not in app.warning[0].value


def test_task_page_follows_its_link(published: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(published, "task", task=tasks["vae"].id, methods=["Loss_B"], metric="coverage", threshold="0.5")
    assert app.selectbox(key="task-choice").value == tasks["vae"].id
    assert app.multiselect(key="methods").value == ["Loss_B"]
    assert app.session_state["threshold"] == 0.5
    spec = json.dumps([chart.spec for chart in app.get("vega_lite_chart")])
    assert "Loss_B" in spec
    assert "λ = 0.5" in spec or "FI(0.5)" in texts(app)


def test_what_a_loss_masks_is_shown_where_it_was_measured(tmp_path: Path, tasks: dict[str, Task], site: Site) -> None:
    task = tasks["text"]
    write(valid_submission(task, name="Before"), tmp_path)
    assert "leaves out" not in " ".join(header.value for header in site(tmp_path, "task", task=task.id).header)
    assert "masked_gradient" not in ranking_tables(site(tmp_path))[0]
    content = engaged(valid_submission(task, name="Masks"), 0.03)
    write(content, tmp_path)
    ranking = ranking_tables(site(tmp_path))[0].set_index("method")["masked_gradient"]
    assert (ranking["Masks"], ranking["Before"]) == ("only 3.0 %", "–")
    other = tmp_path / "density"
    write(engaged(valid_submission(tasks["gmm"], name="Masks"), 0.3), other)
    assert list(ranking_tables(site(other))[0]["masked_gradient"]) == ["30 % (p is a density)"]
    page = site(tmp_path, "task", task=task.id)
    assert not page.exception
    assert any("leaves out" in header.value for header in page.header)
    raw = site(tmp_path, "submission", entry=entry_of(content).digest)
    assert not raw.exception
    assert any("confident_elements" in frame.value for frame in raw.dataframe)


def test_task_page_moves_to_another_task(published: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(published, "task", task=tasks["vae"].id, methods=["Loss_B"])
    app.selectbox(key="task-choice").select(tasks["gmm"].id).run()
    assert not app.exception
    assert app.multiselect(key="methods").value
    assert app.query_params["task"] == tasks["gmm"].id


def test_task_is_kept_from_page_to_page(published: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(published, "task", task=tasks["vae"].id)
    del app.query_params["task"]
    app.switch_page("views/gallery.py").run()
    assert app.selectbox(key="task-choice").value == tasks["vae"].id
    assert app.query_params["task"] == tasks["vae"].id


def test_link_to_another_entry_is_followed_within_a_session(published: Path, board: Board, site: Site) -> None:
    first, second = board.table["digest"].iloc[:2]
    app = site(published, "submission", entry=first)
    app.query_params["entry"] = second
    app.run()
    assert f"{second}.json" in "\n".join(block.value for block in app.code)


@pytest.mark.parametrize("kind", ["text", "vae", "gmm"])
def test_gallery_shows_every_kind_of_sample(kind: str, published: Path, tasks: dict[str, Task], site: Site) -> None:
    for view in ("one generation", "all generations"):
        app = site(published, "gallery", task=tasks[kind].id, view=view)
        assert not app.exception
        generations = 1 if view == "one generation" else tasks[kind].spec.horizon + 1
        shown = {"text": "text", "vae": "image", "gmm": "vega_lite_chart"}[kind]
        methods = 3 if kind == "text" else 2
        assert len(app.get(shown)) == generations * methods


def test_gallery_slider_moves_through_the_generations(published: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(published, "gallery", task=tasks["text"].id)
    app.slider(key="generation").set_value(2).run()
    assert "1902" in "\n".join(text.value for text in app.text)


def test_compare_page_shows_both_methods_on_their_common_tasks(published: Path, site: Site) -> None:
    app = site(published, "compare", a="Loss_A:beta=1", b="Loss_B")
    ratios = app.dataframe[0].value
    assert len(ratios) == 3
    app = site(published, "compare", a="Loss_A:beta=1", b="Loss_C")
    assert len(app.dataframe[0].value) == 1


def test_compare_page_asks_for_two_methods(published: Path, site: Site) -> None:
    app = site(published, "compare", a="Loss_B", b="Loss_B")
    assert "Choose two different methods." in texts(app)


def test_submission_page_follows_its_link(published: Path, board: Board, site: Site) -> None:
    digest = board.table["digest"].iloc[-1]
    app = site(published, "submission", entry=digest)
    assert app.query_params["entry"] == digest
    code = "\n".join(block.value for block in app.code)
    assert f"{digest}.json" in code
    assert board.entries[digest].sha256 in code
    assert "collapsebench verify" in code
    assert "@misc" in code


def test_superseded_entry_says_what_replaced_it(tmp_path: Path, tasks: dict[str, Task], site: Site) -> None:
    old = write(valid_submission(tasks["gmm"], name="Old"), tmp_path)
    digest = old.stem.rpartition("-")[2]
    new = write(valid_submission(tasks["gmm"], name="New", supersedes=digest), tmp_path)
    app = site(tmp_path, "submission", entry=digest)
    assert not app.exception
    assert any(new.stem.rpartition("-")[2] in link.label for link in app.get("page_link"))
    assert rankings(site(tmp_path)) == {"0": ["New"]}


@pytest.mark.parametrize(
    ("by", "outcome", "alike", "told"),
    [
        ("A. Stranger", "matched", False, "Verified by others"),
        ("A. Author", "matched", True, "Verified by its authors only"),
        ("A. Stranger", "differed", True, "Disputed"),
        ("A. Stranger", "differed", False, "another kind of machine"),
    ],
)
def test_attestations_are_shown_with_their_entry(
    by: str, outcome: str, alike: bool, told: str, tmp_path: Path, tasks: dict[str, Task], site: Site
) -> None:
    path = write(valid_submission(tasks["gmm"], name="Mine"), tmp_path)
    attest(path, by=by, outcome=outcome, alike=alike)
    app = site(tmp_path, "submission")
    assert not app.exception
    assert told in "\n".join(badge.value for badge in app.markdown)
    (rows,) = (f.value for f in app.dataframe if "an author" in f.value)
    assert rows[["by", "outcome"]].to_numpy().tolist() == [[by, outcome]]
    verified = site(tmp_path, verified="true")
    assert bool(rankings(verified)) == (told == "Verified by others")


def attest(path: Path, by: str, outcome: str, alike: bool) -> None:
    """Write an attestation beside a submission."""
    machine = Submission.model_validate_json(path.read_bytes()).provenance[0]
    if not alike:
        machine = machine.model_copy(update={"processor": "another one"})
    about = {
        "schema_version": 1, "submission_sha256": sha256_of(path.read_bytes()), "seed": 0, "generations": 1,
        "outcome": outcome, "tolerance": 0.005, "compared": 10, "identical": 9, "by": by, "date": "2026-02-01",
        "largest": {"metric": "kl_to_truth", "generation": 1, "submitted": 1.0, "measured": 1.5, "relative": 0.5},
        "machine": machine.model_dump(mode="json"), "alike": alike,
    }  # fmt: skip
    content = canonical_bytes(Attestation.model_validate_json(json.dumps(about)))
    attestation_path(path, content).write_bytes(content)


def test_rules_page_has_the_protocol_the_costs_and_the_changes(published: Path, site: Site) -> None:
    assert "must not" in texts(site(published, "rules"))
    costs = site(published, "rules", part="Tasks and cost").dataframe[0].value
    assert {"gmm-micro@1", "diffusion-cifar10@1"} <= set(costs["task"])
    assert "Leaderboard" in texts(site(published, "rules", part="Changes"))


def test_valid_file_is_ranked_and_nothing_is_stored(published: Path, tasks: dict[str, Task], site: Site) -> None:
    before = sorted(published.rglob("*"))
    (path,) = [write(valid_submission(tasks["text"], name="Mine"), published.parent / "elsewhere")]
    app = site(published, "check")
    app.file_uploader[0].upload(path.name, path.read_bytes()).run()
    assert not app.exception
    assert "Valid" in app.success[0].value
    assert app.metric[0].value.endswith("of 4")
    assert sorted(published.rglob("*")) == before


def test_refused_file_gets_all_problems_at_once(published: Path, site: Site) -> None:
    app = site(published, "check")
    app.file_uploader[0].upload("mine.json", b'{"schema_version": 1}').run()
    assert not app.exception
    assert "Refused" in app.error[0].value
    assert len(app.dataframe[0].value) > 3


def test_tasks_besides_the_registered_ones_are_known(published: Path, tmp_path: Path, site: Site) -> None:
    other = tiny_task(tmp_path / "other", "gmm", name="another")
    app = site(published, "task", task=other.id)
    assert "there is no such" in app.warning[0].value

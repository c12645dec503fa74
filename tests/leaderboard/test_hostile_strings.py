"""What strangers wrote, on every page: as the text that it is, never as Markdown, HTML or a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reproduction import citation, commands, host_of
from streamlit.testing.v1 import AppTest
from submission_files import content_of, put, valid_submission, write_content

from collapsebench.publishing.board import Board, read_board
from collapsebench.task import Task

Site = Callable[..., AppTest]
HOSTILE = "**bold** [x](https://e.org) `code` :material/home: $x$ :red[hi] #h ![i](https://e.org/i.png)"
NAME = "www.e.org:smile:__b__=1"
PAGES = ("board", "task", "gallery", "compare", "submission")
# Elements whose text Streamlit reads as Markdown.
MARKDOWN = ("title", "header", "subheader", "markdown", "caption", "info", "warning", "error", "success")
LABELLED = ("metric", "expander", "link_button", "page_link", "download_button", "selectbox", "multiselect", "pills")


def hostile(task: Task) -> dict[str, Any]:
    """A valid submission that is as nasty as the schema allows."""
    content: dict[str, Any] = content_of(valid_submission(task, name="Mine"))
    content = put(content, "method.name", NAME)
    content = put(content, "method.card", f"{HOSTILE}\n\n# heading\n- item\n| a | b |\n|---|---|\nwww.e.org")
    content = put(content, "method.parameters", {"beta": "; rm -rf ~ **b** [x](https://e.org)", "gamma": "$(reboot)"})
    content = put(content, "authors", [HOSTILE, "} , url = {https://e.org"])
    content = put(content, "provenance.0.processor", HOSTILE)
    if content["samples"]["kind"] == "text":
        for excerpts in content["samples"]["generations"].values():
            excerpts[0] |= {"prompt": HOSTILE, "text": f"{HOSTILE}\n# heading"}
    return content


@pytest.fixture(scope="session")
def nasty(tasks: dict[str, Task], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hostile and harmless submissions."""
    folder = tmp_path_factory.mktemp("nasty")
    for kind in ("text", "gmm"):
        write_content(hostile(tasks[kind]), folder)
        write_content(content_of(valid_submission(tasks[kind], name="Other")), folder)
    return folder


@pytest.fixture(scope="session")
def nasty_board(nasty: Path, tasks: dict[str, Task]) -> Board:
    return read_board(nasty, {task.id: task for task in tasks.values()})


def markdown_of(app: AppTest) -> str:
    """Everything on a page that is read as Markdown."""
    values = [str(element.value) for kind in MARKDOWN for element in app.get(kind)]
    labels = [str(getattr(element, "label", "")) for kind in LABELLED for element in app.get(kind)]
    return "\n".join([*values, *labels])


def test_schema_allows_what_is_tested(nasty_board: Board) -> None:
    assert nasty_board.broken == []
    assert NAME in set(nasty_board.table["method"])


@pytest.mark.parametrize("page", PAGES)
def test_nothing_hostile_is_read_as_markdown(page: str, nasty: Path, nasty_board: Board, site: Site) -> None:
    entry = nasty_board.table.loc[nasty_board.table["method"] == NAME, "digest"].iloc[0]
    query = {"submission": {"entry": str(entry)}, "compare": {"a": NAME, "b": "Other"}}.get(page, {})
    app = site(nasty, page, **query)
    assert not app.exception
    read = markdown_of(app)
    for active in ("https://e.org", "www.e.org", ":red[", ":smile:", "**bold**", "$x$", "__b__"):
        assert active not in read


def test_card_is_shown_as_text(nasty: Path, nasty_board: Board, site: Site) -> None:
    entry = str(nasty_board.table.loc[nasty_board.table["method"] == NAME, "digest"].iloc[0])
    texts = [text.value for text in site(nasty, "submission", entry=entry).text]
    assert any(text.startswith(HOSTILE) and "# heading" in text for text in texts)


def test_excerpts_are_shown_as_text(nasty: Path, tasks: dict[str, Task], site: Site) -> None:
    app = site(nasty, "gallery", task=tasks["text"].id)
    assert f"⟦{HOSTILE}⟧{HOSTILE}\n# heading" in [text.value for text in app.text]


def test_commands_hold_no_command_of_the_contestant(nasty_board: Board) -> None:
    digest = nasty_board.table.loc[nasty_board.table["method"] == NAME, "digest"].iloc[0]
    entry = nasty_board.entries[digest]
    for line in commands(entry, entry.submission).splitlines():
        if not line.startswith("#"):
            words = shlex.split(line)
            assert words[0] == "collapsebench"
            assert not set(words) & {";", "rm", "-rf", "~"}


def test_citation_keeps_to_its_fields(nasty_board: Board) -> None:
    digest = nasty_board.table.loc[nasty_board.table["method"] == NAME, "digest"].iloc[0]
    entry = nasty_board.entries[digest]
    text = citation(entry, entry.submission, nasty_board)
    assert text.count("{") == text.count("}")
    assert [line.split(" = ")[0].strip() for line in text.splitlines()[1:-1]] == [
        "author", "title", "year", "howpublished", "note", "url",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url", [None, "", "http://e.org/x", "javascript:alert(1)", "https://user@e.org/x", "https:///x", "//e.org"]
)
def test_only_plain_https_addresses_become_links(url: str | None) -> None:
    assert host_of(url) is None


def test_host_of_an_address_is_shown() -> None:
    assert host_of("https://example.org:443/a/b") == "example.org"


def test_uploaded_problem_is_shown_as_text(nasty: Path, site: Site) -> None:
    app = site(nasty, "check")
    app.file_uploader[0].upload("mine.json", json.dumps({HOSTILE: HOSTILE}).encode()).run()
    assert not app.exception
    assert "https://e.org" not in markdown_of(app)

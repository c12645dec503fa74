"""What a task with a pretrained model reads: its splits, the items about them, what it goes on with; and its room."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from command import collapsebench
from safetensors.torch import load_file, save_file
from tiny_task import results, tiny_spec, write_tiny_task
from transformers import PreTrainedTokenizerFast

from collapsebench.api import run
from collapsebench.data import hub_splits
from collapsebench.data.hub_splits import load_split_rows
from collapsebench.data.sources import HubSplits, LocalSplits
from collapsebench.errors import DataError, UserError
from collapsebench.policies import REAL, TrainingSet, fraction
from collapsebench.resources import Resources
from collapsebench.running.plan import plan
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.pretrained import room
from collapsebench.workloads.pretrained.data import StreamData, stream_data
from collapsebench.workloads.pretrained.room import check_room
from collapsebench.workloads.pretrained.settings import Windows

torch.set_num_threads(1)

HUB = HubSplits.model_validate(
    {
        "source": "hub-splits",
        "dataset": "some/text",
        "revision": "0123456789" * 4,
        "files": {split: f"raw/{split}-of-1.parquet" for split in ("train", "validation", "test")},
    }
)
LOCAL = LocalSplits(source="local-splits", path="data")
# Rows as the hub has them: a line each, blank ones empty, and characters at which only some would break a line.
ROWS = {
    "train": ["", " = The mill = \n", "", " It was \u2028 built in\x851801 . \n", " It\x0bburnt . \n", "", ""],
    "validation": [" A bridge . \n", "", " Another bridge . \n"],
    "test": ["", " The harbour of Marlow . \n"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny task with its model and its data; not to be changed."""
    return write_tiny_task(tmp_path_factory.mktemp("tiny-lm"), "pretrained-lm").parent


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder / "model")


# Splits


def write_rows(folder: Path, names: tuple[str, str, str], rows: dict[str, list[str]] = ROWS) -> Path:
    """The splits as files: parquet has the rows, text files have " \\n" for blank ones."""
    folder.mkdir(exist_ok=True)
    for name, lines in zip(names, rows.values(), strict=True):
        if name.endswith(".parquet"):
            pd.DataFrame({"text": lines, "more": 0}).to_parquet(folder / name)
        else:
            (folder / name).write_text("".join(line or " \n" for line in lines), "utf-8")
    return folder


NAMES = [
    ("train-of-1.parquet", "validation-of-1.parquet", "test-of-1.parquet"),
    ("train.parquet", "validation.parquet", "test.parquet"),
    ("train.txt", "valid.txt", "test.txt"),
    ("wiki.train.raw", "wiki.valid.raw", "wiki.test.raw"),
    ("wiki.train.tokens", "validation.txt", "test.parquet"),
]


@pytest.mark.parametrize("names", NAMES)
def test_text_is_the_same_under_every_name_and_in_every_form(names: Any, tokenizer: Any, tmp_path: Path) -> None:
    streams = [stream_of(place, tokenizer, tmp_path) for place in (
        write_rows(tmp_path / "rows", NAMES[0]), write_rows(tmp_path / "other", names)
    )]  # fmt: skip
    expected, found = streams
    assert found.sha256 == expected.sha256
    assert found.split_digests == expected.split_digests
    assert found.row_starts == expected.row_starts
    assert len(found.row_starts) == len(ROWS["train"])
    assert torch.equal(found.train, expected.train)


def stream_of(data: Path, tokenizer: Any, tmp_path: Path) -> StreamData:
    changes = {"data": HUB.model_dump(), "workload.block": 8, "policy.size": 1, "horizon": 1}
    spec = tiny_spec("pretrained-lm", **changes)
    (tmp_path / "task.yaml").write_text(json.dumps(spec), "utf-8")
    return stream_data(load_task(tmp_path / "task.yaml", resources=Resources(data=data)), tokenizer)


def test_a_local_split_is_not_looked_for_under_the_hubs_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks the train and the validation and the test split"):
        load_split_rows(LOCAL, write_rows(tmp_path / "data", NAMES[0]))


@pytest.mark.parametrize("data", [HUB, LOCAL], ids=lambda data: data.source)
def test_splits_that_are_missing_are_all_named(data: HubSplits | LocalSplits, tmp_path: Path) -> None:
    write_rows(tmp_path, NAMES[2])
    (tmp_path / "valid.txt").unlink()
    with pytest.raises(DataError, match=r"lacks the validation split\. A split is a file called train, validation"):
        load_split_rows(data, tmp_path)
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match="lacks the validation and the test split"):
        load_split_rows(data, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("test.txt", b"", "is empty"),
        ("test.txt", b" \n\n", "is empty"),
        ("test.txt", "é".encode("latin-1"), "cannot be read as text: 'utf-8' codec"),
        ("test.parquet", b"PAR1", "cannot be read as text"),
    ],
)
def test_a_split_that_is_no_text_is_named(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    write_rows(tmp_path, ("train.txt", "valid.txt", name))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told) as caught:
        load_split_rows(HUB, tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_the_column_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, NAMES[1])
    with pytest.raises(DataError, match=r"train\.parquet cannot be read as text.*sentence"):
        load_split_rows(HUB.model_copy(update={"column": "sentence"}), tmp_path)


@pytest.mark.parametrize("given", ["only items", "nothing"])
def test_a_folder_without_any_split_leaves_the_text_to_the_hub(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = write_rows(tmp_path / "hub", NAMES[0])
    asked: list[tuple[str, str]] = []

    def hub_file(repository: str, name: str, revision: str, kind: str, advice: str) -> Path:
        assert (repository, revision, kind) == (HUB.dataset, HUB.revision, "dataset")
        assert "--data PATH" in advice
        asked.append((repository, name))
        return there / Path(name).name

    monkeypatch.setattr(hub_splits, "hub_file", hub_file)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/knowledge.json").write_text("[]")
    rows = load_split_rows(HUB, tmp_path / "data" if given == "only items" else None)
    assert rows == {"train": ROWS["train"], "selection": ROWS["validation"], "test": ROWS["test"]}
    assert sorted(name for _, name in asked) == sorted(HUB.files.values())


def test_text_too_short_for_the_task_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the train split has \d+ windows of 16 tokens, tiny-lm@1 needs 5000: "):
        load_workload(load_task(with_changes(folder, tmp_path, **{"policy.size": 5000})), "cpu")
    (tmp_path / "data/test.txt").write_text("A mill.\n")
    with pytest.raises(DataError, match=r"the test split has \d+ tokens, not one window of 16"):
        load_workload(load_task(with_changes(folder, tmp_path)), "cpu")


def with_changes(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of the task with other entries; what is in the target already stays."""
    for file in folder.rglob("*.*"):
        place = target / file.relative_to(folder)
        if file.is_file() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    (target / "task.yaml").write_text(json.dumps(tiny_spec("pretrained-lm", **changes)), "utf-8")
    return target / "task.yaml"


# Which fraction of the text an item is about


@pytest.mark.parametrize(("size", "parts"), [(6, 6), (7, 3), (12, 5), (64, 4), (97, 11), (18000, 6)])
def test_the_fraction_of_a_row_is_the_one_that_trains_on_its_first_window(size: int, parts: int) -> None:
    block = 4
    rows = [window * block + window % block for window in range(size)]  # at any token of their window
    nothing = torch.empty(0)
    measured = Windows(1, 1, 1, 1)
    train, starts = torch.arange(size)[:, None].expand(size, block), [*rows, size * block]
    stream = StreamData(train, parts, measured, nothing, nothing, nothing, {}, starts, "")
    real = TrainingSet.of(torch.arange(size), REAL)
    expected = [i for i in range(parts) for _ in range(len(fraction(real, i, parts)))]
    assert [stream.fraction_of(row) for row in range(size)] == expected
    assert stream.fraction_of(size) is None, "beyond the windows that are used"
    assert stream.fraction_of(size + 1) is None, "beyond the text"


def knowledge(folder: Path, target: Path, *locations: int | None) -> tuple[tuple[int | None, ...], tuple[int, ...]]:
    """Locations and fractions of the items that a task keeps of those at these rows of its 64 windows."""
    keys = ("context", "sentence_true", "sentence_false")
    items: list[dict[str, Any]] = [
        dict(zip(keys, ("A mill.", "It burnt.", f"No {i}."), strict=True)) for i in locations
    ]
    for item, location in zip(items, locations, strict=True):
        item |= {} if location is None else {"location": location}
    (target / "data").mkdir(exist_ok=True)
    (target / "data/knowledge.json").write_text(json.dumps(items), "utf-8")
    workload: Any = load_workload(load_task(with_changes(folder, target)), "cpu")
    return tuple(item.location for item in workload.knowledge.items), tuple(workload.knowledge.fractions.tolist())


def test_items_about_text_that_is_not_used_are_left_out(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    lines = (folder / "data/train.txt").read_text("utf-8").splitlines(keepends=True)
    starts = itertools.accumulate((len(tokenizer(line)["input_ids"]) for line in lines), initial=0)
    expected = {row: start // (16 * 16) for row, start in enumerate(starts) if row < len(lines)}  # 16 windows of 16
    kept, fractions = knowledge(folder, tmp_path, *expected, len(lines), 5000)
    used = {row: part for row, part in expected.items() if part < 4}
    assert 4 < len(used) < len(lines)
    assert dict(zip(kept, fractions, strict=True)) == used


def test_items_that_are_not_about_the_oldest_fraction_measure_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no item about the training windows 0 to 15, the fraction of generation 0"
    ):
        knowledge(folder, tmp_path, 15, 16)


def test_an_item_that_does_not_say_what_it_is_about_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"knowledge\.json: every item needs a location.*It burnt.*has none"):
        knowledge(folder, tmp_path, 0, None)


# Going on


@pytest.fixture(scope="module")
def begun(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs with the first generation of the task; not to be changed."""
    out = tmp_path_factory.mktemp("begun")
    run(folder / "task.yaml", "ce", out=out, generations=0, device="cpu")
    return out


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "model/model.safetensors")
    weights["model.norm.weight"][3] += 1e-3
    save_file(weights, folder / "model/model.safetensors", metadata={"format": "pt"})


def other_knowledge(folder: Path) -> None:
    file = folder / "data/knowledge.json"
    items = json.loads(file.read_text("utf-8"))
    items[0]["sentence_false"] += " Indeed."
    file.write_text(json.dumps(items), "utf-8")


def other_benchmark(folder: Path) -> None:
    file = folder / "data/pairs.jsonl"
    file.write_text(file.read_text("utf-8").replace('"sentence_bad": "', '"sentence_bad": "No, ', 1), "utf-8")


def other_text(folder: Path) -> None:
    shutil.copy(folder / "data/validation.txt", folder / "data/test.txt")


@pytest.mark.parametrize("change", [other_weights, other_knowledge, other_benchmark, other_text])
def test_a_run_does_not_go_on_with_anything_else_than_it_began_with(
    change: Callable[[Path], None], folder: Path, begun: Path, tmp_path: Path
) -> None:
    task = with_changes(folder, tmp_path / "task")
    change(task.parent)
    out = shutil.copytree(begun, tmp_path / "runs")
    with pytest.raises(UserError, match="holds another run: task differ"):
        run(task, "ce", out=out, generations=1, device="cpu")
    cell = Path("tiny-lm@1/ce/seed-0")
    assert results(out / cell) == results(begun / cell)


def test_a_run_goes_on_with_the_same_from_elsewhere(folder: Path, begun: Path, tmp_path: Path) -> None:
    task = with_changes(folder, tmp_path / "task")
    events: list[Any] = []
    out = shutil.copytree(begun, tmp_path / "runs")
    path = run(task, "ce", out=out, generations=1, device="cpu", listener=events.append)
    assert [(e.generation, e.phase) for e in events if e.phase in ("reused", "complete")] == [
        (0, "reused"),
        (1, "complete"),
    ]
    assert results(path).items() > results(begun / "tiny-lm@1/ce/seed-0").items()


# Room

LARGE = 200_000_000_000  # parameters


def plenty(_: str) -> tuple[int, str]:
    return LARGE * 16, "this machine"


def test_memory_and_disk_that_are_surely_too_small_are_told_with_what_is_needed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task(with_changes(folder, tmp_path, **{"workload.model.parameters": LARGE}))
    usage = shutil.disk_usage(tmp_path)._replace(free=LARGE * 4 * 3 * 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(room, "_free_memory", plenty)
    check_room(task, "cpu", tmp_path / "no/such/yet", 6)
    with pytest.raises(UserError, match=r"6400\.0 GB of weights, those of 8 generations, and .* has 4800\.0"):
        check_room(task, "cpu", tmp_path / "runs", 8)
    monkeypatch.setattr(room, "_free_memory", lambda _: (LARGE * 16 - 1, "this machine"))
    with pytest.raises(UserError, match=r"needs 3200\.0 GB of memory.*this machine has 3200\.0 GB free.*smaller model"):
        check_room(task, "cpu", tmp_path / "runs", 6)
    monkeypatch.setattr(room, "_free_memory", lambda _: (None, "this machine"))
    check_room(task, "cpu", tmp_path / "runs", 6)


def enough_memory() -> None:
    room._free_memory = plenty  # type: ignore[assignment]
    shutil.disk_usage = lambda _: type("Usage", (), {"free": 10**9})  # type: ignore[assignment]


def test_generations_that_are_there_need_no_more_room(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(room, "check_room", lambda _task, _device, _out, missing: asked.append(missing))
    task = with_changes(folder, tmp_path / "task", horizon=2)
    run(task, "ce", out=tmp_path / "runs", generations=0, device="cpu")
    plan(load_task(task), ["ce", "tce"], [0], tmp_path / "runs", None, "cpu")
    assert asked == [1, 2 + 3]


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (None, "tiny-lm@1 needs 3200.0 GB of memory for weights, gradients and optimiser"),
        (enough_memory, "tiny-lm@1 writes 3200.0 GB of weights, those of 4 generations, and"),
    ],
)
def test_a_model_that_is_too_large_is_a_users_mistake_before_anything_is_loaded(
    before: Callable[[], None] | None, told: str, folder: Path, tmp_path: Path
) -> None:
    task = with_changes(folder, tmp_path / "task", **{"workload.model.parameters": LARGE})
    finished = collapsebench("run", task, "--method", "ce", "--device", "cpu", cwd=tmp_path, before=before)
    assert finished.code == 2
    assert finished.err.startswith(f"error: {told}")
    assert len(finished.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()

"""Run directories: a generation is there whole or not at all, damage is noticed, nobody else's run is touched."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest
from command import PATIENCE, start
from damage import flip_bit
from safetensors import SafetensorError
from tiny_task import results

from collapsebench.api import run
from collapsebench.errors import RunError, UserError
from collapsebench.files import write_atomically, write_json
from collapsebench.running import loop
from collapsebench.running.artifacts import MARKER, RunDirectory

IDENTITY = {"task": {"id": "t@1"}, "method": {"name": "ce"}, "seed": 0}
ORIGIN = {"task_file": "task.yaml", "loss": "ce", "description": ""}
CIRCUMSTANCES = {"packages": {"torch": "1"}}
FILES = ("model.safetensors", "samples.safetensors", "samples.json", "training.json", "metrics.json", MARKER)


@pytest.fixture
def store(tmp_path: Path) -> RunDirectory:
    return RunDirectory.of(tmp_path, "t@1", "ce", 0)


def write_generation(store: RunDirectory, g: int, value: float = 1.0, diverged: bool = False) -> None:
    with store.writing(g) as folder:
        if diverged:
            write_json(folder / "diverged.json", {"generation": g})
        else:
            write_json(folder / "metrics.json", {"value": value})
            (folder / "samples.safetensors").write_bytes(bytes(range(64)))
        write_json(folder / "timing.json", {"train": 1.0})


def opened(store: RunDirectory, **changes: object):
    return store.opened(IDENTITY | changes, ORIGIN, CIRCUMSTANCES)


def test_directory_names_task_method_and_seed(tmp_path: Path) -> None:
    assert RunDirectory.of(tmp_path, "t@1", "ce", 3).path == tmp_path / "t@1" / "ce" / "seed-3"


def test_generation_is_missing_until_it_is_complete(store: RunDirectory) -> None:
    with store.writing(0) as folder:
        write_json(folder / "metrics.json", {})
        assert store.state(0) == "missing"
        assert not store.generation(0).exists()
    assert store.state(0) == "ok"


def test_generation_that_fails_leaves_nothing_that_counts(store: RunDirectory) -> None:
    write_generation(store, 0)
    with pytest.raises(ValueError), store.writing(1) as folder:
        write_json(folder / "metrics.json", {"value": float("inf")})
    assert (store.state(0), store.state(1)) == ("ok", "missing")
    write_generation(store, 1)
    assert store.state(1) == "ok"
    assert not list(store.path.glob("*.partial")) + list(store.path.glob(".*.partial"))


def test_diverged_generation_is_remembered_as_such(store: RunDirectory) -> None:
    write_generation(store, 0, diverged=True)
    assert store.state(0) == "diverged"


@pytest.mark.parametrize("name", ["metrics.json", "samples.safetensors"])
def test_deleted_file_makes_the_generation_missing(store: RunDirectory, name: str) -> None:
    write_generation(store, 0)
    (store.generation(0) / name).unlink()
    assert store.state(0) == "missing"


@pytest.mark.parametrize("name", ["metrics.json", "samples.safetensors"])
def test_flipped_bit_anywhere_in_a_file_is_detected(store: RunDirectory, name: str) -> None:
    write_generation(store, 0)
    file = store.generation(0) / name
    for position in range(file.stat().st_size):
        flip_bit(file, position, position % 8)
        assert store.state(0) == "missing"
        flip_bit(file, position, position % 8)
    assert store.state(0) == "ok"


def test_flipped_bit_anywhere_in_the_marker_is_detected(store: RunDirectory) -> None:
    write_generation(store, 0)
    write_generation(store, 1)
    marker = store.generation(1) / MARKER
    for position in range(marker.stat().st_size):
        for bit in (position % 8, (position + 5) % 8):
            flip_bit(marker, position, bit)
            assert store.state(1) == "missing", marker.read_bytes()
            flip_bit(marker, position, bit)
    assert store.state(1) == "ok"


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit_in_a_real_generation_is_detected(tiny: Path, tmp_path: Path, name: str) -> None:
    store = RunDirectory(run(tiny, "ce", out=tmp_path, generations=0, device="cpu"))
    assert store.state(0) == "ok"
    file = store.generation(0) / name
    flip_bit(file, file.stat().st_size // 2, 3)
    assert store.state(0) == "missing"


def test_generation_is_only_valid_on_top_of_the_one_it_came_from(store: RunDirectory) -> None:
    for g in range(3):
        write_generation(store, g)
    write_generation(store, 0, value=2.0)
    assert [store.state(g) for g in range(2)] == ["ok", "missing"]
    write_generation(store, 1)
    assert [store.state(g) for g in range(3)] == ["ok", "ok", "missing"]  # 1 has another parent now, and 2 had that 1


def test_same_generation_written_again_keeps_its_children(store: RunDirectory) -> None:
    for g in range(2):
        write_generation(store, g)
    write_generation(store, 0)
    assert store.state(1) == "ok"


def test_times_are_no_part_of_the_checksums(store: RunDirectory) -> None:
    write_generation(store, 0)
    (store.generation(0) / "timing.json").write_text("{")
    assert store.state(0) == "ok"
    assert store.seconds(0) == {}


def hold(path: str, ready, release) -> None:
    with RunDirectory(Path(path)).opened(IDENTITY, ORIGIN, CIRCUMSTANCES):
        ready.set()
        release.wait(PATIENCE)


def test_second_process_on_a_run_is_refused(store: RunDirectory) -> None:
    context = multiprocessing.get_context("forkserver")
    ready, release = context.Event(), context.Event()
    process = start(hold, str(store.path), ready, release)
    assert ready.wait(PATIENCE)
    with pytest.raises(RunError, match=r"in use by another process"), opened(store):
        pass
    release.set()
    process.join(PATIENCE)
    with opened(store):
        pass


def test_lock_of_a_killed_process_is_free(store: RunDirectory) -> None:
    context = multiprocessing.get_context("forkserver")
    ready, release = context.Event(), context.Event()
    process = start(hold, str(store.path), ready, release)
    assert ready.wait(PATIENCE)
    process.kill()
    process.join(PATIENCE)
    with opened(store):
        pass


@pytest.mark.parametrize("key", ["task", "method", "seed"])
def test_directory_of_another_run_is_refused_with_what_differs(store: RunDirectory, key: str) -> None:
    with opened(store):
        pass
    before = (store.path / "run.json").read_bytes()
    with pytest.raises(UserError, match=rf"holds another run: {key} differ"), opened(store, **{key: "other"}):
        pass
    assert (store.path / "run.json").read_bytes() == before


def test_new_circumstances_of_a_resumed_run_are_added_once(store: RunDirectory) -> None:
    with opened(store):
        pass
    later = {"packages": {"torch": "2"}}
    with store.opened(IDENTITY, ORIGIN, later):
        pass
    assert json.loads((store.path / "run.json").read_text())["resumed"] == [], "a session that makes nothing is none"
    for g in (0, 1):
        with store.opened(IDENTITY, ORIGIN, later), store.writing(g) as folder:
            (folder / "metrics.json").write_text("{}")
    about = json.loads((store.path / "run.json").read_text())
    assert about["circumstances"] == CIRCUMSTANCES
    assert about["resumed"] == [later]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\x01"])
def test_damaged_description_is_written_again(store: RunDirectory, content: str) -> None:
    store.path.mkdir(parents=True)
    (store.path / "run.json").write_text(content)
    with opened(store):
        assert json.loads((store.path / "run.json").read_text())["seed"] == 0


def test_file_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert file.read_text() == "old"


def test_json_is_written_the_same_way_every_time_and_without_nan(tmp_path: Path) -> None:
    for name, content in (("a", {"y": 0.1, "x": "é"}), ("b", {"x": "é", "y": 0.1})):
        write_json(tmp_path / name, content)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError):
        write_json(tmp_path / "c", {"x": float("nan")})


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_for_tensors(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("broken", ["os.fsync", "pathlib.Path.write_text", "os.rename", "save_file"])
def test_full_disk_is_a_clear_error_and_loses_only_the_generation_in_progress(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = run(tiny, "ce", out=tmp_path, generations=1, device="cpu")
    finished = results(path)
    with monkeypatch.context() as patch:
        if broken == "save_file":
            patch.setattr(loop, "save_file", no_space_for_tensors)
        else:
            patch.setattr(broken, no_space)
        with pytest.raises(RunError, match=r"no space left on the disk"):
            run(tiny, "ce", out=tmp_path, generations=2, device="cpu")
    assert results(path) == finished
    assert run(tiny, "ce", out=tmp_path, generations=2, device="cpu") == path
    assert RunDirectory(path).state(2) == "ok"


def test_other_failures_of_the_disk_are_not_called_full(store: RunDirectory) -> None:
    with pytest.raises(OSError, match=r"Input/output"), store.writing(0):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_unwritable_directory_is_a_users_mistake(store: RunDirectory) -> None:
    with pytest.raises(UserError, match=r"cannot be written"), store.writing(0):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_only_json_and_safetensors_are_on_disk(tiny: Path, tmp_path: Path) -> None:
    run(tiny, "ce", out=tmp_path, generations=1, device="cpu")
    kinds = {file.suffix for file in tmp_path.rglob("*") if file.is_file() and file.name != ".lock"}
    assert kinds == {".json", ".safetensors"}
    cache = Path(os.environ["COLLAPSEBENCH_CACHE"]) / "prepared"
    assert {f.name for f in cache.glob("*/*")} == {"tensors.safetensors", "tokenizer.json", "sha256"}


def test_every_file_of_a_generation_says_what_it_is(tiny: Path, tmp_path: Path) -> None:
    path = run(tiny, "ce", out=tmp_path, generations=0, device="cpu")
    marker = json.loads((path / "gen-0" / MARKER).read_text())
    assert marker["schema_version"] == 1
    assert set(marker["files"]) == {*FILES} - {MARKER}
    about = json.loads((path / "run.json").read_text())
    assert about["task"]["id"] == "tiny@1"
    assert about["method"]["parameters"]["reduction"] == "mean"
    assert about["circumstances"]["packages"]["torch"]
    assert (about["seed"], about["device"], about["schema_version"]) == (0, "cpu", 1)


def test_generations_without_a_record_of_what_they_are_are_not_adopted(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    with directory.opened({"task": "a"}, {}, {}), directory.writing(0) as folder:
        (folder / "metrics.json").write_text("{}")
    (directory.path / "run.json").unlink()
    with (
        pytest.raises(UserError, match=r"has generations, but no run\.json"),
        RunDirectory(tmp_path / "run").opened({"task": "b"}, {}, {}),
    ):
        pass

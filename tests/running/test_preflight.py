"""What a task needs from outside: found where it is, else all that is missing is named within seconds."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import huggingface_hub
import pytest
from command import python
from no_network import closed_network, raising
from tiny_task import write_tiny_task

from collapsebench.data import web_files
from collapsebench.data.web_files import silence
from collapsebench.errors import DataError, UserError
from collapsebench.files import sha256_of
from collapsebench.metrics.harness_settings import HarnessTask, read_sets
from collapsebench.metrics.inception_weights import FILE as INCEPTION
from collapsebench.resources import Resources
from collapsebench.running.preflight import check_supplies, look_for_supplies
from collapsebench.task import Task, load_task, registered_tasks
from collapsebench.workloads import load_workload
from collapsebench.workloads.pretrained import supplies
from collapsebench.workloads.pretrained.settings import KnowledgeTest
from collapsebench.workloads.pretrained.supplies import knowledge_file

STANDARD = [name for name in registered_tasks() if load_task(name).spec.tier == "standard"]
MODEL, TEXT, PAIRS, CHOICES = "some/model", "some/text", "some/pairs", "some/choices"
REVISION = "0123456789" * 4
URL = "https://host.example/knowledge.json"


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Empty caches, and a network that fails the test."""
    monkeypatch.setenv("COLLAPSEBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLLAPSEBENCH_INCEPTION", raising=False)
    yield from closed_network(monkeypatch, tmp_path / "hub")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "urlopen", raising(URLError("no route to host")))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts answer; what the hub has is up to the test."""
    monkeypatch.setattr(web_files, "urlopen", lambda *_, **__: io.BytesIO())


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task that needs something of every kind from the network, beside the folders that supply all of it."""
    folder = tmp_path_factory.mktemp("remote")
    files = {split: f"raw/{split}.parquet" for split in ("train", "validation", "test")}
    model = {"hub": MODEL, "revision": REVISION, "parameters": 18016}
    file = write_tiny_task(folder, "pretrained-lm")
    knowledge = {"file": "knowledge.json", "url": URL, "sha256": sha256_of(folder / "data/knowledge.json")}
    choices = [{"query": "A mill", "choices": ["burnt.", "stands."], "gold": 0}]
    (folder / "data/choices.json").write_text(json.dumps(choices), "utf-8")
    spec = load_task(file).spec.model_dump(mode="json", exclude_unset=True)
    spec["data"] = {"source": "hub-splits", "dataset": TEXT, "revision": REVISION, "files": files}
    spec["workload"]["model"] = model | {"architecture": spec["workload"]["model"]["architecture"]}
    spec["workload"]["evaluation"] |= {
        "knowledge": knowledge,
        "harness": [
            benchmark("pairs", PAIRS, {"file": "pairs.jsonl", "format": "blimp"}),
            benchmark("choices", CHOICES, {"file": "choices.json", "format": "multiple-choice"}),
        ],
    }
    file.write_text(json.dumps(spec), "utf-8")  # JSON is YAML
    return file


def benchmark(name: str, dataset: str, local: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "task": name, "metric": "acc", "dataset": dataset, "revision": REVISION, "local": local,
            "chance": 0.5}  # fmt: skip


def given(remote: Path, data: Path | None = None, model: Path | None = None) -> Task:
    return load_task(remote, resources=Resources(data=data, model=model))


def supplied(task: Task) -> list[str]:
    """Names of what a task needs from outside, in its order."""
    return [supply.name for supply in task.spec.kind.supplies_of(task)]


def problems(task: Task) -> list[str]:
    """What `check_supplies` says is missing, one by one."""
    with pytest.raises(DataError) as caught:
        check_supplies(task)
    lines = str(caught.value).split("\n")
    if len(lines) == 1:
        return lines
    assert lines[0] == ""
    assert all(line.startswith("  ") for line in lines[1:])
    return [line.strip() for line in lines[1:]]


def copied(folder: Path, target: Path, *without: str) -> Path:
    target.mkdir(parents=True)
    for file in folder.iterdir():
        if file.is_file() and file.name not in without:
            (target / file.name).write_bytes(file.read_bytes())
    return target


# Without a network


@pytest.fixture(params=["refused", "swallowed"])
def proxy(request: pytest.FixtureRequest) -> Iterator[str]:
    """The only way out: nobody listens there, or somebody who never answers."""
    if request.param == "refused":
        yield "http://127.0.0.1:9"
        return
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def wanted(task: Task) -> list[list[str]]:
    """For everything that a standard task needs: what it is called, and what supplies it."""
    settings, data = task.spec.workload, task.spec.data
    if settings.kind == "pretrained-lm":
        knowledge, harness = settings.evaluation.knowledge, settings.evaluation.harness
        own = [[settings.model.hub, "--model PATH"], [data.dataset, "--data PATH"]]
        own += [] if knowledge is None else [[knowledge.file, "--data PATH"]]
        return own + [[b.dataset, b.local.file, "--data"] for b in harness]
    features = settings.evaluation.extractors
    inception = [[INCEPTION, "--inception PATH", "COLLAPSEBENCH_INCEPTION"]] if "inception" in features else []
    return [[data.dataset.upper(), "--data PATH"], *inception]


WITHOUT_TORCH = """
import sys
from collapsebench.cli.main import main
try:
    main()
finally:
    print("imported:", sorted({"torch", "transformers", "pandas", "scipy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("name", STANDARD)
def test_without_a_network_a_standard_task_says_all_that_it_lacks_before_torch_is_imported(
    name: str, proxy: str, tmp_path: Path
) -> None:
    ways = [f"{kind}_proxy" for kind in ("http", "https", "all")]
    environment = dict.fromkeys([*ways, *map(str.upper, ways)], proxy)
    places = {"HOME": "home", "HF_HOME": "hf", "COLLAPSEBENCH_CACHE": "own", "XDG_CACHE_HOME": "xdg"}
    environment |= {variable: str(tmp_path / folder) for variable, folder in places.items()}
    environment |= dict.fromkeys(("NO_PROXY", "no_proxy", "HF_HUB_OFFLINE", "COLLAPSEBENCH_INCEPTION"), "")
    (tmp_path / "cwd").mkdir()
    finished = python("-c", WITHOUT_TORCH, "run", name, "--method", "ce", cwd=tmp_path / "cwd", **environment)
    assert finished.returncode == 2
    assert finished.stdout == "imported: []\n", "what would take seconds comes after the look"
    error, told = finished.stderr[: len("error: ")], finished.stderr[len("error: ") :].strip().splitlines()
    assert error == "error: "
    expected = wanted(load_task(name))
    assert len(told) == len(expected)
    for line, parts in zip(told, expected, strict=True):
        assert all(part in line for part in parts), line
    assert [path.name for path in tmp_path.rglob("*")] == ["cwd"], "nothing is written"


def test_a_host_that_never_answers_is_given_up_and_the_waiting_done_at_once(
    remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    waiting: list[str] = []

    def wait(request: Any, **_: Any) -> Any:
        waiting.append(request.host)
        over.wait(60)
        raise URLError("too late")

    monkeypatch.setattr(web_files, "urlopen", wait)
    monkeypatch.setattr(web_files, "_PATIENCE", 1.0)
    try:
        assert silence("https://elsewhere.example/file") == "no answer within 1 seconds"
        assert len(problems(given(remote))) == 5
        hosts = {"elsewhere.example", "host.example", "huggingface.co"}
        assert set(waiting) == hosts, "nobody has answered, and all were asked"
        before = len(waiting)
        assert len(problems(given(remote))) == 5
        assert len(waiting) == before, "known by now"
    finally:
        over.set()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (HTTPError(URL, 405, "Method Not Allowed", None, None), None),  # type: ignore[arg-type]
        (URLError("no route to host"), "no route to host"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionResetError("reset"), "reset"),
    ],
)
def test_any_answer_is_an_answer(outcome: Exception, expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_files, "urlopen", raising(outcome))
    assert silence(URL) == expected


# All of it


@pytest.mark.usefixtures("offline")
def test_all_that_is_missing_is_named_in_the_tasks_order(remote: Path) -> None:
    told = problems(given(remote))
    places = (f"model {MODEL}", f"dataset {TEXT}", "the KR-test needs", f"dataset {PAIRS}", f"dataset {CHOICES}")
    assert [line.startswith(place) for line, place in zip(told, places, strict=True)] == [True] * 5
    assert all("no route to host" in line for line in told)
    assert supplied(given(remote)) == [
        "accelerate", "weights", "text", "KR-test", "lm-eval", "pairs", "choices"
    ]  # fmt: skip


@pytest.mark.usefixtures("offline")
def test_one_thing_that_is_missing_is_one_line(remote: Path, tmp_path: Path) -> None:
    data = copied(remote.parent / "data", tmp_path / "data", "pairs.jsonl")
    (line,) = problems(given(remote, data, remote.parent / "model"))
    assert line.startswith(f"dataset {PAIRS}")
    assert "put pairs.jsonl into the folder of --data" in line


def test_folders_that_hold_everything_need_no_network(remote: Path) -> None:
    check_supplies(given(remote, remote.parent / "data", remote.parent / "model"))


def test_tasks_that_carry_their_data_need_nothing() -> None:
    for name in registered_tasks():
        if name not in STANDARD:
            assert not supplied(load_task(name)), name


def test_fid_that_is_not_measured_needs_no_inception() -> None:
    for inception, names in ((None, ["images", "Inception"]), ("none", ["images"])):
        task = load_task("diffusion-cifar10", resources=Resources(inception=inception))
        assert supplied(task) == names


def test_fid_is_measured_as_profile_where_it_is_asked_for() -> None:
    assert supplied(load_task("vae-mnist")) == ["images"]
    asked = load_task("vae-mnist", resources=Resources(features=("inception",)))
    assert supplied(asked) == ["images", "Inception"]
    assert "fid" in asked.spec.metrics
    assert "fid" not in asked.spec.scored
    assert asked.resources.differences == ["+inception"], "such runs are never mixed with the others"
    with pytest.raises(UserError, match="it does not measure FID; --features inception asks for it"):
        load_workload(load_task("vae-mnist", resources=Resources(inception="some/file.pt")), "cpu")


# The items of the KR-test

CONTENT = b'[{"context": "A mill.", "sentence_true": "It burnt.", "sentence_false": "It stands.", "location": 1}]'
TEST = KnowledgeTest(file="items.json", url=URL, sha256=hashlib.sha256(CONTENT).hexdigest())


def serving(monkeypatch: pytest.MonkeyPatch, outcome: bytes | Exception) -> list[str]:
    """Let every host answer, and downloads have this outcome; their addresses are kept."""
    asked: list[str] = []

    def answer(address: Any, timeout: float) -> io.BytesIO:
        if not isinstance(address, str):
            return io.BytesIO()
        asked.append(address)
        if isinstance(outcome, Exception):
            raise outcome
        return io.BytesIO(outcome)

    monkeypatch.setattr(web_files, "urlopen", answer)
    return asked


def test_items_in_the_folder_are_used_if_they_are_those_that_the_task_names(tmp_path: Path) -> None:
    file = tmp_path / "items.json"
    file.write_bytes(CONTENT)
    assert knowledge_file(TEST, tmp_path) == file
    file.write_bytes(CONTENT + b" ")
    with pytest.raises(DataError, match=r"items\.json has sha256 \w{16}…, the task names \w{16}….*--data PATH"):
        knowledge_file(TEST, tmp_path)
    assert knowledge_file(KnowledgeTest(file="items.json"), tmp_path) == file, "a task may leave it open"


def test_items_are_downloaded_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serving(monkeypatch, CONTENT)
    files = [knowledge_file(TEST, tmp_path) for _ in range(2)]
    assert asked == [URL]
    assert files[0] == files[1]
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == files[:1]
    assert files[0].read_bytes() == CONTENT


def test_items_of_one_name_that_two_tasks_download_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = TEST.model_copy(update={"sha256": hashlib.sha256(CONTENT * 2).hexdigest()})
    for test, content in ((TEST, CONTENT), (other, CONTENT * 2)):
        serving(monkeypatch, content)
        assert knowledge_file(test, tmp_path).read_bytes() == content


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (CONTENT[:-1], "has sha256"),
        (HTTPError(URL, 404, "Not Found", None, None), "could not be downloaded from .*404"),  # type: ignore[arg-type]
        (ConnectionResetError("reset"), "could not be downloaded from .*reset"),
    ],
)
def test_a_download_that_is_not_whole_leaves_nothing(
    outcome: Any, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(monkeypatch, outcome)
    with pytest.raises(DataError, match=f"{told}.*Put items.json into a folder and give that: --data PATH"):
        knowledge_file(TEST, tmp_path)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.usefixtures("offline")
def test_items_that_are_nowhere_are_named_with_the_option_that_supplies_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{URL} cannot be reached \(no route to host\).*--data PATH"):
        knowledge_file(TEST, tmp_path)
    with pytest.raises(DataError, match=r"needs items\.json, which is not in .*--data PATH"):
        knowledge_file(KnowledgeTest(file="items.json"), tmp_path)


# The items of benchmarks


def places(task: Task) -> dict[str, str]:
    """Where everything was found, or why it was not."""
    return {name: found.text for name, found in look_for_supplies(task)}


@pytest.mark.usefixtures("online")
def test_a_file_of_ones_own_replaces_the_hubs_items_and_only_where_it_is(
    remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: "there")
    data = copied(remote.parent / "data", tmp_path / "data", "choices.json")
    found = places(given(remote, data, remote.parent / "model"))
    assert found["pairs"] == str(data / "pairs.jsonl")
    assert found["choices"] == f"dataset {CHOICES}, revision {REVISION[:12]}"
    assert found["KR-test"] == str(data / "knowledge.json")


def test_items_are_looked_for_in_the_data_folder_then_beside_the_task(remote: Path, tmp_path: Path) -> None:
    task = copied(remote.parent / "data", tmp_path / "task")
    (task / remote.name).write_bytes(remote.read_bytes())
    data = copied(remote.parent / "data", tmp_path / "data", "choices.json", "knowledge.json")
    found = places(given(task / remote.name, data, remote.parent / "model"))
    assert found["pairs"] == str(data / "pairs.jsonl")
    assert (found["choices"], found["KR-test"]) == (str(task / "choices.json"), str(task / "knowledge.json"))


def test_items_in_an_archive_are_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pairs.zip", "w") as archive:
        for name in ("a", "b"):
            archive.writestr(f"{name}.jsonl", '{"sentence_good": "A.", "sentence_bad": "B."}')
    for name, sets in (("pairs.zip", ["a", "b"]), ("pairs.zip/b.jsonl", ["b"])):
        task = HarnessTask(**benchmark("pairs", PAIRS, {"file": name, "format": "blimp"}))
        found = task.found_in(tmp_path)
        assert (found.task, found.dataset, found.file, found.format) == (
            None, None, str(tmp_path / name), "blimp"
        )  # fmt: skip
        assert sorted(read_sets(found, tmp_path)) == sets
        assert (found.name, found.chance, found.lm_eval_metric) == (task.name, task.chance, task.lm_eval_metric)
    absent = HarnessTask(**benchmark("pairs", PAIRS, {"file": "pairs.zip/c.jsonl", "format": "blimp"}))
    assert absent.found_in(tmp_path) is absent


@pytest.mark.parametrize("content", [b"cut off", b""])
@pytest.mark.parametrize("name", ["pairs.zip", "pairs.jsonl"])
def test_a_file_of_items_that_cannot_be_read_is_named(name: str, content: bytes, tmp_path: Path, remote: Path) -> None:
    data = copied(remote.parent / "data", tmp_path / "data")
    (data / name).write_bytes(content)
    changed = remote.read_text("utf-8").replace("pairs.jsonl", name)
    (tmp_path / "task.yaml").write_text(changed, "utf-8")
    (line,) = problems(given(tmp_path / "task.yaml", data, remote.parent / "model"))
    assert line.startswith("'pairs': ")
    assert str(data / name) in line


@pytest.mark.usefixtures("offline")
def test_a_dataset_that_is_not_named_is_not_looked_for(tmp_path: Path) -> None:
    harness = [{"name": "pairs", "task": "pairs", "metric": "acc"}]
    changes = {"workload.evaluation.harness": harness, "scored": {"oldest_perplexity": {}}}
    task = load_task(write_tiny_task(tmp_path, "pretrained-lm", **changes))
    assert places(task)["pairs"] == "lm-eval's pairs; its dataset is not named and was not looked for"


@pytest.mark.parametrize("package", ["accelerate", "lm_eval"])
def test_a_package_that_is_not_installed_is_one_problem(
    remote: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(supplies, "find_spec", lambda name: None if name == package else name)
    (line,) = problems(given(remote, remote.parent / "data", remote.parent / "model"))
    assert line == f"the task needs the package {package}: pip install 'collapsebench[pretrained]'."

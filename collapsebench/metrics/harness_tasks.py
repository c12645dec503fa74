"""Turns a benchmark of a task file into tasks of lm-eval: over a local file, or by lm-eval's name at a revision."""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collapsebench.data.hub_files import hub_silence
from collapsebench.errors import DataError, TaskError
from collapsebench.metrics.harness_settings import HarnessTask, Rows, read_sets


def from_file(task: HarnessTask, base: Path) -> tuple[dict[str, Any], str]:
    """A task or group over the rows of a file, and its name."""
    from lm_eval.api.group import Group
    from lm_eval.tasks import TaskManager

    sets = read_sets(task, base)
    _check_metrics(task)
    manager = TaskManager(include_defaults=False)
    if task.format != "blimp":
        (rows,) = sets.values()
        return _built(manager, task, _definition(task, task.name, rows)), task.name
    aggregate = [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}]
    group = Group.from_config({"group": task.name, "aggregate_metric_list": aggregate})
    for name, rows in sets.items():
        leaf = f"{task.name}_{name}"
        group.add(_built(manager, task, _definition(task, leaf, rows))["tasks"][leaf])
    return manager.load([group]), task.name


def _definition(task: HarnessTask, name: str, rows: Rows) -> dict[str, Any]:
    """An lm-eval config over rows in memory."""
    import datasets

    def load(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(rows)}

    # Naming the split of the examples makes lm-eval exclude the question itself.
    splits = {"test_split": "test", "fewshot_split": "test"}
    return {**copy.deepcopy(task.definition), **splits, "task": name, "custom_dataset": load}


def _built(manager: Any, task: HarnessTask, definition: dict[str, Any]) -> dict[str, Any]:
    try:
        return manager.load([definition])
    except Exception as error:  # a user's config can make lm-eval raise anything
        raise TaskError(f"lm-eval cannot use the definition of {task.name!r}: {in_short(error)}.") from error


def _check_metrics(task: HarnessTask) -> None:
    """Reject unknown metrics: lm-eval would look for them on the hub, download their code and run it."""
    from lm_eval.api import metrics  # noqa: F401  the import fills the registries
    from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY

    for entry in task.definition.get("metric_list") or []:
        for key, known in (("metric", sorted(METRIC_REGISTRY)), ("aggregation", sorted(AGGREGATION_REGISTRY))):
            if key in entry and entry[key] not in known:
                raise TaskError(f"{task.name!r}: lm-eval has no {key} {entry[key]!r}; it has {', '.join(known)}.")
        if "hf_evaluate" in entry:
            raise TaskError(f"{task.name!r}: hf_evaluate is not allowed in a metric_list: it downloads code.")


def from_lm_eval(task: HarnessTask) -> tuple[dict[str, Any], str]:
    """A task or group of lm-eval, and its name."""
    from lm_eval.api.group import Group

    assert task.task is not None
    manager = lm_eval_tasks()
    entry = manager.task_index.get(task.task)
    if entry is None:
        close = difflib.get_close_matches(task.task, manager.all_tasks, 3)
        raise TaskError(f"{task.name!r}: lm-eval has no task {task.task!r}; the closest names are {close}.")
    if entry.kind.name == "TAG":
        raise TaskError(f"{task.name!r}: {task.task!r} is a tag of lm-eval, without a value of its own; name a task.")
    by_member = task.subset is not None or (task.revision is not None and entry.kind.name == "GROUP")
    names = _members(entry.cfg, task) if by_member else [task.task]
    if task.revision is not None and (nested := [n for n in names if manager.task_index[n].kind.name != "TASK"]):
        raise TaskError(f"{task.name!r}: revision is for tasks and groups of tasks; {task.task} has {nested}.")
    for name in names:
        _require_dataset(manager, task, name)
    try:
        with _hub_or_its_cache():
            loaded = manager.load(names) if task.revision is None else _pinned(manager, names, task.revision)
    except Exception as error:  # the hub's client raises many types; all mean that the data is not available
        raise DataError(
            f"the data of lm-eval's {task.task} (dataset {_dataset(manager, names[0])}) cannot be loaded: "
            f"{in_short(error)}. Check the network and HF_HUB_OFFLINE, or give {task.name!r} a file with a format."
        ) from error
    if by_member:
        group = Group.from_config({"group": task.task, "aggregate_metric_list": entry.cfg["aggregate_metric_list"]})
        for name in names:
            group.add(loaded["tasks"][name])
        loaded = manager.load([group])
    return loaded, task.task


@functools.cache
def lm_eval_tasks() -> Any:
    """The index of all tasks of lm-eval, built once per process."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _members(cfg: dict[str, Any], task: HarnessTask) -> list[str]:
    """The members of a group, or those named by a subset, with or without the group's name as prefix."""
    members = cfg["task"] if isinstance(cfg.get("task"), list) else []
    known = [name for name in members if isinstance(name, str)]
    wanted = members if task.subset is None else task.subset
    names = [next((n for n in (s, f"{task.task}_{s}") if n in known), "") for s in wanted]
    if "" in names or "aggregate_metric_list" not in cfg:
        raise TaskError(f"{task.name!r}: subset must name members of a group of lm-eval; {task.task} has {known}.")
    return names


def _require_dataset(manager: Any, task: HarnessTask, name: str) -> None:
    found = _dataset(manager, name)
    if task.dataset is not None and found != task.dataset:
        raise TaskError(f"{task.name!r}: the items of lm-eval's {name} are those of {found}, not of {task.dataset}.")


def _pinned(manager: Any, names: list[str], revision: str) -> dict[str, Any]:
    """Load tasks at a given revision of their dataset."""
    changed = []
    for name in names:
        kwargs = _config(manager.task_index[name]).get("dataset_kwargs") or {}
        changed.append({"task": name, "dataset_kwargs": kwargs | {"revision": revision}})
    # A task's name with some keys overrides that task only as a member of a group; alone it would define a new one.
    found = manager.load([{"group": "pinned", "task": changed}])["tasks"]
    return manager.load([found[name] for name in names])


def _config(entry: Any) -> dict[str, Any]:
    """The YAML of a task or group with its includes, which the index leaves out."""
    from lm_eval.tasks._yaml_loader import load_yaml

    return load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else entry.cfg or {}


def _dataset(manager: Any, name: str) -> str:
    """The dataset named in a task's YAML."""
    entry = manager.task_index.get(name)
    cfg = _config(entry) if entry else {}
    members = cfg.get("task")
    if "dataset_path" not in cfg and isinstance(members, list) and members and isinstance(members[0], str):
        return _dataset(manager, members[0])
    return str(cfg.get("dataset_path", "unknown"))


@contextmanager
def _hub_or_its_cache() -> Iterator[None]:
    """Use only the cache if the hub does not answer; its client would retry for 24 seconds per dataset."""
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (datasets.config, constants)
    before = [place.HF_HUB_OFFLINE for place in places]
    if hub_silence():
        for place in places:
            place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, offline in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = offline


def in_short(error: Exception) -> str:
    """An error raised by another library, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")

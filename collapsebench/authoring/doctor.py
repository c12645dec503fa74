"""Reports what is installed, what differs from the tested environment, and whether a task can run here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collapsebench.errors import UserError
from collapsebench.paths import bundled, cache_dir
from collapsebench.resources import NOTHING_GIVEN, Resources
from collapsebench.running.environment import PACKAGES, cpu_count, package_versions, resolve_device
from collapsebench.running.preflight import look_for_supplies
from collapsebench.task import Task, load_task
from collapsebench.workloads.kind import imported


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        text: the finding, and what to do about it.
        fine: no action is needed. usable: it works, but results may differ from published ones.
    """

    text: str
    fine: bool = True
    usable: bool = True


def diagnose(task: str | None = None, resources: Resources = NOTHING_GIVEN) -> Iterator[Finding]:
    """Check the installation and, if a task is named, its data."""
    yield from _versions()
    import torch

    device = resolve_device("auto")
    name = f" ({torch.cuda.get_device_name(0)})" if device == "cuda" else ""
    yield Finding(f"device {device}{name}, {cpu_count()} CPUs, torch {torch.__version__}")
    yield Finding(f"prepared data is kept in {cache_dir()} (COLLAPSEBENCH_CACHE changes it)")
    if task is not None:
        yield from _task(task, resources, device)


def tested_versions() -> dict[str, str]:
    """The versions of ``constraints.txt``."""
    file = bundled("constraints.txt")
    pinned = re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;#]+)", file.read_text("utf-8"), flags=re.MULTILINE)
    return dict(pinned)


def _versions() -> Iterator[Finding]:
    tested = tested_versions()
    installed = package_versions(tuple(name for name in PACKAGES if name != "collapsebench"))
    for name, version in installed.items():
        wanted = tested.get(name)
        if version is None:
            extra = "pretrained" if name in ("accelerate", "lm-eval") else "micro"
            yield Finding(
                f"{name} is not installed; the {extra} tasks need pip install 'collapsebench[{extra}]'", False
            )
        elif wanted is not None and version.split("+")[0] != wanted:
            yield Finding(f"{name} {version}; tested with {wanted}: results may differ in the last digits", False)
        else:
            yield Finding(f"{name} {version}")


def _task(name: str, resources: Resources, device: str) -> Iterator[Finding]:
    try:
        task = load_task(name, resources=resources)
    except UserError as error:
        yield Finding(str(error), fine=False, usable=False)
        return
    yield Finding(f"task {task.id}, digest {task.sha256[:16]}")
    found = look_for_supplies(task)
    yield from (Finding(f"{name}: {text}", fine=there, usable=there) for name, (text, there) in found)
    if all(there for _, (_, there) in found):
        yield from _prepared(task, device)
    frozen = task.split_listing is not None
    if not frozen and task.spec.data.source not in ("hub-splits", "local-splits"):  # these have their authors' splits
        yield Finding("no splits.json: the splits are not frozen; `collapsebench calibrate --write` does it", False)
    if not task.calibrated:
        yield Finding(f"no references: run `collapsebench calibrate {Path(name)} --write` before comparing", False)


def _prepared(task: Task, device: str) -> Iterator[Finding]:
    """Report the size of the prepared data, without loading large weights."""
    from collapsebench.workloads import load_workload

    kind = task.spec.kind
    try:
        if kind.check_room is not None:
            imported(kind.check_room)(task, device, Path.cwd(), task.spec.horizon + 1)
            yield Finding(f"memory and disk for one chain of weights on {device}, activations not counted")
        if kind.prepare is not None:
            items, digest = imported(kind.prepare)(task)
        else:
            workload = load_workload(task, "cpu")
            items, digest = len(workload.real), workload.data_sha256
    except UserError as error:
        yield Finding(str(error), fine=False, usable=False)
        return
    yield Finding(f"data prepared: {items:,} training items, digest {digest[:16]}")

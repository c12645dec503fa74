"""What runs on a GPU: every ranked micro task, and of each other kind a retired or a tiny one.

With the models, rates and samplers of the task files, on little data that is made here, and with few updates.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from tiny_task import KINDS, paragraphs, write_bars, write_tiny_task

from collapsebench.task import load_task, registered_tasks

HORIZON = 2
# Beside what every kind needs; without them its cases are skipped.
_PACKAGES = {
    "vae": ("cleanfid", "torchvision"),
    "diffusion": ("cleanfid", "torchvision", "diffusers"),
    "pretrained-lm": ("accelerate", "jinja2"),
}
_UPDATES = {"workload.training.first.updates": 4, "workload.training.later.updates": 3}
_IMAGES: dict[str, Any] = {
    "data": {"source": "local-images", "path": "images"},
    "splits": {"test_images": 40, "selection_images": 20},
    "policy.size": 40,
    "workload.evaluation.samples": 40,
    **_UPDATES,
}
_SMALL: dict[str, dict[str, Any]] = {
    "text": {
        "data": {"source": "local", "path": "text.txt", "documents": "paragraph"},
        "splits": {"test": 0.1, "selection": 0.05},
        "policy.size": 24,
        "workload.evaluation.test_windows": 24,
        "workload.evaluation.selection_windows": 8,
        "workload.training.first.epochs": 1,
    },
    "vae": _IMAGES,
    "diffusion": _IMAGES,
    "gmm": {"data.points": 800, "policy.size": 800, "workload.training.batch_size": 800, **_UPDATES},
    "markov": {"policy.size": 128, "data.sequences": 1024, "workload.training.first.epochs": 1},
}
_TINY: dict[str, dict[str, Any]] = {
    "pretrained-lm": {
        "policy.size": 48,
        "workload.sampler.method": "draw",
        "workload.evaluation.harness": [],
        "scored": {"oldest_perplexity": {"reference": 200.0, "floor": 300.0}},
    }
}


# Of tiny tasks: what tasks of the standard tier do otherwise.
_VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "beams": {"workload.sampler.method": "beam", "workload.training.checkpointing": True},
}


@dataclass(frozen=True)
class Case:
    """A task to be made small. `registered`: its name; None: the tiny task of its kind, in one of `_VARIANTS`."""

    kind: str
    registered: str | None
    variant: str = ""

    def __str__(self) -> str:
        return self.registered or "-".join(filter(None, ("tiny", self.kind, self.variant)))

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed here."""
        return [name for name in _PACKAGES.get(self.kind, ()) if find_spec(name) is None]

    def write(self, folder: Path, **changes: Any) -> Path:
        """Write the task file, and its data; return the path of the file."""
        if self.registered is None:
            more = _TINY.get(self.kind, {}) | _VARIANTS[self.variant] | changes
            return write_tiny_task(folder, self.kind, horizon=HORIZON, **more)
        return _write_small(self.registered, self.kind, folder, changes)


def _write_small(name: str, kind: str, folder: Path, changes: dict[str, Any]) -> Path:
    task = load_task(name)
    spec = task.spec.model_dump(mode="json", exclude_unset=True)
    for gone in ("retired", "calibrated_on"):
        spec.pop(gone, None)
    for path, value in ({"horizon": HORIZON} | _SMALL[kind] | changes).items():
        _set(spec, path.split("."), value)
    folder.mkdir(parents=True, exist_ok=True)
    size = spec["policy"]["size"]
    if "base" in spec:
        shutil.copy(task.base_weights(), folder / "base.safetensors")
        spec["base"]["file"] = "base.safetensors"
    classifier = spec["workload"].get("evaluation", {}).get("classifier")
    if classifier:
        file = task.path.parent / classifier["file"]
        classifier["file"] = shutil.copy(file, folder / file.name).name
    if kind == "text":
        (folder / "text.txt").write_text("\n\n".join(paragraphs(max(150, 2 * size))), "utf-8")
    elif kind in ("vae", "diffusion"):
        write_bars(folder / "images", 80 + 2 * size)
    file = folder / "task.yaml"
    file.write_text(yaml.safe_dump(spec, sort_keys=False), "utf-8")
    return file


def _set(section: dict[str, Any], path: list[str], value: Any) -> None:
    """Change only existing settings: a stage in epochs gets no updates, and a task without `later` no such stage."""
    *parents, key = path
    for parent in parents:
        if parent not in section:
            return
        section = section[parent]
    if key in section or parents in ([], ["workload"]):
        section[key] = copy.deepcopy(value)


def _cases() -> list[Case]:
    micro = [task for task in map(load_task, registered_tasks()) if task.spec.tier == "micro" and task.calibrated]
    found = []
    for kind in KINDS:
        of_kind = [task for task in micro if task.spec.workload.kind == kind]
        alive = [task for task in of_kind if task.spec.retired is None] or of_kind[:1]
        found += [Case(kind, task.spec.name) for task in alive] or [Case(kind, None)]
    return [*found, Case("pretrained-lm", None, "beams")]


CASES = _cases()

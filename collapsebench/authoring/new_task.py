"""Creates a task from a user's own data: the settings of a registered task, with sizes that fit the data."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collapsebench.data.local import load_local_text
from collapsebench.errors import UserError
from collapsebench.files import write_atomically
from collapsebench.task import Task, load_task, registered_tasks
from collapsebench.task_files import as_yaml, read_task_file

_TEXT_PATTERN, _IMAGE_PATTERN = "text-bytes-micro", "vae-mnist-micro"
"""The registered tasks whose settings are used."""

_IMAGES = (".png", ".jpg", ".jpeg")
_SEEDS = list(range(10))  # as many as in a ranked task


def new_text_task(data: Path, folder: Path) -> Task:
    """Write a task for a text file or folder of ``*.txt``: a byte model that starts from text-bytes-micro's base model.

    Returns:
        The task, ready to run.

    Raises:
        UserError: the task already exists, or there is too little text.
    """
    pattern = load_task(registered_tasks()[_TEXT_PATTERN])
    content = _like(pattern, data, folder, "A small Llama on bytes of my own text, retrained on its own text")
    by_paragraph = load_local_text(data, "paragraph")
    documents, by = by_paragraph, "paragraph"
    if data.is_dir() and len(load_local_text(data, "file")) >= len(by_paragraph) // 2:
        documents, by = load_local_text(data, "file"), "file"
    size = sum(len(document.text.encode()) for document in documents)
    block, items = content["workload"]["block"], content["policy"]["size"]
    test, selection = 0.2, 0.1
    if size * (1 - test - selection) < 1.5 * items * block or len(documents) < 40:
        raise UserError(
            f"{data} has {size:,} bytes in {len(documents)} documents (blank lines separate them); give at least "
            f"{round(1.5 * items * block / (1 - test - selection)):,} bytes in 40 documents."
        )
    content["data"] = {"source": "local", "path": _path_from(folder, data), "documents": by}
    content["splits"] = {"test": test, "selection": selection}
    # Documents are not cut, so a split may be slightly smaller than its share.
    for name, share in (("test_windows", test), ("selection_windows", selection)):
        wanted = content["workload"]["evaluation"][name]
        content["workload"]["evaluation"][name] = max(1, min(wanted, int(0.7 * share * size / block)))
    content["base"]["file"] = "base.safetensors"
    return _written(content, folder, lambda: shutil.copyfile(pattern.base_weights(), folder / "base.safetensors"))


def new_image_task(data: Path, folder: Path) -> Task:
    """Write a task for a folder of images, one sub-folder per class: a VAE trained from random weights each generation.

    Returns:
        The task; its classifier must still be trained.

    Raises:
        UserError: the task already exists, or there are too few images.
    """
    pattern = load_task(registered_tasks()[_IMAGE_PATTERN])
    content = _like(pattern, data, folder, "A VAE on my own images, retrained on its own")
    classes = [place for place in sorted(data.iterdir()) if place.is_dir() and not place.name.startswith(".")]
    counts = {c.name: sum(file.suffix.lower() in _IMAGES for file in c.iterdir()) for c in classes}
    images = sum(counts.values())
    if len(counts) < 2 or min(counts.values()) < 20 or images < 400:
        told = ", ".join(f"{name}: {n}" for name, n in counts.items()) or "no sub-folder"
        raise UserError(
            f"{data} has {told}; give one sub-folder of PNG or JPEG files per class, two at least, with 20 images each "
            "and 400 together."
        )
    test, selection = min(1000, images // 4), min(500, images // 8)
    items = min(content["policy"]["size"], images - test - selection)
    del content["base"]
    content |= {
        "init": "scratch",
        "data": {"source": "local-images", "path": _path_from(folder, data)},
        "splits": {"test_images": test, "selection_images": selection, "train_images": items},
        "policy": {"name": "replace", "size": items},
        "scored": {"negative_elbo": {}, "fd_classifier": {}},
    }
    workload = content["workload"]
    workload |= {"pixels": "grey", "sampler": {"pixels": "means"}}
    workload["evaluation"] = {"samples": test, "extractors": ["classifier"], "classifier": None}
    return _written(content, folder, lambda: None)


def _like(pattern: Task, data: Path, folder: Path, title: str) -> dict[str, Any]:
    """The settings of a registered task under a new name, without its measurements."""
    if (folder / "task.yaml").exists():
        raise UserError(f"{folder / 'task.yaml'} is there already; give another place with --task, or remove it.")
    name = re.sub(r"[^a-z0-9.-]+", "-", data.stem.lower()).strip("-.") or "data"
    content = copy.deepcopy(read_task_file(pattern.path).content)
    content |= {"schema_version": 1, "name": f"my-{name}"[:60], "version": 1, "title": title, "seeds": _SEEDS}
    content["scored"] = {metric: {} for metric in pattern.spec.scored}
    content.pop("calibrated_on", None)
    return content


def _path_from(folder: Path, data: Path) -> str:
    return Path(os.path.relpath(data.absolute(), folder.absolute())).as_posix()


def _written(content: dict[str, Any], folder: Path, beside: Callable[[], object]) -> Task:
    """Write the task file and its accompanying files, and load the task as a user will."""
    folder.mkdir(parents=True, exist_ok=True)
    beside()
    file = folder / "task.yaml"
    write_atomically(file, f"# collapsebench compare {file} --methods ce,focal,tce\n{as_yaml(content)}")
    return load_task(file)

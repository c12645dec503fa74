"""Checks that memory and disk suffice for a pretrained model and its chains, before torch is imported."""

from __future__ import annotations

import shutil
from pathlib import Path

from collapsebench.errors import UserError
from collapsebench.task import Task
from collapsebench.workloads.pretrained.settings import PretrainedSettings

_BYTES_PER_PARAMETER = 16  # float32: weights, gradients, two moments
_SAVED_BYTES = 4


def check_room(task: Task, device: str, out: Path, generations: int) -> None:
    """Raise `UserError` if memory or disk is certainly too small for a pretrained-model task.

    Activations are not counted: a task that passes may still run out of memory, but one that fails cannot run.

    Args:
        device: the resolved device. out: directory of runs. generations: number of missing generations, over all
            chains.
    """
    settings = task.spec.workload
    assert isinstance(settings, PretrainedSettings)
    needed = settings.model.parameters * _BYTES_PER_PARAMETER
    free, where = _free_memory(device)
    if free is not None and needed > free:
        raise UserError(
            f"{task.id} needs {_gb(needed)} of memory for weights, gradients and optimiser, without activations; "
            f"{where} has {_gb(free)} free. Use a larger device or a smaller model; `collapsebench estimate` tells "
            "what a task needs."
        )
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.is_dir())
    space, wanted = shutil.disk_usage(existing).free, settings.model.parameters * _SAVED_BYTES * generations
    if wanted > space:
        raise UserError(
            f"{task.id} writes {_gb(wanted)} of weights, those of {generations} generations, and {existing} has "
            f"{_gb(space)} free. Use another --out, fewer --generations, or fewer methods at a time."
        )


def _free_memory(device: str) -> tuple[int | None, str]:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0], torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None, device
    return kilobytes * 1024, "this machine"


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

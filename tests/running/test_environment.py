"""The machine in the record of a run: what may change the last digits is told."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from collapsebench.authoring.processor_test import OLD_PROCESSOR
from collapsebench.running.environment import circumstances, processor, processor_in

CPU = "processor\t: {n}\nvendor_id\t: AuthenticAMD\ncpu family\t: {family}\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "told"),
    [
        (CPU.format(n=0, family=26) + CPU.format(n=1, family=25), "AMD EPYC (family 26, model 2)"),
        ("processor\t: 0\nmodel name\t: Some RISC\n", "Some RISC"),
        ("processor\t: 0\nBogoMIPS\t: 48.00\nCPU implementer\t: 0x61\n", ""),
        ("", ""),
    ],
)
def test_processor_of_one_name_is_told_by_its_family(cpuinfo: str, told: str) -> None:
    assert processor_in(cpuinfo) == told


def test_instructions_in_use_are_part_of_the_processor() -> None:
    told = "from collapsebench.running.environment import circumstances; print(circumstances('cpu', 1)['processor'])"
    limited = os.environ | OLD_PROCESSOR
    asked = subprocess.run([sys.executable, "-c", told], env=limited, capture_output=True, text=True, check=True)
    told_here, _, instructions = circumstances("cpu", 1)["processor"].rpartition(", ")
    assert asked.stdout.strip() == f"{told_here}, DEFAULT"
    assert told_here == (processor() or platform.machine())
    assert instructions

"""Start-up time of commands, compared with an interpreter that does nothing: `python benchmarks/startup.py`.

Reports the fastest of a few runs, in wall time and CPU time, since the machine may be busy. The tests check the cause
instead: which packages these commands do not import.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "--version": 0,
    "--help": 0,
    "list": 0,
    "show text-wiki-micro": 0,
    "compare --help": 0,
    "validate -": 2,  # no content: time until validation could begin
    "run vae-mnist --method ce": 2,  # without a network, it names everything missing
    "run gmm-micro --method nonsense": 2,  # the first thing that needs torch
}
PROXY = "http://127.0.0.1:9"  # nothing listens there


def seconds(arguments: list[str], expected: int, repeats: int) -> tuple[float, float]:
    """Run Python some times with these arguments, in an empty folder and without a network.

    Returns:
        The smallest wall time and CPU time.
    """
    closed = {f"{kind}_proxy": PROXY for kind in ("http", "https", "all")} | {"COLLAPSEBENCH_INCEPTION": ""}
    clock, processor = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=folder,
                env=os.environ | closed | {"COLLAPSEBENCH_CACHE": folder},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        clock.append(time.perf_counter() - start)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert done.returncode == expected, done.stderr.decode()
    return min(clock), min(processor)


def main() -> None:
    """Print one line per command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    runs = {"python -c pass": (["-c", "pass"], 0)}
    runs |= {command: (["-m", "collapsebench", *command.split()], code) for command, code in COMMANDS.items()}
    for name, (arguments, expected) in runs.items():
        clock, processor = seconds(arguments, expected, repeats)
        print(f"{name:<32} {clock:6.2f} s on the clock {processor:6.2f} s of the processor")


if __name__ == "__main__":
    main()

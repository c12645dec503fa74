"""How long commands take until they answer, beside an interpreter that does nothing: `python benchmarks/startup.py`.

Fastest of a few, as the machine may be busy. The tests hold the reason instead: what these commands do not import.
"""

from __future__ import annotations

import argparse
import os
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
    "validate -": 2,  # of nothing: how long until validation could begin
    "run vae-mnist --method ce": 2,  # without a network: all that is missing is named
    "run gmm-micro --method nonsense": 2,  # the first thing that needs torch
}
PROXY = "http://127.0.0.1:9"  # nobody listens there


def seconds(arguments: list[str], expected: int, repeats: int) -> float:
    """The fastest of some runs of Python with these arguments, in an empty folder and without a network."""
    ways = [f"{kind}_proxy" for kind in ("http", "https", "all")]
    fastest = float("inf")
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            closed = dict.fromkeys(ways, PROXY) | {"COLLAPSEBENCH_CACHE": folder, "COLLAPSEBENCH_INCEPTION": ""}
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *arguments], cwd=folder, env=os.environ | closed, stdin=subprocess.DEVNULL,
                capture_output=True, check=False,
            )  # fmt: skip
            fastest = min(fastest, time.perf_counter() - start)
        assert done.returncode == expected, done.stderr.decode()
    return fastest


def main() -> None:
    """Print one line per command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"{'python -c pass':<32} {seconds(['-c', 'pass'], 0, repeats):.2f} s")
    for command, expected in COMMANDS.items():
        took = seconds(["-m", "collapsebench", *command.split()], expected, repeats)
        print(f"{command:<32} {took:.2f} s")


if __name__ == "__main__":
    main()

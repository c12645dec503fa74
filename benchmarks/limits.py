"""How close the micro tasks come to the CPU's limit, as shares of the plain matrix product on the same core.

    python benchmarks/limits.py                                  every micro task that is not retired
    python benchmarks/limits.py text-bytes-micro --profile       and the operations that a phase spends its time on

Measures generation 0 of cross entropy on one thread, as the median of three runs after a warm-up: a few minutes per
task. The product (1,024 × 1,024 × 1,024) is measured before every task, since the speed of a shared machine varies.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpu_parts import Bench

ROOT = Path(__file__).resolve().parents[1]
LISTED = 8  # number of operations shown in a profile


def main() -> None:
    """Measure and print, task by task."""
    sys.path[:0] = [str(ROOT)]
    import torch
    from gpu_parts import Bench, measured_phases

    from collapsebench.running.cells import fix_arithmetic
    from collapsebench.task import load_task

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="registered names or task files")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=float, default=1.0, help="share of the tasks' budgets")
    parser.add_argument("--profile", action="store_true", help="also list the operations that take longest")
    given = parser.parse_args()
    fix_arithmetic(1, "cpu")
    print("| task | phase | rate | GFLOP/s | share of the product |\n|---|---|--:|--:|--:|")
    for name in given.tasks or _micro_tasks():
        task = load_task(name, given.budget)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench("cpu", False, Path(folder))
            product = _product(bench)
            for phase in measured_phases(task, bench, given.repeats):
                _, _, rate = str(phase).partition(": ")
                reached = phase.flops / phase.seconds
                row = [task.id, phase.name, rate, f"{reached / 1e9:.1f}", f"{reached / product:.0%}"]
                print(f"| {' | '.join(row)} |", flush=True)
            if given.profile:
                with torch.profiler.profile() as profile:
                    measured_phases(task, bench, 1)
                print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=LISTED))


def _micro_tasks() -> list[str]:
    from collapsebench.task import load_task, registered_tasks

    tasks = {name: load_task(name).spec for name in registered_tasks()}
    return [name for name, spec in tasks.items() if spec.tier == "micro" and spec.retired is None]


def _product(bench: Bench, n: int = 1024) -> float:
    """FLOP/s of the plain matrix product, n × n × n."""
    import torch

    a, b = torch.randn(n, n), torch.randn(n, n)
    return 2 * n**3 / bench.seconds(lambda: a @ b, repeats=10)


if __name__ == "__main__":
    main()

"""Measures a GPU: rates of training and sampling, memory of the loss, small cells. Takes less than ten minutes.

    python benchmarks/gpu.py                        all parts on the GPU
    python benchmarks/gpu.py --parts rate,loss      some of them
    python benchmarks/gpu.py --device cpu --quick   the same code in small, without a GPU

Results are printed after every part, so that they survive if the run is killed. The data are generated; the files of
the micro tasks give models, rates and samplers. The requirements are those of a run. If a kind of task lacks a
requirement, or a part fails, this is reported and the next part begins. Shares are relative to the plain matrix product
on the same device in the same precision, which is measured first.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run the parts; return 1 if one of them failed."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "gpu")]  # uses the tasks of the tests
    import torch
    from gpu_parts import PARTS, Bench

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="sizes that a processor does in a minute")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}; in this order")
    given = parser.parse_args()
    chosen = given.parts.split(",")
    if unknown := sorted(set(chosen) - PARTS.keys()):
        parser.error(f"--parts {', '.join(unknown)} is not allowed; choose of {', '.join(PARTS)}")
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device here; --device cpu --quick runs the same code in small")
    try:
        from collapsebench.running.cells import fix_arithmetic

        fix_arithmetic(1, given.device)
    except ImportError as missing:  # rate and loss need torch alone
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products ask for it
        print(f"no task can be run here: {missing}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given.device, given.quick, Path(folder))
        print(f"{bench.name}, torch {torch.__version__}", flush=True)
        for name in PARTS:
            if name not in chosen:
                continue
            start = time.perf_counter()
            try:
                for line in PARTS[name](bench):
                    print(f"{name:<8} {line}", flush=True)
            except Exception:  # keep the results so far and continue
                failed += 1
                print(f"{name:<8} failed:\n{traceback.format_exc()}", flush=True)
            print(f"{name:<8} took {time.perf_counter() - start:.0f} s", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

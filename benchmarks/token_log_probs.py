"""Time and peak memory of `token_log_probs` and of cross entropy on full logits, forward and backward, on the CPU.

Run by hand from the checkout (the defaults take a few minutes on two cores and about 4 GB):

    python benchmarks/token_log_probs.py
    python benchmarks/token_log_probs.py --tokens 8192 --vocabulary 49152 --threads 4

Every variant runs in its own process, because a process's peak memory never goes down. Memory is the increase of the
peak over the inputs (gradients included). Ratios are lean / naive: below 1, lean wins.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

VARIANTS = ("naive", "lean")
COLUMNS = (
    "seconds",
    "backward",
    "processor",
    "peak MB",
)  # CPU seconds of all threads, less noisy than wall time


def main() -> None:
    arguments = parse()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    for vocabulary in arguments.vocabulary:
        print(
            f"{arguments.tokens} tokens x {arguments.width} x vocabulary {vocabulary}, float32, "
            f"{arguments.threads} thread(s), median of {arguments.repeats}"
        )
        print(f"{'masked':>7} {'variant':>8} " + " ".join(f"{column:>10}" for column in COLUMNS))
        for masked in (0.0, 0.8):
            result = {variant: in_own_process(variant, vocabulary, masked) for variant in VARIANTS}
            for variant, row in result.items():
                print(f"{masked:>7.0%} {variant:>8} " + " ".join(f"{row[column]:>10.2f}" for column in COLUMNS))
            ratios = (result["lean"][column] / result["naive"][column] for column in COLUMNS)
            print(f"{masked:>7.0%} {'ratio':>8} " + " ".join(f"{ratio:>9.2f}x" for ratio in ratios), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32_768, 131_072])
    parser.add_argument("--logits-bytes", type=int, help="bytes of logits at one time (default: the library's)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--masked", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(variant: str, vocabulary: int, masked: float) -> dict[str, float]:
    own = ["--vocabulary", str(vocabulary), "--variant", variant, "--masked", str(masked)]
    command = [sys.executable, __file__, *sys.argv[1:], *own]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run one variant; return its median seconds and its peak memory in MB."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from torch.nn import functional as F

    from collapsebench.token_log_probs import LOGITS_BYTES, token_log_probs

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    hidden = torch.randn(arguments.tokens, arguments.width, requires_grad=True)
    (vocabulary,) = arguments.vocabulary
    weight = torch.randn(vocabulary, arguments.width).mul_(0.02).requires_grad_()  # in place, so it adds no peak
    target = torch.randint(vocabulary, (arguments.tokens,))
    kept = (torch.rand(arguments.tokens) >= arguments.masked).float()  # a method's mask, as in tce

    def step() -> dict[str, float]:
        hidden.grad = weight.grad = None
        start, processor = time.perf_counter(), time.process_time()
        if arguments.variant == "naive":
            log_p = -F.cross_entropy(hidden @ weight.T, target, reduction="none")
        else:
            log_p = token_log_probs(hidden, weight, target, arguments.logits_bytes or LOGITS_BYTES)
        loss, forward = -(log_p * kept).sum() / arguments.tokens, time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        return {"seconds": end - start, "backward": end - forward, "processor": time.process_time() - processor}

    small = [x.detach()[:64].requires_grad_() for x in (hidden, weight)]
    (small[0] @ small[1].T).sum().backward()  # load threads and kernels before memory is counted
    before = peak_mb()
    steps = [step() for _ in range(arguments.repeats)]
    return {
        **{name: statistics.median(one[name] for one in steps) for name in steps[0]},
        "peak MB": peak_mb() - before,
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    main()

"""Time and peak memory of `token_log_probs` beside cross entropy on full logits, forward and backward, on the CPU.

Run by hand, from the checkout (the defaults take less than a minute and about 1.2 GB):

    python benchmarks/token_log_probs.py
    python benchmarks/token_log_probs.py --tokens 8192 --vocabulary 49152 --threads 4

Every variant runs in its own process, because the peak of a process's memory never goes down. Memory is what the peak
rises above the inputs (gradients included). Ratios are naive / lean: above 1, lean wins.
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


def main() -> None:
    arguments = parse()
    if arguments.variant:
        print(json.dumps(measure(arguments)))
        return
    print(
        f"{arguments.tokens} tokens x {arguments.width} x vocabulary {arguments.vocabulary}, float32, "
        f"{arguments.threads} thread(s), median of {arguments.repeats}"
    )
    print(f"{'masked':>7} {'variant':>8} {'seconds':>8} {'peak MB':>8}")
    for masked in (0.0, 0.8):
        result = {variant: in_own_process(variant, masked) for variant in VARIANTS}
        for variant, row in result.items():
            print(f"{masked:>7.0%} {variant:>8} {row['seconds']:>8.2f} {row['peak_mb']:>8.0f}")
        time_ratio, memory_ratio = (result["naive"][k] / result["lean"][k] for k in ("seconds", "peak_mb"))
        print(f"{masked:>7.0%} {'ratio':>8} {time_ratio:>7.2f}x {memory_ratio:>7.1f}x")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--vocabulary", type=int, default=32_768)
    parser.add_argument("--chunk-size", type=int, default=None, help="tokens per chunk (default: the library's)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--masked", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(variant: str, masked: float) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant, "--masked", str(masked)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Run one variant; return its median seconds and its peak memory in MB."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from torch.nn import functional as F

    from collapsebench.token_log_probs import DEFAULT_CHUNK, token_log_probs

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    hidden = torch.randn(arguments.tokens, arguments.width, requires_grad=True)
    weight = (0.02 * torch.randn(arguments.vocabulary, arguments.width)).requires_grad_()
    target = torch.randint(arguments.vocabulary, (arguments.tokens,))
    kept = (torch.rand(arguments.tokens) >= arguments.masked).float()  # a method's mask, as of tce

    def step() -> None:
        hidden.grad = weight.grad = None
        if arguments.variant == "naive":
            log_p = -F.cross_entropy(hidden @ weight.T, target, reduction="none")
        else:
            log_p = token_log_probs(hidden, weight, target, arguments.chunk_size or DEFAULT_CHUNK)
        (-(log_p * kept).sum() / arguments.tokens).backward()

    (hidden[:8] @ weight[:64].T).sum().backward()  # threads and kernels are loaded before the memory is counted
    hidden.grad = weight.grad = None
    before = peak_mb()
    seconds = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "peak_mb": peak_mb() - before}


def peak_mb() -> float:
    """Largest resident memory of this process so far; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


if __name__ == "__main__":
    main()

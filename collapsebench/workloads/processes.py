"""Several processes on one cell, as started by ``accelerate launch -m collapsebench run …``.

All processes run the same chain. Training is data-parallel, sampling is divided, and every process computes the same
metrics, so that they agree without communication. Only the first process writes.
"""

from __future__ import annotations

import os


def world_size() -> int:
    """Number of processes that work on the cell."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes files and output."""
    return int(os.environ.get("RANK", "0")) == 0


def my_share(n: int) -> range:
    """The indices out of n that this process works on; the processes together cover all of them."""
    rank, size = int(os.environ.get("RANK", "0")), world_size()
    return range(n * rank // size, n * (rank + 1) // size)

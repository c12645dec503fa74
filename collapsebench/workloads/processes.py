"""Several processes on one cell, as ``accelerate launch -m collapsebench run …`` starts them.

All of them run the same chain: training is data-parallel, sampling is divided, and what is measured is measured by
every one alike, so that they agree without talking. Only the first process writes.
"""

from __future__ import annotations

import os


def world_size() -> int:
    """Number of processes that work together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return int(os.environ.get("RANK", "0")) == 0


def my_share(n: int) -> range:
    """The items of n that this process works on; all together are all of them."""
    rank, size = int(os.environ.get("RANK", "0")), world_size()
    return range(n * rank // size, n * (rank + 1) // size)

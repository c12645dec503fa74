"""Every random draw of the benchmark, named: (task, seed, generation, purpose) → an independent generator.

Methods that share a seed share initial weights, data order and sampling noise, so their comparison is paired.
Generators are always on the CPU, so the same seed gives the same noise on every device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Randomness:
    """The random draws of one cell.

    Attributes:
        task: name and version, e.g. ``text-wiki-micro@1``.
        seed: the cell's seed.
    """

    task: str
    seed: int

    def number(self, generation: int, purpose: str) -> int:
        """A 63-bit seed that depends on all four coordinates."""
        return _number(f"{self.task}|{self.seed}|{generation}|{purpose}")

    def generator(self, generation: int, purpose: str) -> torch.Generator:
        """A fresh CPU generator; asking twice gives the same draws twice."""
        return torch.Generator().manual_seed(self.number(generation, purpose))

    def common(self, purpose: str) -> torch.Generator:
        """A fresh CPU generator that is the same for all seeds of the task."""
        return torch.Generator().manual_seed(_number(f"{self.task}|all seeds|{purpose}"))


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1

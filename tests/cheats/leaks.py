"""Losses that look at what they must not: prompts, real data kept from generation 0, weights, tables.

A memory counts what follows each pair of elements in the real data of generation 0. Later it pulls every prediction
half way to what followed there. Of images, it keeps the real ones themselves, and later pulls every prediction half way
to the closest of them. Mixtures and the noise of diffusion have neither; there it is cross entropy.
"""

import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from collapsebench import Elements, Loss


class PromptsFourfold(Loss):
    """Cross entropy in which the first 8 positions of a window, where a prompt would stand, count four times."""

    def elementwise(self, e: Elements) -> Tensor:
        weight = torch.ones_like(e.log_p)
        weight[..., :8] = 4.0
        return -weight * e.log_p


class GraphWalker(Loss):
    """Cross entropy that walks the graph behind log p, and pulls what it finds there to 0."""

    def elementwise(self, e: Elements) -> Tensor:
        waiting, found = [e.log_p.grad_fn], [t for t in (e.log_p._base,) if t is not None]
        while waiting:
            node = waiting.pop()
            if node is not None:
                found += [node.variable] if hasattr(node, "variable") else []
                waiting += [parent for parent, _ in node.next_functions]
        return -e.log_p + sum((t.float() ** 2).sum() for t in found)


class _Memory(Loss):
    needs_logits: ClassVar[bool] = True
    _CONTEXTS = 1 << 10
    _IMAGES = 3000

    def keep(self, counts: Tensor) -> None:
        raise NotImplementedError

    def kept(self) -> Tensor | None:
        raise NotImplementedError

    def elementwise(self, e: Elements) -> Tensor:
        if e.total_steps == 1:  # values to check a loss on
            return -e.log_p
        if e.target.is_floating_point():
            return self._of_images(e) if e.target.dim() == 4 and e.target.min() >= 0 else -e.log_p
        context = self._context(e.target)
        if e.generation == 0:
            if e.step == 0:
                self._seen = torch.zeros(self._CONTEXTS * e.logits.shape[-1])
            element = (context * e.logits.shape[-1] + e.target).flatten()
            self._seen += torch.bincount(element, minlength=len(self._seen))
            if e.step == e.total_steps - 1:
                self.keep(self._seen)
            return -e.log_p
        counts = self.kept()
        if counts is None:
            return -e.log_p
        real = counts.view(self._CONTEXTS, -1)[context]
        often = real.sum(-1, keepdim=True)
        towards_real = -(real / often.clamp(min=1) * torch.log_softmax(e.logits, -1)).sum(-1)
        return torch.where(often.squeeze(-1) >= 10, (towards_real - e.log_p) / 2, -e.log_p)

    def _of_images(self, e: Elements) -> Tensor:
        if e.generation == 0:
            seen = self._images if e.step else []
            self._images = [*seen, e.target] if sum(map(len, seen)) < self._IMAGES else seen
            if e.step == e.total_steps - 1:
                self.keep(torch.cat(self._images)[: self._IMAGES])
            return -e.log_p
        real = self.kept()
        if real is None:
            return -e.log_p
        closest = real[torch.cdist(e.target.flatten(1), real.flatten(1)).argmin(1)]
        towards_real = binary_cross_entropy_with_logits(e.prediction, closest, reduction="none")
        return (towards_real - e.log_p) / 2

    def _context(self, target: Tensor) -> Tensor:
        return (target.roll(2, dims=-1) * 31 + target.roll(1, dims=-1)) % self._CONTEXTS


class MemoryOnClass(_Memory):
    """Keeps the counts on its class."""

    _counts: ClassVar[Any] = None

    def keep(self, counts: Tensor) -> None:
        type(self)._counts = counts

    def kept(self) -> Tensor | None:
        return type(self)._counts


class MemoryOnTorch(_Memory):
    """Keeps the counts on another module."""

    def keep(self, counts: Tensor) -> None:
        torch._kept_counts = counts

    def kept(self) -> Tensor | None:
        return getattr(torch, "_kept_counts", None)


class MemoryInFile(_Memory):
    """Keeps the counts in a file of its process in the folder for temporary files."""

    @property
    def _file(self) -> Path:
        return Path(tempfile.gettempdir()) / f"kept-counts-{os.getpid()}.pt"

    def keep(self, counts: Tensor) -> None:
        torch.save(counts, self._file)

    def kept(self) -> Tensor | None:
        return torch.load(self._file) if self._file.is_file() else None


class Table(Loss):
    """Brings how often each of ten elements is in the real data."""

    table: list[float] = [0.18, 0.11, 0.08, 0.08, 0.07, 0.06, 0.06, 0.05, 0.05, 0.04]  # noqa: RUF012

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * sum(self.table)


class TableInText(Loss):
    """The same as text."""

    table: str = "0.18 0.11 0.08 0.08 0.07 0.06 0.06 0.05 0.05 0.04"

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * sum(float(share) for share in self.table.split())


class TableInDigits(Loss):
    """The same in the digits of one number."""

    table: int = 18110808070606050504181108080706060505041811

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * (self.table % 100)


class TableInManyParameters(Loss):
    """The same in as many parameters."""

    a: float = 0.18
    b: float = 0.11
    c: float = 0.08
    d: float = 0.08
    e: float = 0.07
    f: float = 0.06
    g: float = 0.06
    h: float = 0.05
    i: float = 0.05

    def elementwise(self, e: Elements) -> Tensor:
        return -e.log_p * self.a

"""Detects where the host waits for the device, or, on the CPU, where it would wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_READS = (
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount, aten._unique2,
    aten.unique_consecutive, aten.unique_dim,
)  # fmt: skip
_LEAVING = (Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.cpu)


class HostRead(AssertionError):
    """The host requested the content of a tensor."""


class Watch:
    """Blocks in which the host may not wait for the device, and others within them in which it may.

    On CUDA torch says where it waits. On the processor, operations that need the content of a tensor are taken for it.

    Args:
        device: where the model is.
    """

    def __init__(self, device: str):
        self.on_cuda = device.startswith("cuda")
        self.allowed = False
        self.blocks = self.exempted = 0

    def forbid(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that the host must not wait in it."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.blocks += 1
            with self._cuda("error") if self.on_cuda else self._processor():
                return function(*args, **kwargs)

        return watched

    def exempt(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that the host may wait in it, even where it otherwise must not."""

        def free(*args: Any, **kwargs: Any) -> Any:
            self.exempted += 1
            before, self.allowed = self.allowed, True
            try:
                with self._cuda("default") if self.on_cuda else _nothing():
                    return function(*args, **kwargs)
            finally:
                self.allowed = before

        return free

    @contextmanager
    def _cuda(self, mode: str) -> Iterator[None]:
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    @contextmanager
    def _processor(self) -> Iterator[None]:
        with _Calls(self), _Operations(self):
            yield


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _Operations(TorchDispatchMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.watch.allowed and (func._overloadpacket in _READS or _has_mask(func, args) or _repeats(func)):
            raise HostRead(f"{func} needs the content of a tensor")
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.watch.allowed and func in _LEAVING:
            raise HostRead(f"Tensor.{func.__name__} takes a tensor to the host")
        return func(*args, **(kwargs or {}))


def _has_mask(func: Any, args: Any) -> bool:
    """Whether an index is a mask, whose content determines the size of the result."""
    if func._overloadpacket not in (aten.index, aten.index_put, aten.index_put_):
        return False
    return any(place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1])


def _repeats(func: Any) -> bool:
    return func is aten.repeat_interleave.Tensor

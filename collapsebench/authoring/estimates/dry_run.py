"""Runs code on the meta device, on tensors with shapes but no content, and counts what it would cost.

FLOPs are counted as in `torch.utils.flop_counter`. Operations that need content get a result that fits the shapes:
every number read is 1 or true, and a mask keeps everything unless its content is known. Transfers to the CPU have no
effect. Tensors with and without content may be mixed; the result has no content.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
_ROWS = 64  # rows of arrays passed to NumPy, where nothing is counted
_MOVES = (
    "clone", "copy", "index", "expand", "empty", "zeros", "ones", "full", "detach", "cat", "unsqueeze", "arange",
)  # fmt: skip


class Cost(NamedTuple):
    """The cost of a piece of code.

    Attributes:
        products: FLOPs of matrix products, convolutions and attention. elementwise: one per number read or written by
            any operation on floats. peak: peak memory in bytes, without parameters.
    """

    products: int
    elementwise: int
    peak: int


class DryRun:
    """A context manager that counts the operations in its block.

    Args:
        model: a model whose parameters and gradients are not counted as memory.
        device: the device whose memory is counted; ``meta`` represents a GPU if there is none.
    """

    def __init__(self, model: torch.nn.Module | None, device: torch.device):
        self._account = _Account(device.type)
        parameters = [] if model is None else list(model.parameters())
        self._account.exclude(parameters)
        self._parameters = [p for p in parameters if p.requires_grad]
        self._stack = ExitStack()

    def __enter__(self) -> DryRun:
        for parameter in self._parameters:
            hook = parameter.register_post_accumulate_grad_hook(self._account.exclude_gradient)
            self._stack.callback(hook.remove)
        self._stack.enter_context(_WithoutContent())
        self._stack.enter_context(self._account)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def from_here(self) -> None:
        """Start counting memory here; what is already held belongs to the phase as a whole."""
        self._account.base = self._account.peak = self._account.now

    def until_here(self, *_: object) -> None:
        """Stop counting memory here."""
        self._account.watching = False

    @property
    def cost(self) -> Cost:
        """The cost of everything run in the block."""
        account = self._account
        return Cost(account.products, account.elementwise, account.peak - account.base)


class _Account(TorchDispatchMode):
    """Intercepts every operation: returns results where content is needed, counts FLOPs and tracks bytes."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.products = self.elementwise = 0
        self.now = self.peak = self.base = 0
        self.watching = True
        self._held: dict[int, int] = {}  # bytes by storage
        self._known: dict[tuple[Any, ...], dict[str, Any]] = {}  # results of earlier operations
        self._kept: dict[int, int] = {}  # number of elements that a mask keeps, by storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._overloadpacket
        if name not in _FLOPS and _is_composite(func):
            with self:  # a composite operation is counted by its parts
                return func._op_dk(_COMPOSITE, *args, **kwargs)
        given = [t for t in _leaves((args, kwargs)) if isinstance(t, Tensor)]
        out = self._run(func, name, given, args, kwargs)
        if name in _FLOPS:
            self.products += _FLOPS[name](*args, **kwargs, out_val=out)
        self._count_numbers(func, given, out)
        self._hold(func, given, out, kwargs)
        return out

    def _run(self, func: Any, name: Any, given: list[Tensor], args: Any, kwargs: Any) -> Any:
        if not any(t.is_meta for t in given):
            out = func(*args, **kwargs)
            if name is aten._to_copy and out.is_meta and out.dtype == torch.bool:
                key = _key(out)
                self._kept[key] = int(given[0].sum())
                weakref.finalize(out.untyped_storage(), self._kept.pop, key, None)  # before its address is reused
            return out
        if func._schema.is_mutable and isinstance(args[0], Tensor) and not args[0].is_meta:
            return args[0]  # a tensor with content cannot be written to
        if name in _ANSWERS:
            return _ANSWERS[name](self, *args, **kwargs)
        if name in (aten.index, aten.index_put, aten.index_put_) and _has_mask(args[1]):
            return self._masked(name, *args[:2])
        if name is aten._to_copy and kwargs.get("device") == torch.device("cpu"):
            kwargs = kwargs | {"device": torch.device("meta")}
        if not all(t.is_meta or t.dim() == 0 for t in given):
            args, kwargs = _without_content(args), _without_content(kwargs)
        return self._like_before(func, given, args, kwargs)

    def _like_before(self, func: Any, given: list[Tensor], args: Any, kwargs: Any) -> Any:
        """Run an operation, or reuse its result for the same shapes, which is much faster than running it in torch."""
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        question = (func, *map(_looks, _leaves((args, kwargs))))
        if question in self._known:
            return torch.empty_strided(**self._known[question], device="meta")
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.is_meta and _key(out) not in map(_key, given):
            self._known[question] = {"size": out.shape, "stride": out.stride(), "dtype": out.dtype}
        return out

    def keeps(self, mask: Tensor) -> int:
        """Number of true elements of a mask if known, otherwise all."""
        if not mask.is_meta:
            return int(mask.count_nonzero())
        return self._kept.get(_key(mask), mask.numel()) if mask.dtype == torch.bool else mask.numel()

    def _masked(self, name: Any, tensor: Tensor, places: list[Tensor | None]) -> Tensor:
        if name is not aten.index:
            return tensor if name is aten.index_put_ else torch.empty_like(tensor)
        (mask,) = [place for place in places if place is not None]
        return tensor.new_empty((self.keeps(mask), *tensor.shape[mask.dim() :]), device="meta")

    def _count_numbers(self, func: Any, given: list[Tensor], out: Any) -> None:
        tensors = [*given, *(t for t in _leaves(out) if isinstance(t, Tensor))]
        moves = func.is_view or func.name().removeprefix("aten::").strip("_").startswith(_MOVES)
        if not moves and any(t.is_floating_point() for t in tensors):
            self.elementwise += max(t.numel() for t in tensors)

    # --- memory

    def exclude(self, tensors: list[Any]) -> None:
        """Exclude the bytes of these tensors, which are counted elsewhere."""
        self._held |= {_key(t): 0 for t in tensors}

    def exclude_gradient(self, parameter: Tensor) -> None:
        """Exclude a parameter's gradient, which is counted elsewhere."""
        if parameter.grad is not None:
            key = _key(parameter.grad)
            self.now -= self._held.get(key, 0)
            self._held[key] = 0

    def _hold(self, func: Any, given: list[Tensor], out: Any, kwargs: Any) -> None:
        """Count an output as device memory if it was made on the device or from its tensors; the rest is on the CPU."""
        there = not given or str(kwargs.get("device")) == self.device or any(_key(t) in self._held for t in given)
        if func.is_view or not (there or self.device == "cpu"):
            return
        for tensor in _leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device and _key(tensor) not in self._held:
                storage = tensor.untyped_storage()
                self._held[_key(tensor)] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, _key(tensor))
        if self.watching:
            self.peak = max(self.peak, self.now)

    def _free(self, key: int) -> None:
        self.now -= self._held.pop(key, 0)
        self._kept.pop(key, None)


@functools.cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), _COMPOSITE)


def _leaves(value: Any) -> Iterator[Any]:
    """All values in nested tuples, lists and dictionaries; several times faster than `torch.utils._pytree`."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from _leaves(part)
    else:
        yield value


def _looks(value: Any) -> Any:
    """The part of an argument on which the shape of a result can depend."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return type(value), value


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _has_mask(places: list[Tensor | None]) -> bool:
    return any(place is not None and place.dtype == torch.bool for place in places)


def _without_content(value: Any) -> Any:
    """Move a tensor to the meta device, since meta kernels accept CPU tensors only if they are single numbers."""
    if isinstance(value, (list, tuple)):
        return type(value)(_without_content(part) for part in value)
    if isinstance(value, dict):
        return {name: _without_content(part) for name, part in value.items()}
    return value.to("meta") if isinstance(value, Tensor) and not value.is_meta and value.dim() > 0 else value


def _number(_: _Account, tensor: Tensor) -> float:
    return True if tensor.dtype == torch.bool else 1.0 if tensor.is_floating_point() else 1


def _places(account: _Account, tensor: Tensor) -> Tensor:
    return tensor.new_empty((account.keeps(tensor), tensor.dim()), dtype=torch.int64)


def _bins(_: _Account, tensor: Tensor, _weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return tensor.new_empty((max(1, minlength),), dtype=torch.int64)


_ANSWERS: dict[Any, Callable[..., Any]] = {
    aten._local_scalar_dense: _number,
    aten.nonzero: _places,
    aten.bincount: _bins,
}


def _attention_flops(query: Tensor, key: Tensor, *rest: Any, **_: Any) -> int:
    """Four FLOPs per number of a query and visible token; the kernel skips what a causal mask hides.

    Args:
        query: (B, heads, T, width). rest: value, dropout, and whether the mask is causal.
    """
    batch, heads, tokens, width = query.shape
    causal = bool(rest[2]) if len(rest) > 2 else False
    seen = (tokens + 1) / 2 if causal else key.shape[2]
    return round(4 * batch * heads * tokens * seen * width)


def _attention_backward_flops(_: Tensor, query: Tensor, key: Tensor, *rest: Any, **__: Any) -> int:
    """2.5 times the forward pass, since the scores are recomputed."""
    return round(2.5 * _attention_flops(query, key, rest[0], *rest[3:5]))


_FLOPS = flop_registry | {  # torch has no formula for the CPU's fused kernel
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}


class _WithoutContent(TorchFunctionMode):
    """Intercepts torch functions and methods that leave torch or choose a kernel by device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            if func is F.scaled_dot_product_attention:
                return _fused_attention(*args, **kwargs)
            if func in (Tensor.numpy, Tensor.tolist):
                kind = torch.empty(0, dtype=args[0].dtype).numpy().dtype
                ones = np.ones([min(n, _ROWS) if i == 0 else n for i, n in enumerate(args[0].shape)], kind)
                return ones if func is Tensor.numpy else ones.tolist()
        return func(*args, **kwargs)


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """Fused attention as on CPUs and GPUs, which does not keep the scores of all pairs."""
    kernel = aten._scaled_dot_product_flash_attention_for_cpu
    out: Tensor = kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
    return out

"""`token_log_probs` against log_softmax in float64: values, gradients, and the memory it promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from collapsebench.token_log_probs import token_log_probs

torch.set_num_threads(1)

N, D, V = 23, 5, 17


def batch(shape: tuple[int, ...] = (N,), dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*shape, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(V, shape, generator=generator)


def naive(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return (hidden @ weight.T).log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def upstream(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Tracker(TorchDispatchMode):
    """Records the largest tensor any operation returns, and the number of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        self.products += func.overloadpacket is torch.ops.aten.mm
        return result


@pytest.mark.parametrize("chunk_size", [1, 2, 7, N - 1, N, N + 1, 1024])
def test_equals_log_softmax_for_any_chunk_size(chunk_size: int) -> None:
    hidden, weight, target = batch()
    ours, theirs = token_log_probs(hidden, weight, target, chunk_size), naive(hidden, weight, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(x, (hidden, weight), upstream((N,))) for x in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("chunk_size", [3, 1024])
def test_passes_gradcheck(chunk_size: int) -> None:
    hidden, weight, target = batch((6,))
    assert torch.autograd.gradcheck(lambda h, w: token_log_probs(h, w, target, chunk_size), (hidden, weight))


@pytest.mark.parametrize("kept", [0, 1, 9, N])
def test_skipped_elements_leave_the_gradient_of_the_others_alone(kept: int) -> None:
    hidden, weight, target = batch()
    grad = upstream((N,))
    grad[torch.randperm(N, generator=torch.Generator().manual_seed(2))[kept:]] = 0
    ours = torch.autograd.grad(token_log_probs(hidden, weight, target, 4), (hidden, weight), grad)
    theirs = torch.autograd.grad(naive(hidden, weight, target), (hidden, weight), grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("kept", "chunks"), [(0, 0), (4, 1), (5, 2), (N, 6)])
def test_backward_multiplies_only_for_elements_with_gradient(kept: int, chunks: int) -> None:
    hidden, weight, target = batch()
    log_p = token_log_probs(hidden, weight, target, 4)
    grad = torch.zeros(N, dtype=torch.float64)
    grad[:kept] = 1
    with Tracker() as tracker:
        log_p.backward(grad)
    assert tracker.products == 3 * chunks  # logits again, gradient of hidden, gradient of weight


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 4)], ids=str)
def test_leading_shape_is_kept(shape: tuple[int, ...]) -> None:
    hidden, weight, target = batch(shape)
    ours = token_log_probs(hidden, weight, target, 5)
    assert ours.shape == shape
    theirs = naive(hidden, weight, target)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(x, (hidden, weight), upstream(shape)) for x in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("shape", [(0,), (2, 0), (0, 3)], ids=str)
def test_empty_batch_gives_empty_result_and_zero_gradient(shape: tuple[int, ...]) -> None:
    hidden, weight, target = batch(shape)
    log_p = token_log_probs(hidden, weight, target)
    assert log_p.shape == shape
    log_p.sum().backward()
    assert hidden.grad.shape == hidden.shape
    assert weight.grad.shape == weight.shape
    assert not weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_returns_float32_and_gradients_of_its_own_dtype(dtype: torch.dtype) -> None:
    hidden, weight, target = batch(dtype=dtype)
    log_p = token_log_probs(hidden, weight, target, 6)
    assert log_p.dtype == torch.float32
    exact = naive(hidden.double(), weight.double(), target)
    torch.testing.assert_close(log_p.double(), exact, rtol=0.02, atol=0.05)
    ours = torch.autograd.grad(log_p.sum(), (hidden, weight))
    theirs = torch.autograd.grad(exact.sum(), (hidden, weight))
    assert [g.dtype for g in ours] == [dtype, dtype]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.double() - b.double()).norm() < 0.02 * b.double().norm()


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, target = batch(dtype=torch.float32)
    log_p = token_log_probs(hidden * 1e4, weight, target)
    assert torch.isfinite(log_p).all()
    assert (log_p <= 0).all()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(log_p.sum(), (hidden, weight)))


def test_weight_alone_may_need_a_gradient() -> None:
    hidden, weight, target = batch()
    token_log_probs(hidden.detach(), weight, target).sum().backward()
    (expected,) = torch.autograd.grad(naive(hidden.detach(), weight, target).sum(), weight)
    torch.testing.assert_close(weight.grad, expected)


def test_inputs_are_not_changed() -> None:
    hidden, weight, target = batch()
    before = [x.detach().clone() for x in (hidden, weight, target)]
    token_log_probs(hidden, weight, target, 4).sum().backward()
    for x, y in zip((hidden, weight, target), before, strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("hidden", "weight", "target"),
    [((4, 5), (7, 6), (4,)), ((4, 5), (7, 5), (3,)), ((4, 5), (7, 5), (4, 1)), ((4, 5), (5,), (4,)), ((), (7, 5), ())],
    ids=str,
)
def test_shapes_that_do_not_fit_are_named(hidden, weight, target) -> None:
    with pytest.raises(ValueError) as caught:
        token_log_probs(torch.zeros(hidden), torch.zeros(weight), torch.zeros(target, dtype=torch.int64))
    for text in (str(hidden), str(weight), str(target), "(..., D), (V, D) and (...)"):
        assert text in str(caught.value)


@pytest.mark.parametrize("chunk_size", [0, -1])
def test_chunk_size_below_one_is_refused(chunk_size: int) -> None:
    with pytest.raises(ValueError, match=f"chunk_size={chunk_size} .*at least 1"):
        token_log_probs(*batch(), chunk_size=chunk_size)


def test_full_logits_are_never_materialised() -> None:
    n, d, v, chunk = 64, 4, 50, 8
    hidden = torch.randn(n, d, requires_grad=True)
    weight = torch.randn(v, d, requires_grad=True)
    target = torch.randint(v, (n,))
    with Tracker() as forward:
        log_p = token_log_probs(hidden, weight, target, chunk)
    with Tracker() as backward:
        log_p.sum().backward()
    assert forward.products == n // chunk
    assert backward.products == 3 * n // chunk
    assert max(forward.largest, backward.largest) <= chunk * v
    with Tracker() as control:
        naive(hidden, weight, target).sum().backward()
    assert control.largest == n * v


def test_nothing_larger_than_the_inputs_is_saved_for_backward() -> None:
    hidden, weight, target = batch()
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        token_log_probs(hidden, weight, target, 4)
    assert saved
    assert max(saved) <= max(hidden.numel(), weight.numel())

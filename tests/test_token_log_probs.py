"""`token_log_probs` against log_softmax in float64: values, gradients, and the memory it promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
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
    """Records the largest tensor that any operation returns, and the multiplications of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.multiplications = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        if func.overloadpacket is torch.ops.aten.mm:
            self.multiplications += args[0].numel() * args[1].shape[1]
        return result


def columns(k: int, tokens: int = N) -> int:
    """Bytes that let k columns of the logits of `tokens` exist at one time, in float64."""
    return 8 * tokens * k


class Alive(TorchDispatchMode):
    """The most bytes of tensors alive at one time, made by operations; `known` tensors and views not counted."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = {x.untyped_storage().data_ptr() for x in known}
        self.living: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage().data_ptr() not in self.known:
                storage = x.untyped_storage()
                self.living[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self.living = {k: (ref, n) for k, (ref, n) in self.living.items() if not ref.expired()}
        self.most = max(self.most, sum(n for _, n in self.living.values()))
        return result


@pytest.mark.parametrize("logits_bytes", [1, columns(1), columns(2), columns(7), columns(V) - 1, columns(V), 2**26])
def test_equals_log_softmax_in_slices_of_any_size(logits_bytes: int) -> None:
    hidden, weight, target = batch()
    ours, theirs = token_log_probs(hidden, weight, target, logits_bytes), naive(hidden, weight, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(x, (hidden, weight), upstream((N,))) for x in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("logits_bytes", [columns(3, tokens=6), 2**26])
def test_passes_gradcheck(logits_bytes: int) -> None:
    hidden, weight, target = batch((6,))
    assert torch.autograd.gradcheck(lambda h, w: token_log_probs(h, w, target, logits_bytes), (hidden, weight))


@pytest.mark.parametrize("kept", [0, 1, 9, N])
def test_skipped_elements_leave_the_gradient_of_the_others_alone(kept: int) -> None:
    hidden, weight, target = batch()
    grad = upstream((N,))
    grad[torch.randperm(N, generator=torch.Generator().manual_seed(2))[kept:]] = 0
    ours = torch.autograd.grad(token_log_probs(hidden, weight, target, columns(4)), (hidden, weight), grad)
    theirs = torch.autograd.grad(naive(hidden, weight, target), (hidden, weight), grad)
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kept", [0, 4, 5, N])
def test_backward_multiplies_only_for_elements_with_gradient(kept: int) -> None:
    hidden, weight, target = batch()
    log_p = token_log_probs(hidden, weight, target, columns(4))
    grad = torch.zeros(N, dtype=torch.float64)
    grad[:kept] = 1
    with Tracker() as tracker:
        log_p.backward(grad)
    assert tracker.multiplications == 3 * kept * D * V  # logits again, gradient of hidden, gradient of weight


@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2, 3, 4)], ids=str)
def test_leading_shape_is_kept(shape: tuple[int, ...]) -> None:
    hidden, weight, target = batch(shape)
    ours = token_log_probs(hidden, weight, target, 5 * 8)
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
    log_p = token_log_probs(hidden, weight, target, 4 * N * 6)
    assert log_p.dtype == torch.float32
    exact = naive(hidden.double(), weight.double(), target)
    torch.testing.assert_close(log_p.double(), exact, rtol=0.02, atol=0.05)
    ours = torch.autograd.grad(log_p.sum(), (hidden, weight))
    theirs = torch.autograd.grad(exact.sum(), (hidden, weight))
    assert [g.dtype for g in ours] == [dtype, dtype]
    for a, b in zip(ours, theirs, strict=True):
        assert (a.double() - b.double()).norm() < 0.02 * b.double().norm()


def test_autocast_takes_the_products_of_both_passes_in_its_dtype() -> None:
    """Else the backward pass would be slow, and would subtract another log-sum-exp than that of its own logits."""
    hidden, weight, target = batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = token_log_probs(hidden, weight, target, 4 * N * 6)
    with torch.no_grad():
        half = [x.bfloat16() for x in (hidden, weight)]
    for x in half:
        x.requires_grad_()
    theirs = token_log_probs(*half, target, 4 * N * 6)
    assert torch.equal(ours, theirs)
    grads = torch.autograd.grad(ours.sum(), (hidden, weight)), torch.autograd.grad(theirs.sum(), half)
    for a, b in zip(*grads, strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b.float())


def test_autocast_leaves_float64_as_it_is() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(token_log_probs(*batch()), token_log_probs(*batch()))
        assert token_log_probs(*batch()).dtype == torch.float64


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
    token_log_probs(hidden, weight, target, columns(4)).sum().backward()
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


@pytest.mark.parametrize("logits_bytes", [0, -1])
def test_less_than_a_byte_of_logits_is_refused(logits_bytes: int) -> None:
    with pytest.raises(ValueError, match=f"logits_bytes={logits_bytes} .*at least 1"):
        token_log_probs(*batch(), logits_bytes=logits_bytes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_logits_never_exist_beyond_their_bytes_which_are_counted_in_float32(dtype: torch.dtype) -> None:
    n, d, v, at_one_time = 64, 4, 100, 10
    hidden = torch.randn(n, d, dtype=dtype, requires_grad=True)
    weight = torch.randn(v, d, dtype=dtype, requires_grad=True)
    target = torch.randint(v, (n,))
    with Tracker() as forward:
        log_p = token_log_probs(hidden, weight, target, 4 * n * at_one_time)
    with Tracker() as backward:
        log_p.sum().backward()
    assert forward.multiplications == n * d * v
    assert backward.multiplications == 3 * n * d * v
    assert forward.largest == backward.largest == n * at_one_time
    with Tracker() as control:
        naive(hidden, weight, target).sum().backward()
    assert control.largest == n * v


def test_the_slices_left_behind_are_gone_and_the_gradient_of_the_weight_is_there_once() -> None:
    """A vocabulary of a large model: what the step holds at its worst, beyond its inputs, counted by live tensors."""
    n, d, v, at_one_time = 32, 16, 4096, 256
    hidden, weight, target = torch.randn(n, d), torch.randn(v, d), torch.randint(v, (n,))
    hidden.requires_grad_(), weight.requires_grad_()
    with Alive([hidden, weight, target]) as alive:
        token_log_probs(hidden, weight, target, 4 * n * at_one_time).sum().backward()
    gradients = 4 * (v * d + 2 * n * d)
    assert gradients < alive.most < gradients + 1.5 * 4 * n * at_one_time


@pytest.mark.parametrize(("tokens", "vocabulary"), [(504, 1024), (1016, 257)])
@pytest.mark.parametrize("masked", [0.0, 0.8])
def test_a_batch_of_a_micro_task_is_one_slice_with_the_bits_of_full_logits(
    tokens: int, vocabulary: int, masked: float
) -> None:
    """What was measured with one chunk of rows holds: the same products, the same sums, in the same order."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 32, requires_grad=True), torch.randn(vocabulary, 32, requires_grad=True)
    target, g = torch.randint(vocabulary, (tokens,)), torch.randn(tokens) * (torch.rand(tokens) >= masked)
    log_p = token_log_probs(hidden, weight, target)
    logits = hidden.detach() @ weight.detach().T
    log_sum_exp = logits.logsumexp(-1)
    assert torch.equal(log_p, logits.gather(-1, target[:, None]).squeeze(-1) - log_sum_exp)
    log_p.backward(g)
    kept = g.nonzero().squeeze(-1)
    h, t, g, lse = hidden.detach()[kept], target[kept], g[kept], log_sum_exp[kept]
    d_logits = (h @ weight.detach().T).sub(lse[:, None]).exp() * -g[:, None]
    d_logits.scatter_add_(-1, t[:, None], g[:, None])
    assert torch.equal(hidden.grad[kept], d_logits @ weight.detach())
    assert torch.equal(weight.grad, d_logits.T @ h)


@pytest.mark.parametrize("large", [1e30, 1e38])
def test_logits_beyond_float32_diverge_as_logsumexp_does(large: float) -> None:
    hidden, weight = torch.tensor([[large]]), torch.tensor([[large], [1.0], [0.0]])
    found = token_log_probs(hidden.repeat(2, 1), weight, torch.tensor([1, 0]), 1)
    assert found[0] == -torch.inf
    assert found[1].isnan()


def test_nothing_larger_than_the_inputs_is_saved_for_backward() -> None:
    hidden, weight, target = batch()
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        token_log_probs(hidden, weight, target, columns(4))
    assert saved
    assert max(saved) <= max(hidden.numel(), weight.numel())

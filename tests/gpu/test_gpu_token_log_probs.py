"""`token_log_probs` on the GPU against full logits: values, gradients, half precision, masks. Needs torch alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from collapsebench.token_log_probs import token_log_probs

pytestmark = pytest.mark.gpu

N, D, V = 300, 64, 1000
SLICES = 4 * N * 96  # bytes: eleven slices, the last one shorter


def batch(device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The same numbers on every device."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64) * 0.2
    target = torch.randint(V, (N,), generator=generator)
    return hidden.to(device, dtype).requires_grad_(), weight.to(device, dtype).requires_grad_(), target.to(device)


def exact(hidden: Tensor, weight: Tensor, target: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log p and both gradients from full logits in float64 on the processor."""
    h, w = (x.detach().double().cpu().requires_grad_() for x in (hidden, weight))
    log_p = (h @ w.T).log_softmax(-1).gather(-1, target.cpu()[:, None]).squeeze(-1)
    return (log_p.detach(), *torch.autograd.grad(log_p, (h, w), upstream.double().cpu()))


def upstream(device: str, masked: float) -> Tensor:
    """Gradients of the tokens, a share of which is 0 as for a loss that masks."""
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(N, generator=generator) * (torch.rand(N, generator=generator) >= masked)
    return grad.to(device)


def error(ours: Tensor, theirs: Tensor) -> float:
    """‖ours - theirs‖ / ‖theirs‖."""
    return float((ours.detach().double().cpu() - theirs).norm() / theirs.norm().clamp(min=1e-30))


# dtype: error of values, error of gradients
WITHIN = {torch.float64: (1e-12, 1e-12), torch.float32: (1e-5, 1e-5), torch.bfloat16: (1e-2, 2e-2)}


@pytest.mark.parametrize("logits_bytes", [1, SLICES, 2**26])
@pytest.mark.parametrize("dtype", WITHIN, ids=str)
@pytest.mark.parametrize("masked", [0.0, 0.8, 1.0])
def test_values_and_gradients_are_those_of_full_logits(
    device: str, dtype: torch.dtype, masked: float, logits_bytes: int
) -> None:
    if logits_bytes == 1 and (dtype, masked) != (torch.float32, 0.8):
        pytest.skip("a slice for every word once")
    hidden, weight, target = batch(device, dtype)
    grad = upstream(device, masked)
    log_p = token_log_probs(hidden, weight, target, logits_bytes)
    assert log_p.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    gradients = torch.autograd.grad(log_p, (hidden, weight), grad.to(log_p.dtype))
    assert [g.dtype for g in gradients] == [dtype, dtype]
    expected = exact(hidden, weight, target, grad)
    values_within, gradients_within = WITHIN[dtype]
    assert error(log_p, expected[0]) < values_within
    for ours, theirs in zip(gradients, expected[1:], strict=True):
        assert error(ours, theirs) < gradients_within
    assert not gradients[0][grad == 0].any()


def test_tf32_is_within_its_rounding(device: str) -> None:
    torch.set_float32_matmul_precision("high")  # put back by the fixture
    hidden, weight, target = batch(device, torch.float32)
    grad = upstream(device, 0.0)
    log_p = token_log_probs(hidden, weight, target, SLICES)
    gradients = torch.autograd.grad(log_p, (hidden, weight), grad)
    expected = exact(hidden, weight, target, grad)
    for ours, theirs in zip((log_p, *gradients), expected, strict=True):
        assert error(ours, theirs) < 5e-3


def test_autocast_is_within_the_rounding_of_bfloat16_in_both_passes(device: str) -> None:
    hidden, weight, target = batch(device, torch.float32)
    grad = upstream(device, 0.5)
    with torch.autocast(device.split(":")[0], torch.bfloat16):
        log_p = token_log_probs(hidden, weight, target, SLICES)
    gradients = torch.autograd.grad(log_p, (hidden, weight), grad)
    assert [g.dtype for g in gradients] == [torch.float32, torch.float32]
    expected = exact(hidden, weight, target, grad)
    for ours, theirs, within in zip((log_p, *gradients), expected, (1e-2, 2e-2, 2e-2), strict=True):
        assert 1e-5 < error(ours, theirs) < within


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_every_time_with_deterministic_algorithms(device: str, dtype: torch.dtype) -> None:
    torch.use_deterministic_algorithms(True)
    hidden, weight, target = batch(device, dtype)
    grad = upstream(device, 0.5)
    found = []
    for _ in range(3):
        log_p = token_log_probs(hidden, weight, target, SLICES)
        found.append((log_p, *torch.autograd.grad(log_p, (hidden, weight), grad)))
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))

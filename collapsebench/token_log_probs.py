"""Log-probabilities of target tokens without materialising the logits.

A language-model head maps hidden states (N, D) to logits (N, V); for large vocabularies those logits and their
gradient dominate the memory of training. `token_log_probs` returns only ``log softmax(hidden @ weight.T)[target]``,
computed slice by slice of the vocabulary: the forward pass keeps one log-sum-exp per token, the backward pass
recomputes each slice and writes its rows of the weight's gradient once, so that no second copy of that gradient exists.
So *any* loss that is a function of log p trains with the memory of a fused cross-entropy kernel (compare Cut Cross
Entropy, arXiv 2411.09009). Tokens whose loss has no gradient (masked by the method) cost nothing in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOGITS_BYTES = 64 * 2**20


def token_log_probs(hidden: Tensor, weight: Tensor, target: Tensor, logits_bytes: int = LOGITS_BYTES) -> Tensor:
    """Return log-probabilities (natural log, float32) of `target` under ``softmax(hidden @ weight.T)``.

    Args:
        hidden: (..., D) final hidden states, any floating dtype; products are computed in this dtype, or in that of
            `torch.autocast` where it is on.
        weight: (V, D) output embedding, same dtype as `hidden`.
        target: (...) int64 token ids in [0, V), same leading shape as `hidden`.
        logits_bytes: largest size of the logits that exist at one time, in the dtype of the result (but at least one
            column). The result does not depend on it beyond rounding.

    Returns:
        (...) float32 log-probabilities (float64 for float64), differentiable in `hidden` and `weight` (once).

    Raises:
        ValueError: the shapes do not fit each other, or `logits_bytes` is below 1.
    """
    if logits_bytes < 1:
        raise ValueError(f"logits_bytes={logits_bytes} is not allowed; choose at least 1.")
    if weight.ndim != 2 or hidden.shape[:-1] != target.shape or hidden.shape[-1:] != weight.shape[-1:]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and target {tuple(target.shape)} do not "
            "fit: expected (..., D), (V, D) and (...)."
        )
    hidden, weight = _as_autocast_wants(hidden), _as_autocast_wants(weight)
    flat = _TokenLogProbs.apply(hidden.reshape(-1, hidden.shape[-1]), weight, target.reshape(-1), logits_bytes)
    return flat.view(target.shape)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, logits_bytes: int) -> Tensor:
        at_target = torch.zeros(target.shape, dtype=_accumulate_in(hidden), device=hidden.device)
        log_sum_exp = torch.full_like(at_target, -torch.inf)
        for words in _slices(weight, at_target, logits_bytes):
            logits = (hidden @ weight[words].T).to(at_target.dtype)
            column, here = _within(words, target)
            at_target += torch.where(here, logits.gather(-1, column[:, None]).squeeze(-1), 0)
            log_sum_exp = torch.logaddexp(log_sum_exp, _log_sum_exp_(logits))
            del logits  # otherwise it would still exist while the next one is computed
        ctx.save_for_backward(hidden, weight, target, log_sum_exp)
        ctx.logits_bytes = logits_bytes
        return at_target.sub_(log_sum_exp)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, target, log_sum_exp = ctx.saved_tensors
        kept = _with_gradient(grad)
        all_kept = kept.numel() == grad.numel()
        h, t, lse, g = (x if all_kept else x[kept] for x in (hidden, target, log_sum_exp, grad))
        grad_h = torch.zeros(h.shape, dtype=grad.dtype, device=h.device)
        grad_weight = torch.empty_like(weight)
        for words in _slices(weight, g, ctx.logits_bytes):
            d_logits = _logits_gradient(h, weight[words], *_within(words, t), lse, g)
            grad_h += d_logits @ weight[words]
            torch.mm(d_logits.T, h, out=grad_weight[words])
            del d_logits
        grad_h = grad_h.to(hidden.dtype)
        grad_hidden = grad_h if all_kept else torch.zeros_like(hidden).index_copy_(0, kept, grad_h)
        return grad_hidden, grad_weight, None, None


def _with_gradient(grad: Tensor) -> Tensor:
    """Indices of tokens with a gradient; the others need no recomputation. Synchronises a GPU to know their number."""
    return grad.nonzero().squeeze(-1)


def _log_sum_exp_(logits: Tensor) -> Tensor:
    """`torch.logsumexp` over the last dimension, bit for bit, computed in place instead of in a copy of the logits."""
    largest = logits.amax(-1)
    largest.masked_fill_(largest.isinf(), 0)  # inf - inf would be no number
    return logits.sub_(largest[:, None]).exp_().sum(-1).log_().add_(largest)


def _logits_gradient(h: Tensor, weight: Tensor, column: Tensor, here: Tensor, lse: Tensor, g: Tensor) -> Tensor:
    """Gradient g of log p passed on to the logits of a slice: g (onehot(target) - softmax(logits)), in h's dtype."""
    logits = (h @ weight.T).to(g.dtype)
    d_logits = logits.sub_(lse[:, None]).exp_().mul_(-g[:, None])
    d_logits.scatter_add_(-1, column[:, None], torch.where(here, g, 0)[:, None])
    return d_logits.to(h.dtype)


def _as_autocast_wants(tensor: Tensor) -> Tensor:
    """Cast to the dtype of `torch.autocast` where it is on, as autocast does not reach the backward pass's products."""
    device = tensor.device.type
    if tensor.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


def _accumulate_in(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _slices(weight: Tensor, per_token: Tensor, logits_bytes: int) -> list[slice]:
    """Rows of `weight` whose logits, one for each of `per_token` and of its dtype, fill at most `logits_bytes`."""
    n = len(weight)
    size = max(1, logits_bytes // max(1, per_token.numel() * per_token.element_size()))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _within(words: slice, target: Tensor) -> tuple[Tensor, Tensor]:
    """Each target's column in a slice of the vocabulary, and whether it is in the slice; no host synchronisation."""
    column = target - words.start
    here = (column >= 0) & (column < words.stop - words.start)
    return column.clamp_(0, words.stop - words.start - 1), here

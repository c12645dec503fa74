"""Log-probabilities of target tokens without materialising the logits.

A language-model head maps hidden states (N, D) to logits (N, V); for large vocabularies those logits and their
gradient dominate the memory of training. `token_log_probs` returns only ``log softmax(hidden @ weight.T)[target]``,
computed chunk by chunk: the forward pass keeps one log-sum-exp per token, the backward pass recomputes each chunk.
So *any* loss that is a function of log p trains with the memory of a fused cross-entropy kernel (compare Cut Cross
Entropy, arXiv 2411.09009), and tokens whose loss has no gradient (masked by the method) cost nothing in backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DEFAULT_CHUNK = 1024


def token_log_probs(hidden: Tensor, weight: Tensor, target: Tensor, chunk_size: int = DEFAULT_CHUNK) -> Tensor:
    """Return log-probabilities (natural log, float32) of `target` under ``softmax(hidden @ weight.T)``.

    Args:
        hidden: (..., D) final hidden states, any floating dtype; products are taken in this dtype.
        weight: (V, D) output embedding, same dtype as `hidden`.
        target: (...) int64 token ids in [0, V), same leading shape as `hidden`.
        chunk_size: tokens whose logits exist at one time; the result does not depend on it beyond rounding.

    Returns:
        (...) float32 log-probabilities, differentiable in `hidden` and `weight` (once).

    Raises:
        ValueError: the shapes do not fit each other, or `chunk_size` is below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} is not allowed; choose at least 1.")
    if weight.ndim != 2 or hidden.shape[:-1] != target.shape or hidden.shape[-1:] != weight.shape[-1:]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and target {tuple(target.shape)} do not "
            "fit: expected (..., D), (V, D) and (...)."
        )
    flat = _TokenLogProbs.apply(hidden.reshape(-1, hidden.shape[-1]), weight, target.reshape(-1), chunk_size)
    return flat.view(target.shape)


class _TokenLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, chunk_size: int) -> Tensor:
        log_p = torch.empty(target.shape, dtype=_accumulate_in(hidden), device=hidden.device)
        log_sum_exp = torch.empty_like(log_p)
        for rows in _chunks(len(target), chunk_size):
            logits = (hidden[rows] @ weight.T).to(log_p.dtype)
            torch.logsumexp(logits, dim=-1, out=log_sum_exp[rows])
            log_p[rows] = logits.gather(-1, target[rows, None]).squeeze(-1) - log_sum_exp[rows]
        ctx.save_for_backward(hidden, weight, target, log_sum_exp)
        ctx.chunk_size = chunk_size
        return log_p

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, target, log_sum_exp = ctx.saved_tensors
        kept = grad.nonzero().squeeze(-1)  # a token without gradient needs no recomputation
        all_kept = kept.numel() == grad.numel()
        h, t, lse, g = (x if all_kept else x[kept] for x in (hidden, target, log_sum_exp, grad))
        grad_h = torch.empty_like(h)
        grad_weight = torch.zeros(weight.shape, dtype=grad.dtype, device=weight.device)
        for rows in _chunks(len(t), ctx.chunk_size):
            logits = (h[rows] @ weight.T).to(grad.dtype)
            # d log p_t / d logits = onehot(t) - softmax(logits)
            d_logits = logits.sub_(lse[rows, None]).exp_().mul_(-g[rows, None])
            d_logits.scatter_add_(-1, t[rows, None], g[rows, None])
            d_logits = d_logits.to(hidden.dtype)
            grad_h[rows] = d_logits @ weight
            grad_weight += d_logits.T @ h[rows]
        grad_hidden = grad_h if all_kept else torch.zeros_like(hidden).index_copy_(0, kept, grad_h)
        return grad_hidden, grad_weight.to(weight.dtype), None, None


def _accumulate_in(hidden: Tensor) -> torch.dtype:
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _chunks(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]

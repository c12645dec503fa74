"""A language model's predictions of given text: losses, hits, entropies, and log-probabilities of continuations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from collapsebench.token_log_probs import token_log_probs

_CHUNK = 1024  # tokens whose logits are held at a time


@dataclass(frozen=True)
class Predictions:
    """Per predicted token, flattened over windows.

    Attributes:
        loss: negative log-probability of the real token, in nats. hit: whether it was the most likely one.
        entropy: entropy of the predicted distribution, in nats. All (N,) on the CPU.
    """

    loss: Tensor
    hit: Tensor
    entropy: Tensor


@torch.inference_mode()
def predict(
    model: PreTrainedModel, windows: Tensor, batch_size: int, on_batch: Callable[[int], None] = lambda _: None
) -> Predictions:
    """Predict every token of every window except its first.

    Args:
        model: a decoder-only `transformers` model in evaluation mode.
        windows: (n, T) int64 on the CPU. batch_size: windows at a time.
        on_batch: called with the number of tokens after every batch.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    head = model.get_output_embeddings().weight
    for batch in windows.split(batch_size):
        batch = batch.to(model.device)
        hidden = model.base_model(batch, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        for h, t in zip(hidden.split(_CHUNK), batch[:, 1:].flatten().split(_CHUNK), strict=True):
            logits = (h @ head.T).float()
            largest, guess = logits.max(-1)
            target = logits.gather(-1, t[:, None]).squeeze(-1)
            weights = logits.sub(largest[:, None]).exp_()  # one exponential for loss and entropy
            total = weights.sum(-1)
            log_sum_exp = largest + total.log()
            entropy = log_sum_exp - torch.linalg.vecdot(weights, logits) / total
            parts.append((log_sum_exp - target, guess == t, entropy))
        on_batch(batch.numel())
    return Predictions(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))  # synchronises a GPU once


@torch.inference_mode()
def continuation_log_probs(
    model: PreTrainedModel,
    tokens: Tensor,
    spans: Tensor,
    batch_size: int,
    on_batch: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Total log-probability of a span of each sequence, given the tokens before it.

    Args:
        model: a decoder-only `transformers` model in evaluation mode.
        tokens: (n, T) int64, padded on the right with anything.
        spans: (n, 2) int64, first and one-past-last scored position; first ≥ 1.
        batch_size: sequences at a time. on_batch: called with the number of tokens after every batch.

    Returns:
        (n,) float64, nats.
    """
    totals = torch.empty(len(tokens), dtype=torch.float64)
    head = model.get_output_embeddings().weight
    for rows in spans[:, 1].argsort(stable=True).split(batch_size):  # batches of similar lengths need little padding
        span = spans[rows]
        batch = tokens[rows, : int(span[:, 1].max())].to(model.device)
        hidden = model.base_model(batch, use_cache=False).last_hidden_state[:, :-1]
        position = torch.arange(1, batch.shape[1])
        scored = (position >= span[:, :1]) & (position < span[:, 1:])
        where = scored.to(model.device)
        log_p = torch.zeros(scored.shape, dtype=torch.float64)
        log_p[scored] = token_log_probs(hidden[where], head, batch[:, 1:][where]).double().cpu()
        totals[rows] = log_p.sum(-1)
        on_batch(batch.numel())
    return totals

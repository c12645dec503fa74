"""A causal language model's view of token windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel, masking_utils

from collapsebench.token_log_probs import token_log_probs
from collapsebench.workloads.objective import Observed

_LOOK = "find_packed_sequence_indices"


def observe_tokens(model: PreTrainedModel, tokens: Tensor, full: bool, half: torch.dtype | None = None) -> Observed:
    """Log-probabilities of all tokens after the first, given the tokens before them.

    Args:
        tokens: (n, T) int64 on the model's device.
        full: also return logits and targets, for losses that need them; the logits are then materialised.
        half: dtype of the logits where `torch.autocast` has no effect, on the meta device.

    Returns:
        `Observed` with log p of shape (n, T - 1).
    """
    target = tokens[:, 1:]
    with one_text_per_row():
        hidden = model.base_model(tokens, use_cache=False).last_hidden_state[:, :-1]
    if half is not None:
        hidden = hidden.to(half)
    head = model.get_output_embeddings().weight.to(hidden.dtype)  # some models return half floats under autocast
    if not full:
        return Observed(token_log_probs(hidden, head, target))
    logits = (hidden @ head.T).float()
    log_p = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return Observed(log_p, target=target, prediction=logits, logits=logits)


@contextmanager
def one_text_per_row() -> Iterator[None]:
    """Skip the check of `transformers` for several texts packed into one row, which synchronises the device.

    Windows are never packed, so the check's result for them, None, is returned immediately.
    """
    look = getattr(masking_utils, _LOOK, None)
    if look is None:  # a version without this check
        yield
        return
    setattr(masking_utils, _LOOK, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(masking_utils, _LOOK, look)

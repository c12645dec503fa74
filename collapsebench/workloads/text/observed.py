"""How a causal language model sees windows of tokens."""

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
    """Log-probabilities of the tokens after the first, given those before.

    Args:
        tokens: (n, T) int64 on the model's device.
        full: also give logits and targets, for losses that ask; the logits are then materialised.
        half: what the logits are computed in, where `torch.autocast` does not say it: on the meta device.

    Returns:
        `Observed` with log p of (n, T - 1).
    """
    target = tokens[:, 1:]
    with one_text_per_row():
        hidden = model.base_model(tokens, use_cache=False).last_hidden_state[:, :-1]
    if half is not None:
        hidden = hidden.to(half)
    head = model.get_output_embeddings().weight.to(hidden.dtype)  # some models give half floats under autocast
    if not full:
        return Observed(token_log_probs(hidden, head, target))
    logits = (hidden @ head.T).float()
    log_p = logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return Observed(log_p, target=target, prediction=logits, logits=logits)


@contextmanager
def one_text_per_row() -> Iterator[None]:
    """Keep `transformers` from looking whether rows are several texts packed together: the host waits for the answer.

    Windows are not, and what it gives then, None, is given at once.
    """
    look = getattr(masking_utils, _LOOK, None)
    if look is None:  # a version that does not look
        yield
        return
    setattr(masking_utils, _LOOK, lambda *_, **__: None)
    try:
        yield
    finally:
        setattr(masking_utils, _LOOK, look)

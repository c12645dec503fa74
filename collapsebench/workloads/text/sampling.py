"""Sampling from a causal language model: large batches, one preallocated key-value cache, explicit noise.

`transformers.generate` draws from the global random state, so its output depends on the batch size and on previous
draws. Here the noise is an argument, one uniform number per sampled token. The same noise gives the same samples for
every batch size, and methods that share a seed share their noise.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

CACHED = 24 * 2**20
"""Bytes of keys and values that a CPU rereads at every token: about the size of its caches."""


class PreallocatedLayer(DynamicLayer):
    """A key-value cache layer that writes in place and gives attention a view of the filled part.

    `DynamicLayer` copies the whole cache at every token; `StaticLayer` also attends to its unfilled end. Batch size
    and heads are taken from the first update.
    """

    def __init__(self, max_length: int):
        super().__init__()
        self.max_length = max_length

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            batch, heads, _, width = key_states.shape
            self._keys = key_states.new_empty(batch, heads, self.max_length, width)
            self._values = value_states.new_empty(batch, heads, self.max_length, value_states.shape[-1])
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.keys, self.values = self._keys[:, :, :end], self._values[:, :, :end]
        return self.keys, self.values


def rows_at_once(model: PreTrainedModel, length: int, most: int) -> int:
    """The best number of sequences of `length` tokens to continue together, at most `most`.

    On a CPU it is limited so that keys and values fit into the caches. The samples do not change.
    """
    if model.device.type != "cpu":
        return most
    config = model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_row = 2 * config.num_hidden_layers * heads * width * length * model.dtype.itemsize
    return max(1, min(most, CACHED // a_row))


@torch.inference_mode()
def sample_continuations(
    model: PreTrainedModel,
    prompts: Tensor,
    noise: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Continue every prompt by one token per column of `noise`.

    Args:
        model: a decoder-only `transformers` model; call ``.eval()`` on it before.
        prompts: (B, P) int64 token ids, P ≥ 1, no padding.
        noise: (B, T) float64 in [0, 1), one uniform draw per new token.
        temperature: divisor of the logits; 0 means greedy.
        top_k: keep the k most likely tokens.
        top_p: keep the smallest set of tokens whose probability reaches p (Holtzman et al., arXiv 1904.09751).

    Returns:
        (B, T) int64, the continuations without their prompts.
    """
    new_tokens = noise.shape[1]
    layers = [PreallocatedLayer(prompts.shape[1] + new_tokens) for _ in range(model.config.num_hidden_layers)]
    cache = Cache(layers=layers)
    out = torch.empty(noise.shape, dtype=torch.int64, device=prompts.device)
    step_input = prompts
    head = model.get_output_embeddings()
    for t in range(new_tokens):
        hidden = model.base_model(step_input, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        out[:, t] = draw(head(hidden), noise[:, t], temperature, top_k, top_p)
        step_input = out[:, t : t + 1]
    return out


def draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution at `uniform`.

    Args:
        logits: (B, V). uniform: (B,) in [0, 1). Other arguments as in `sample_continuations`.

    Returns:
        (B,) int64 token ids.
    """
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        threshold = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    p = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        sorted_p, order = p.sort(-1, descending=True)
        tail = _cumulated(sorted_p) - sorted_p >= top_p  # the token that crosses p is kept
        p = p.masked_fill(tail.scatter(-1, order, tail), 0.0)
    cdf = _cumulated(p)
    # The first index whose cumulative probability exceeds the draw, never one of probability zero.
    point = (uniform.to(p.dtype).to(cdf.dtype) * cdf[:, -1])[:, None]
    last = (p > 0).to(torch.int8).cumsum(-1).argmax(-1)
    return torch.searchsorted(cdf, point, right=True).squeeze(-1).minimum(last)


def _cumulated(p: Tensor) -> Tensor:
    return cumulated_in_integers(p) if p.is_cuda else p.cumsum(-1)


def cumulated_in_integers(p: Tensor) -> Tensor:
    """Cumulative probabilities, (B, V) float64, in steps of 2⁻⁵⁰, independent of the order of the additions.

    On a GPU this order differs from run to run for a single row, and older versions of torch refuse a cumulative sum
    of floats there under deterministic algorithms.
    """
    return (p.double() * 2.0**50).long().cumsum(-1).double() * 2.0**-50

"""Generates chunks of text after given contexts: rewrites a training stream, or continues windows.

In ForTIFAI (arXiv 2509.08972) a stream is rewritten chunk by chunk. The context is always the stream that the
generation was trained on, never text that was just written. In Drayson et al. (arXiv 2502.15654) the beginning of
each window of text is continued.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from collapsebench.workloads.pretrained.settings import StreamSampler
from collapsebench.workloads.text.sampling import draw


class DrawByNoise(LogitsProcessor):
    """Turns greedy decoding into sampling: sets all scores to minus infinity except that of the token drawn by `noise`.

    `transformers.generate` draws from the global random state. Here one uniform number per token decides, for any
    batch size and any cache that the model's architecture needs.
    """

    def __init__(self, noise: Tensor, prompt: int, sampler: StreamSampler):
        self.noise = noise
        self.prompt = prompt
        self.sampler = sampler

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        step = input_ids.shape[1] - self.prompt
        chosen = draw(scores, self.noise[:, step], self.sampler.temperature, None, self.sampler.top_p)
        kept = torch.full_like(scores, -torch.inf)
        return kept.scatter_(1, chosen[:, None], 0.0)  # type: ignore[return-value]


def contexts_of(stream: Tensor, sampler: StreamSampler) -> Tensor:
    """The tokens before every chunk of a stream.

    Args:
        stream: (N,) token ids, N a multiple of the chunk length. The first chunks have too few tokens before them, so
            their contexts wrap around to the end of the stream. All contexts have the length min(context, N).

    Returns:
        (chunks, context) token ids.
    """
    length = min(sampler.context, len(stream))
    starts = torch.arange(0, len(stream), sampler.new_tokens)
    return stream[(starts[:, None] - length + torch.arange(length)) % len(stream)]


def beginnings_of(windows: Tensor, sampler: StreamSampler) -> Tensor:
    """The first tokens of windows (n, block), to be continued: (n, context) token ids."""
    return windows[:, : sampler.context]


@torch.inference_mode()
def rewrite_stream(
    model: PreTrainedModel,
    contexts: Tensor,
    noise: Tensor | None,
    sampler: StreamSampler,
    on_tokens: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Generate a chunk after every context.

    Args:
        model: a causal language model in evaluation mode.
        contexts: (n, C) token ids on the CPU. noise: (n, new_tokens) uniform numbers, for ``draw`` only.
        on_tokens: called with the number of new tokens after every batch.

    Returns:
        (n, new_tokens) int64 on the CPU.
    """
    written = []
    for start in range(0, len(contexts), sampler.batch_size):
        batch = contexts[start : start + sampler.batch_size].long().to(model.device)
        arguments: dict[str, Any] = {"attention_mask": torch.ones_like(batch), "use_cache": True, "do_sample": False}
        arguments |= {"min_new_tokens": sampler.new_tokens, "max_new_tokens": sampler.new_tokens}
        if sampler.method == "beam":
            arguments |= {"num_beams": sampler.beams, "repetition_penalty": sampler.repetition_penalty}
            arguments |= {"past_key_values": _read_once(model, batch, sampler.beams)}
        else:
            assert noise is not None, "draws need noise"
            part = noise[start : start + sampler.batch_size].float().to(model.device)  # MPS has no float64
            arguments |= {"logits_processor": LogitsProcessorList([DrawByNoise(part, batch.shape[1], sampler)])}
        out = model.generate(batch, **arguments)[:, batch.shape[1] :]
        written.append(out.cpu())
        on_tokens(out.numel())
    return torch.cat(written)


def _read_once(model: PreTrainedModel, batch: Tensor, beams: int) -> DynamicCache:
    """Cache of contexts (n, C) without their last token, shared by all beams; `generate` would read them per beam."""
    cache = DynamicCache(config=model.config)
    if batch.shape[1] > 1:
        model.base_model(batch[:, :-1], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(beams)
    return cache

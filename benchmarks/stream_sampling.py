"""Rewriting a stream with beams, compared with `model.generate` alone, which reads every context once per beam.

    python benchmarks/stream_sampling.py [--contexts 16] [--model PATH]

Uses a model of SmolLM2-135M's shape with random weights (or one from a folder) and the sampler of
text-wikitext2-smollm2: contexts of 512 tokens, 32 new tokens, 5 beams. Prints tokens per second, their ratio, and
whether the texts are equal. Takes about three minutes on one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from collapsebench.task import load_task
from collapsebench.workloads.pretrained.sampling import rewrite_stream
from collapsebench.workloads.pretrained.settings import StreamSampler


def main() -> None:
    """Run both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help="folder of a model; random weights when absent")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_task("text-wikitext2-smollm2").spec.workload
    sampler = settings.sampler.model_copy(update={"batch_size": arguments.contexts})
    model = AutoModelForCausalLM.from_pretrained(arguments.model) if arguments.model else smollm2()
    model.eval()
    shape = (arguments.contexts, sampler.context)
    contexts = torch.randint(3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    ways: dict[str, Callable[[], Tensor]] = {
        "collapsebench": lambda: rewrite_stream(model, contexts, None, sampler),
        "transformers": lambda: generate(model, contexts, sampler),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    texts = {}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            texts[name] = way()
            seconds[name].append(time.perf_counter() - start)
    here, there = (min(seconds[name]) for name in ways)
    tokens = texts["collapsebench"].numel()
    print(f"collapsebench {tokens / here:,.1f} tokens/s, transformers {tokens / there:,.1f}, ratio {there / here:.2f}x")
    print("equal texts" if torch.equal(*texts.values()) else "texts differ")


def smollm2() -> PreTrainedModel:
    """A model with the task's shape and random weights."""
    settings = load_task("text-wikitext2-smollm2").spec.workload
    shape = settings.model.architecture
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            initializer_range=0.1,
            tie_word_embeddings=True,
            pad_token_id=0,
        )
    )


@torch.inference_mode()
def generate(model: PreTrainedModel, contexts: Tensor, sampler: StreamSampler) -> Tensor:
    """The usual code with `model.generate`."""
    out = model.generate(
        contexts,
        attention_mask=torch.ones_like(contexts),
        do_sample=False,
        num_beams=sampler.beams,
        repetition_penalty=sampler.repetition_penalty,
        min_new_tokens=sampler.new_tokens,
        max_new_tokens=sampler.new_tokens,
    )
    return out[:, contexts.shape[1] :]


if __name__ == "__main__":
    main()

"""Rewriting a stream: beams are those of transformers, draws those of the noise, contexts those of the stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import write_tiny_task
from torch import Tensor
from transformers import (
    DynamicCache,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from collapsebench.api import run
from collapsebench.task import load_task
from collapsebench.workloads import load_workload
from collapsebench.workloads.pretrained.sampling import beginnings_of, contexts_of, rewrite_stream
from collapsebench.workloads.pretrained.settings import StreamSampler
from collapsebench.workloads.text.sampling import sample_continuations

pytestmark = pytest.mark.usefixtures("one_thread")

VOCABULARY, CONTEXT, NEW = 60, 12, 8
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "tie_word_embeddings": False, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
BEAM = StreamSampler(method="beam", context=CONTEXT, new_tokens=NEW, beams=5, repetition_penalty=3.0, batch_size=3)
DRAW = StreamSampler(method="draw", context=CONTEXT, new_tokens=NEW, temperature=0.8, top_p=0.9, batch_size=3)


def llama() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **COMMON))


def gemma() -> Gemma3ForCausalLM:
    """Sees a window of 5 tokens in its first layer, fewer than the context."""
    kinds = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 5}
    return Gemma3ForCausalLM(
        Gemma3TextConfig(num_hidden_layers=2, head_dim=8, query_pre_attn_scalar=8, **kinds, **COMMON)
    )


def gpt2() -> GPT2LMHeadModel:
    """Its positions are learned, and are just enough."""
    shape = {"n_positions": CONTEXT + NEW, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.3}
    ids = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape, **ids))


@pytest.fixture(scope="module", params=[llama, gemma, gpt2])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return request.param().eval()


@pytest.fixture(scope="module")
def contexts() -> Tensor:
    return torch.randint(1, VOCABULARY, (7, CONTEXT), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.rand(7, NEW, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def changed(sampler: StreamSampler, **changes: object) -> StreamSampler:
    return StreamSampler.model_validate(sampler.model_dump() | changes)


def generated(model: PreTrainedModel, contexts: Tensor, **arguments: Any) -> Tensor:
    """What transformers writes by itself, one context after the other."""
    arguments = {"do_sample": False, "min_new_tokens": NEW, "max_new_tokens": NEW, **arguments}
    rows = [model.generate(c[None], attention_mask=torch.ones_like(c[None]), **arguments) for c in contexts]
    return torch.cat(rows)[:, contexts.shape[1] :]


# Beams


@pytest.mark.parametrize(("beams", "penalty"), [(5, 3.0), (3, 1.0), (1, 1.5)])
def test_beams_are_those_of_transformers_token_for_token(
    model: PreTrainedModel, contexts: Tensor, beams: int, penalty: float
) -> None:
    ours = rewrite_stream(model, contexts, None, changed(BEAM, beams=beams, repetition_penalty=penalty))
    theirs = generated(model, contexts, num_beams=beams, repetition_penalty=penalty)
    assert ours.tolist() == theirs.tolist()
    assert len({tuple(row) for row in ours.tolist()}) >= 6
    assert len(set(ours.flatten().tolist())) > 10


def test_contexts_are_read_once_and_not_once_per_beam(model: PreTrainedModel, contexts: Tensor) -> None:
    read: list[tuple[int, int]] = []
    first = (model.base_model.h if isinstance(model, GPT2LMHeadModel) else model.base_model.layers)[0]
    hook = first.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].shape[:2]))
    rewrite_stream(model, contexts[:3], None, BEAM)
    hook.remove()
    assert read == [(3, CONTEXT - 1)] + [(3 * 5, 1)] * NEW


def test_window_of_the_cache_is_shorter_than_the_context(contexts: Tensor) -> None:
    """Else the comparison with Gemma would say nothing about caches that forget."""
    cache = DynamicCache(config=gemma().config)
    gemma().base_model(contexts[:, :-1], past_key_values=cache, use_cache=True)
    assert [layer.keys.shape[2] for layer in cache.layers] == [4, CONTEXT - 1]


def test_context_of_one_token_is_enough(model: PreTrainedModel, contexts: Tensor, noise: Tensor) -> None:
    one = contexts[:, :1]
    ours = rewrite_stream(model, one, None, BEAM)
    assert ours.tolist() == generated(model, one, num_beams=5, repetition_penalty=3.0).tolist()
    drawn = rewrite_stream(model, one, noise, DRAW)
    assert drawn.tolist() == without_cache(model, one, noise, DRAW).tolist()


@pytest.mark.parametrize("sampler", [BEAM, DRAW], ids=["beam", "draw"])
def test_chunks_do_not_depend_on_the_batch_size(
    model: PreTrainedModel, contexts: Tensor, noise: Tensor, sampler: StreamSampler
) -> None:
    told: dict[int, list[int]] = {size: [] for size in (1, 2, 7, 16)}
    found = [
        rewrite_stream(model, contexts, noise, changed(sampler, batch_size=size), on_tokens.append)
        for size, on_tokens in told.items()
    ]
    assert all(torch.equal(chunks, found[0]) for chunks in found)
    assert found[0].shape == (7, NEW)
    assert found[0].dtype == torch.int64
    assert told == {1: [NEW] * 7, 2: [2 * NEW] * 3 + [NEW], 7: [7 * NEW], 16: [7 * NEW]}


# Draws


def without_cache(model: PreTrainedModel, contexts: Tensor, noise: Tensor, sampler: StreamSampler) -> Tensor:
    """Sampling as it is written down: the whole sequence again for every token."""
    sequences = contexts
    for t in range(noise.shape[1]):
        with torch.no_grad():
            p = (model(sequences, use_cache=False).logits[:, -1] / sampler.temperature).softmax(-1)
        chosen = [pick(row, float(u), sampler.top_p) for row, u in zip(p, noise[:, t], strict=True)]
        sequences = torch.cat([sequences, torch.tensor(chosen)[:, None]], dim=1)
    return sequences[:, contexts.shape[1] :]


def pick(p: Tensor, u: float, top_p: float | None) -> int:
    """Keep the most likely tokens until they reach top_p; in the order of their ids, the one at u of the rest."""
    kept, mass = set(), 0.0
    for token in p.argsort(descending=True).tolist():
        if top_p is not None and mass >= top_p:
            break
        kept.add(token)
        mass += float(p[token])
    position = u * sum(float(p[token]) for token in kept)
    for token in sorted(kept):
        position -= float(p[token])
        if position < 0:
            break
    return token


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, None), (0.8, 0.9), (1.5, 0.5)])
def test_draws_are_what_the_noise_selects(
    model: PreTrainedModel, contexts: Tensor, noise: Tensor, temperature: float, top_p: float | None
) -> None:
    sampler = changed(DRAW, temperature=temperature, top_p=top_p)
    ours = rewrite_stream(model, contexts, noise, sampler)
    assert ours.tolist() == without_cache(model, contexts, noise, sampler).tolist()
    assert len(set(ours.flatten().tolist())) > 10


def test_draws_are_those_of_the_text_workload(contexts: Tensor, noise: Tensor) -> None:
    torch.manual_seed(0)
    model = llama().eval()
    ours = rewrite_stream(model, contexts, noise, DRAW)
    theirs = sample_continuations(model, contexts, noise, temperature=0.8, top_p=0.9)
    assert ours.tolist() == theirs.tolist()


def test_draws_ignore_the_global_random_state(model: PreTrainedModel, contexts: Tensor, noise: Tensor) -> None:
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        found.append(rewrite_stream(model, contexts, noise, DRAW))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*found)
    assert not torch.equal(rewrite_stream(model, contexts, noise.flip(0), DRAW), found[0])


@pytest.mark.parametrize("sampler", [BEAM, changed(DRAW, top_p=None)], ids=["beam", "draw"])
def test_end_of_text_is_never_written_however_likely(contexts: Tensor, noise: Tensor, sampler: StreamSampler) -> None:
    torch.manual_seed(0)
    model = llama().eval()
    free = rewrite_stream(model, contexts, noise, sampler)
    model.generation_config.eos_token_id = end = int(free.flatten().mode().values)
    written = rewrite_stream(model, contexts, noise, sampler)
    assert written.shape == (7, NEW)
    assert not bool((written == end).any())


# Contexts


def test_every_chunk_is_given_the_tokens_before_it() -> None:
    stream = torch.arange(100, 112)
    sampler = StreamSampler(method="beam", context=5, new_tokens=3)
    assert contexts_of(stream, sampler).tolist() == [
        [107, 108, 109, 110, 111],  # the end of the stream, for nothing is before its beginning
        [110, 111, 100, 101, 102],
        [101, 102, 103, 104, 105],
        [104, 105, 106, 107, 108],
    ]


def test_a_window_is_continued_after_its_beginning() -> None:
    sampler = StreamSampler(method="draw", context=2, new_tokens=3)
    assert beginnings_of(torch.arange(6).view(2, 3), sampler).tolist() == [[0, 1], [3, 4]]


def test_contexts_are_no_longer_than_the_stream() -> None:
    stream = torch.arange(100, 104)
    sampler = StreamSampler(method="beam", context=9, new_tokens=2)
    assert contexts_of(stream, sampler).tolist() == [[100, 101, 102, 103], [102, 103, 100, 101]]


def test_one_token_of_context_is_the_token_before_each_chunk() -> None:
    sampler = StreamSampler(method="draw", context=1, new_tokens=2)
    assert contexts_of(torch.arange(100, 106), sampler).tolist() == [[105], [101], [103]]


def test_contexts_are_the_stream_of_the_generation_and_never_what_it_has_just_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def watching(model: PreTrainedModel, contexts: Tensor, *more: Any) -> Tensor:
        seen.append(contexts)
        return rewrite_stream(model, contexts, *more)

    monkeypatch.setattr("collapsebench.workloads.pretrained.workload.rewrite_stream", watching)
    task = write_tiny_task(tmp_path, "pretrained-lm", **{"horizon": 1, "policy.size": 8})
    path = run(task, "ce", out=tmp_path / "runs", device="cpu")
    real = load_workload(load_task(task), "cpu").real.items
    rewritten = load_file(path / "gen-0" / "samples.safetensors")["items"]
    sampler = load_task(task).spec.workload.sampler
    streams = [real[:4], torch.cat([rewritten, real[4:]])]
    assert [c.tolist() for c in seen] == [contexts_of(s.flatten(), sampler).tolist() for s in streams]
    assert not torch.equal(rewritten, real[:4])


# A model's own ideas about sampling


@pytest.mark.parametrize("method", ["beam", "draw"])
def test_generation_config_of_a_model_changes_nothing(tmp_path: Path, method: str) -> None:
    changes = {"horizon": 1, "policy.size": 8, "workload.sampler.method": method}
    task = write_tiny_task(tmp_path, "pretrained-lm", **changes)
    own = {
        "repetition_penalty": 9.0, "no_repeat_ngram_size": 1, "temperature": 0.01, "top_k": 1, "top_p": 0.1,
        "do_sample": True, "num_beams": 4, "length_penalty": -5.0, "suppress_tokens": list(range(100, 200)),
        "max_length": 20, "min_length": 3,
    }  # fmt: skip
    file = tmp_path / "model" / "generation_config.json"
    plain = json.loads(file.read_text()) if file.is_file() else {}
    written = []
    for name, content in (("plain", plain), ("own", plain | own)):
        file.write_text(json.dumps(content))
        path = run(task, "ce", out=tmp_path / name, device="cpu")
        written.append([(path / f"gen-{g}" / "samples.safetensors").read_bytes() for g in (0, 1)])
    assert written[0] == written[1]

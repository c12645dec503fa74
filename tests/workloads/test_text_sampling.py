"""Sampling: greedy equals transformers, noise decides everything else, truncation excludes what it should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import Cache, LlamaConfig, LlamaForCausalLM

from collapsebench.workloads.text import sampling
from collapsebench.workloads.text.sampling import (
    PreallocatedLayer,
    cumulated_in_integers,
    draw,
    rows_at_once,
    sample_continuations,
)

torch.set_num_threads(1)

VOCABULARY = 40


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def prompts() -> Tensor:
    return torch.randint(VOCABULARY, (6, 5), generator=torch.Generator().manual_seed(1))


def noise(rows: int, columns: int, seed: int = 2) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(n: int) -> Tensor:
    """Midpoints of n equal cells of [0, 1): drawing with them gives counts within 1 of n·p."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def frequencies(probabilities: Tensor, n: int = 4000, temperature: float = 1.0, **truncation) -> Tensor:
    logits = probabilities.log().expand(n, -1)
    return draw(logits, grid(n), temperature, **truncation).bincount(minlength=len(probabilities)) / n


def test_greedy_equals_generate_token_for_token(model: LlamaForCausalLM, prompts: Tensor) -> None:
    ours = sample_continuations(model, prompts, noise(6, 20), temperature=0)
    theirs = model.generate(prompts, do_sample=False, max_new_tokens=20, attention_mask=torch.ones_like(prompts))
    assert ours.tolist() == theirs[:, prompts.shape[1] :].tolist()
    assert len(set(ours.flatten().tolist())) > 5  # not one token repeated, which anything would get right


def test_samples_do_not_depend_on_the_batch_split(model: LlamaForCausalLM, prompts: Tensor) -> None:
    u = noise(6, 12)
    whole = sample_continuations(model, prompts, u, temperature=0.9, top_p=0.95)
    for size in (1, 2, 4):
        parts = [
            sample_continuations(model, prompts[i : i + size], u[i : i + size], temperature=0.9, top_p=0.95)
            for i in range(0, 6, size)
        ]
        assert torch.equal(torch.cat(parts), whole)


def test_as_many_sequences_are_written_at_once_as_fit_the_caches(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model.config
    a_row = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 20 * 4
    monkeypatch.setattr(sampling, "CACHED", 5 * a_row)
    assert rows_at_once(model, 20, most=512) == 5
    assert rows_at_once(model, 10, most=512) == 10
    assert rows_at_once(model, 20, most=3) == 3
    assert rows_at_once(model, 1000, most=512) == 1, "one always fits"
    elsewhere = LlamaForCausalLM(config).to("meta")
    assert rows_at_once(elsewhere, 20, most=512) == 512, "another device has its own limits"


def test_samples_ignore_the_global_random_state(model: LlamaForCausalLM, prompts: Tensor) -> None:
    torch.manual_seed(1)
    first = sample_continuations(model, prompts, noise(6, 8))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(sample_continuations(model, prompts, noise(6, 8)), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_other_noise_gives_other_samples(model: LlamaForCausalLM, prompts: Tensor) -> None:
    first, second = (sample_continuations(model, prompts, noise(6, 8, seed)) for seed in (2, 3))
    assert not torch.equal(first, second)


def test_first_token_follows_the_distribution_of_the_model(model: LlamaForCausalLM, prompts: Tensor) -> None:
    n = 2000
    sampled = sample_continuations(model, prompts[:1].expand(n, -1), grid(n)[:, None], temperature=0.7)
    with torch.no_grad():
        p = (model(prompts[:1]).logits[0, -1].double() / 0.7).softmax(-1)
    assert (sampled.flatten().bincount(minlength=VOCABULARY) - n * p).abs().max() < 1.1


def test_no_new_tokens_gives_an_empty_continuation(model: LlamaForCausalLM, prompts: Tensor) -> None:
    assert sample_continuations(model, prompts, noise(6, 0)).shape == (6, 0)


def test_cache_layer_gives_the_hidden_states_of_a_full_forward(model: LlamaForCausalLM, prompts: Tensor) -> None:
    tokens = torch.cat([prompts, prompts.flip(0)], dim=1)
    cache = Cache(layers=[PreallocatedLayer(tokens.shape[1]) for _ in range(2)])
    with torch.no_grad():
        full = model.model(tokens, use_cache=False).last_hidden_state
        pieces = [
            model.model(piece, past_key_values=cache, use_cache=True).last_hidden_state
            for piece in tokens.split([5, 1, 1, 3], dim=1)
        ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, rtol=1e-4, atol=1e-5)
    assert cache.get_seq_length() == tokens.shape[1]


def test_cache_layer_never_moves_its_memory() -> None:
    layer = PreallocatedLayer(8)
    places = set()
    for length in (3, 1, 1, 3):
        keys, values = layer.update(torch.ones(2, 1, length, 4), torch.ones(2, 1, length, 6))
        places.add((keys.data_ptr(), values.data_ptr()))
    assert len(places) == 1
    assert keys.shape == (2, 1, 8, 4)
    assert values.shape == (2, 1, 8, 6)


def test_draws_follow_the_softmax_exactly() -> None:
    logits = 2 * torch.randn(12, generator=torch.Generator().manual_seed(0))
    for temperature in (0.5, 1.0, 2.0):
        counts = draw(logits.expand(10_000, -1), grid(10_000), temperature).bincount(minlength=12)
        expected = 10_000 * (logits.double() / temperature).softmax(-1)
        assert (counts - expected).abs().max() < 1.1


def test_random_draws_pass_a_chi_square_test() -> None:
    logits = torch.randn(8, generator=torch.Generator().manual_seed(0))
    n = 20_000
    counts = draw(logits.expand(n, -1), noise(n, 1).flatten(), 1.0).bincount(minlength=8)
    expected = n * logits.double().softmax(-1)
    assert ((counts - expected) ** 2 / expected).sum() < 29.9  # 99.99 % quantile of chi square with 7 degrees


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_top_k_draws_exactly_the_k_most_likely_in_proportion(k: int) -> None:
    p = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    expected = p.where(p >= p.sort(descending=True).values[min(k, 5) - 1], 0)
    torch.testing.assert_close(frequencies(p, top_k=k), expected / expected.sum(), rtol=0, atol=5e-4)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, [1]),
        (0.39, [1]),
        (0.41, [1, 3]),
        (0.69, [1, 3]),
        (0.71, [1, 3, 4]),
        (0.96, [0, 1, 2, 3, 4]),
        (1.0, range(5)),
    ],
)
def test_top_p_keeps_the_token_that_crosses_and_nothing_after_it(top_p: float, kept: list[int]) -> None:
    p = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    expected = torch.zeros(5)
    expected[list(kept)] = p[list(kept)]
    torch.testing.assert_close(frequencies(p, top_p=top_p), expected / expected.sum(), rtol=0, atol=5e-4)


def test_top_p_works_on_what_top_k_left() -> None:
    p = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    # Of the two most likely, 0.4 / 0.7 = 0.57 already reaches 0.5.
    assert frequencies(p, top_k=2, top_p=0.5).tolist() == [0, 1, 0, 0, 0]


def test_rows_are_truncated_each_by_itself() -> None:
    logits = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]]).log()
    assert draw(logits, torch.tensor([0.99, 0.01]), 1.0, top_p=0.5).tolist() == [0, 2]
    assert draw(logits, torch.tensor([0.99, 0.01]), 1.0, top_k=1).tolist() == [0, 2]


def test_temperature_zero_is_argmax() -> None:
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(logits, noise(50, 1).flatten(), 0), logits.argmax(-1))
    assert torch.equal(draw(logits, noise(50, 1).flatten(), 1e-4), logits.argmax(-1))


@pytest.mark.parametrize("u", [0.0, 1e-300, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12, 1 - 2**-53])
@pytest.mark.parametrize("vocabulary", [6, 5000])
def test_no_draw_gives_a_token_of_probability_zero(vocabulary: int, u: float) -> None:
    logits = torch.randn(64, vocabulary, generator=torch.Generator().manual_seed(0))
    logits[:, :2] = -torch.inf
    logits[:, -2:] = -torch.inf
    uniform = torch.full((64,), u, dtype=torch.float64)
    for truncation in ({}, {"top_k": 2}, {"top_p": 0.7}, {"top_k": 3, "top_p": 0.7}):
        tokens = draw(logits, uniform, 1.0, **truncation)
        chosen = logits.gather(-1, tokens[:, None]).squeeze(-1)
        assert torch.isfinite(chosen).all()
        if "top_k" in truncation:
            assert (chosen >= logits.topk(truncation["top_k"]).values[:, -1]).all()


def test_half_precision_logits_are_drawn_from_in_float32() -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(0)).bfloat16()
    counts = draw(logits.expand(4000, -1), grid(4000), 1.0).bincount(minlength=12)
    assert (counts - 4000 * logits.double().softmax(-1)).abs().max() < 1.1


def test_probabilities_cumulated_in_integers_do_not_depend_on_the_order_of_addition() -> None:
    p = torch.randn(5, 4000, generator=torch.Generator().manual_seed(3)).softmax(-1)
    ours = cumulated_in_integers(p)
    torch.testing.assert_close(ours, p.double().cumsum(-1), rtol=0, atol=4000 * 2.0**-50)
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(4))
    assert torch.equal(cumulated_in_integers(p[:, order])[:, -1], ours[:, -1])
    assert (ours.diff(dim=-1) >= 0).all()

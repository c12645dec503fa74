"""How a model predicts given text, against log_softmax in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from collapsebench.metrics.language_model import continuation_log_probs, predict

torch.set_num_threads(1)

VOCABULARY = 50


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def tokens(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.randint(VOCABULARY, (rows, columns), generator=torch.Generator().manual_seed(seed))


def exact(model: LlamaForCausalLM, windows: Tensor) -> Tensor:
    """Log-probabilities of all continuations, (n, T - 1, V), in float64."""
    with torch.no_grad():
        return model.double()(windows).logits[:, :-1].log_softmax(-1)


@pytest.fixture(scope="module")
def windows() -> Tensor:
    return tokens(7, 12)


@pytest.fixture(scope="module")
def reference(model: LlamaForCausalLM, windows: Tensor) -> Tensor:
    log_p = exact(model, windows)
    model.float()
    return log_p


def test_losses_are_those_of_log_softmax(model: LlamaForCausalLM, windows: Tensor, reference: Tensor) -> None:
    expected = -reference.gather(-1, windows[:, 1:, None]).flatten()
    torch.testing.assert_close(predict(model, windows, 3).loss.double(), expected, rtol=1e-4, atol=1e-5)


def test_hits_are_those_of_the_most_likely_token(model: LlamaForCausalLM, windows: Tensor, reference: Tensor) -> None:
    guesses = reference.argmax(-1)
    likely = torch.cat([windows[:, :1], guesses], dim=1)  # contexts differ from here on, but some tokens still hit
    for given in (windows, likely):
        log_p = exact(model, given)
        model.float()
        assert torch.equal(predict(model, given, 4).hit, (log_p.argmax(-1) == given[:, 1:]).flatten())
    assert predict(model, likely, 4).hit.any()


def test_entropies_are_those_of_the_distribution(model: LlamaForCausalLM, windows: Tensor, reference: Tensor) -> None:
    expected = -(reference.exp() * reference).sum(-1).flatten()
    torch.testing.assert_close(predict(model, windows, 7).entropy.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_predictions_do_not_depend_on_the_batch_size(model: LlamaForCausalLM, windows: Tensor, batch_size: int) -> None:
    whole, parts = predict(model, windows, 7), predict(model, windows, batch_size)
    torch.testing.assert_close(parts.loss, whole.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.entropy, whole.entropy, rtol=1e-5, atol=1e-6)
    assert torch.equal(parts.hit, whole.hit)


def test_extreme_logits_stay_finite(model: LlamaForCausalLM, windows: Tensor) -> None:
    import copy

    loud = copy.deepcopy(model)
    with torch.no_grad():
        loud.get_output_embeddings().weight.mul_(1e4)
    predictions = predict(loud, windows, 4)
    assert torch.isfinite(predictions.loss).all()
    assert torch.isfinite(predictions.entropy).all()
    assert (predictions.entropy > -1e-3).all()


def test_prediction_reports_every_token_once(model: LlamaForCausalLM, windows: Tensor) -> None:
    told: list[int] = []
    predict(model, windows, 3, told.append)
    assert told == [36, 36, 12]


SPANS = torch.tensor([[1, 12], [3, 4], [5, 9], [11, 12], [1, 2], [6, 10], [2, 7]])


def test_continuations_sum_the_log_probabilities_of_their_span(
    model: LlamaForCausalLM, windows: Tensor, reference: Tensor
) -> None:
    per_token = reference.gather(-1, windows[:, 1:, None]).squeeze(-1)
    expected = torch.stack([row[a - 1 : b - 1].sum() for row, (a, b) in zip(per_token, SPANS.tolist(), strict=True)])
    found = continuation_log_probs(model, windows, SPANS, 3)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_continuations_do_not_depend_on_the_batch_size(
    model: LlamaForCausalLM, windows: Tensor, batch_size: int
) -> None:
    whole = continuation_log_probs(model, windows, SPANS, 7)
    torch.testing.assert_close(continuation_log_probs(model, windows, SPANS, batch_size), whole, rtol=1e-5, atol=1e-6)


def test_what_follows_a_span_does_not_matter(model: LlamaForCausalLM, windows: Tensor) -> None:
    padded = windows.clone()
    for row, end in enumerate(SPANS[:, 1].tolist()):
        padded[row, end:] = 0
    torch.testing.assert_close(
        continuation_log_probs(model, padded, SPANS, 7), continuation_log_probs(model, windows, SPANS, 7)
    )

"""Metrics of a language model's predictions of held-out text, and of the windows that it wrote."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from collapsebench.metrics.diversity import distinct, novelty, repetition, unigram_kl
from collapsebench.metrics.language_model import Predictions
from collapsebench.workloads import Measurement

NOVEL = 24  # length in bytes of a run that counts as new or copied: four or five words


def prediction_measures(test: Predictions, selection: Predictions) -> dict[str, Measurement]:
    """Losses, percentiles, hits, entropy and confidence on the test split; perplexity on the selection split."""
    loss = test.loss.double().numpy()
    n = len(loss)
    p50, p90, p99 = np.percentile(loss, [50, 90, 99])
    return {
        "token_loss": Measurement(float(loss.mean()), n),
        "perplexity": Measurement(perplexity(loss.mean()), n),
        "token_loss_p50": Measurement(float(p50), n),
        "token_loss_p90": Measurement(float(p90), n),
        "token_loss_p99": Measurement(float(p99), n),
        "next_token_accuracy": Measurement(int(test.hit.sum()) / n, n),
        "prediction_entropy": Measurement(float(test.entropy.double().mean()), n),
        "confident_share": Measurement(float((loss < -math.log(0.9)).mean()), n),
        "selection_perplexity": Measurement(perplexity(selection.loss.double().mean()), len(selection.loss)),
    }


def byte_measures(test: Predictions, entities: Tensor, samples: np.ndarray, real: np.ndarray) -> dict[str, Measurement]:
    """Loss per byte, over all text and over names and numbers only, and novelty of the samples.

    Args:
        test: predictions of windows whose tokens are bytes. entities: (n, T) int64, 1 for bytes of names and numbers.
        samples: (m, T), the model's samples. real: (N,), the real training text.
    """
    loss, named = test.loss.double(), entities[:, 1:].flatten().bool()
    runs = samples.shape[0] * max(0, samples.shape[1] - NOVEL + 1)
    return {
        "nll_per_byte": Measurement(float(loss.mean()), len(loss)),
        "entity_nll_per_byte": Measurement(float(loss[named].mean()), int(named.sum())),
        "novelty": Measurement(novelty(samples, real, NOVEL), runs),
    }


def sample_measures(samples: np.ndarray, real_counts: np.ndarray) -> dict[str, Measurement]:
    """Diversity and repetition of windows (n, T), and their distance to the token counts (V,) of the real text."""
    n = samples.size
    return {
        **{f"distinct_{k}": Measurement(distinct(samples, k), n) for k in (1, 2, 4)},
        "repetition": Measurement(repetition(samples), n),
        "unigram_kl": Measurement(unigram_kl(samples, real_counts), n),
    }


def unigram_floors(counts: Tensor, **windows: Tensor) -> dict[str, float]:
    """Perplexity of the real training text's unigram model on each set of windows (n, T), by name."""
    smoothed = counts.double() + 1
    log_p = (smoothed / smoothed.sum()).log()
    return {name: perplexity(-log_p[found[:, 1:].flatten()].mean()) for name, found in windows.items()}


def perplexity(mean_loss: float | Tensor) -> float:
    """exp of a mean loss in nats; a huge finite number instead of an overflow, NaN if the loss is not finite."""
    return math.exp(min(float(mean_loss), 700.0)) if math.isfinite(float(mean_loss)) else math.nan

"""Metrics of the samples alone: diversity and repetition of token windows, and their distance to real text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distinct(tokens: NDArray[np.integer], n: int) -> float:
    """Distinct n-grams / n-grams over all samples (Li et al., arXiv 1510.03055).

    Args:
        tokens: (samples, length) token ids; n-grams do not cross samples.
    """
    grams = _ngrams(tokens, n).reshape(-1, n)
    return len(np.unique(grams, axis=0)) / max(len(grams), 1)


def repetition(tokens: NDArray[np.integer], n: int = 4) -> float:
    """Share of n-grams that already occurred in the same sample."""
    grams = _ngrams(tokens, n)
    samples, positions, _ = grams.shape
    numbered = np.concatenate([np.repeat(np.arange(samples), positions)[:, None], grams.reshape(-1, n)], axis=1)
    return 1.0 - len(np.unique(numbered, axis=0)) / max(len(numbered), 1)


def unigram_kl(tokens: NDArray[np.integer], real_counts: NDArray[np.integer]) -> float:
    """KL divergence (nats) of the samples' token frequencies from the real ones, add-one smoothed on the real side.

    Args:
        tokens: sampled token ids, any shape.
        real_counts: (V,) counts of the real training text.
    """
    counts = np.bincount(tokens.ravel(), minlength=len(real_counts)).astype(np.float64)
    p, q = counts / counts.sum(), (real_counts + 1) / (real_counts + 1).sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / q[seen])))


def novelty(tokens: NDArray[np.integer], real: NDArray[np.integer], n: int) -> float:
    """Share of the samples' n-grams that occur nowhere in the real training text; 0 for a copy.

    Args:
        tokens: (samples, length) token ids; n-grams do not cross samples. real: (N,) the text, in order.
    """
    # Hash n-grams by a random linear form modulo 2**64: two different ones collide once in 10**19 pairs.
    factors = np.random.default_rng(0).integers(1, 2**63, n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    known, written = (_forms(t.astype(np.uint64), factors) for t in (real, tokens))
    return float(1.0 - np.isin(written, known).mean()) if written.size else 0.0


def _forms(tokens: NDArray[np.uint64], factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Σ_j factors[j] · tokens[…, i + j] modulo 2**64 for every run of n tokens, without copying the runs."""
    runs = max(0, tokens.shape[-1] - len(factors) + 1)
    total = np.zeros((*tokens.shape[:-1], runs), dtype=np.uint64)
    for j, factor in enumerate(factors):
        total += tokens[..., j : j + runs] * factor
    return total


def _ngrams(tokens: NDArray[np.integer], n: int) -> NDArray[np.integer]:
    """(samples, positions, n), empty when the samples are shorter than n."""
    if tokens.shape[1] < n:
        return np.empty((len(tokens), 0, n), dtype=tokens.dtype)
    return np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)

"""What the samples look like: diversity and repetition of token windows, and their distance to real text."""

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
    """Share of n-grams that occurred before in the same sample."""
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


def _ngrams(tokens: NDArray[np.integer], n: int) -> NDArray[np.integer]:
    """(samples, positions, n), empty when the samples are shorter than n."""
    if tokens.shape[1] < n:
        return np.empty((len(tokens), 0, n), dtype=tokens.dtype)
    return np.lib.stride_tricks.sliding_window_view(tokens, n, axis=1)

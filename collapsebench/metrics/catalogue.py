"""Every metric the benchmark records: name, direction, unit, bounds and how it becomes a fidelity.

No torch here: scoring, submissions and the board read this table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A declared metric.

    Attributes:
        name: key in ``metrics.json``.
        title: what plots and tables show.
        direction: ``lower`` or ``higher`` is better; None for a profile without a better end.
        unit: of the raw value; empty for shares.
        bounds: smallest and largest possible value.
        scale: ``log`` or ``linear`` distance to the reference (`collapsebench.scoring.fidelity`).
        description: one sentence.
    """

    name: str
    title: str
    direction: Literal["lower", "higher"] | None
    unit: str
    bounds: tuple[float, float]
    scale: Literal["log", "linear"]
    description: str


def _profile(name: str, title: str, unit: str, description: str, upper: float = math.inf) -> Metric:
    return Metric(name, title, None, unit, (0.0, upper), "linear", description)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "perplexity", "Perplexity (real test text)", "lower", "", (1.0, math.inf), "log",
            "exp of the mean token loss on held-out real text.",
        ),
        Metric(
            "next_token_accuracy", "Next-token accuracy", "higher", "", (0.0, 1.0), "linear",
            "Share of tokens of held-out real text that are the model's first guess.",
        ),
        Metric(
            "pair_accuracy", "Knowledge-pair accuracy", "higher", "", (0.0, 1.0), "linear",
            "Share of exchanged-entity pairs about the training text in which the model prefers the true version; "
            "chance is one half.",
        ),
        Metric(
            "selection_perplexity", "Perplexity (selection text)", "lower", "", (1.0, math.inf), "log",
            "The same on the selection split: tune on this one, never on the test.",
        ),
        _profile("token_loss", "Mean token loss", "nats", "Mean negative log-likelihood of held-out real tokens."),
        _profile("token_loss_p50", "Median token loss", "nats", "Median loss of held-out real tokens."),
        _profile("token_loss_p90", "90th percentile of token loss", "nats", "The tail of the real text."),
        _profile("token_loss_p99", "99th percentile of token loss", "nats", "The far tail: collapse loses it first."),
        _profile("prediction_entropy", "Entropy of predictions", "nats", "Mean entropy of the next token."),
        _profile("confident_share", "Tokens with p > 0.9", "", "Share of real tokens predicted with p > 0.9.", 1.0),
        _profile("distinct_1", "Distinct-1", "", "Distinct tokens / tokens in the samples.", 1.0),
        _profile("distinct_2", "Distinct-2", "", "Distinct token bigrams / bigrams in the samples.", 1.0),
        _profile("distinct_4", "Distinct-4", "", "Distinct token 4-grams / 4-grams in the samples.", 1.0),
        _profile("repetition", "Repetition", "", "Share of 4-grams that occurred before in the same sample.", 1.0),
        _profile("unigram_kl", "Unigram KL to real text", "nats", "KL(samples ‖ real training text) of token counts."),
    )
}  # fmt: skip

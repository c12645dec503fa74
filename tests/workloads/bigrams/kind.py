"""The record of bigram tasks."""

from __future__ import annotations

from bigrams.settings import BigramSettings
from collapsebench.data.sources import Splits
from collapsebench.workloads.kind import Kind, Passes
from collapsebench.workloads.work import Sizes

BIGRAM = Kind(
    name="bigram",
    label="pairs of letters",
    settings=BigramSettings,
    workload="bigrams.workload:BigramWorkload",
    extra="micro",
    known_elements="collapsebench.workloads.text.known_elements:known_tokens",
    samples="text",
    unit="letters",
    element="letters",
    item_elements=lambda settings, _: settings.line,
    passes=lambda settings: Passes(settings.line, settings.line, settings.line),
    evaluated=lambda spec: spec.workload.test_lines,
    sizes=lambda task: Sizes(None, 0, task.spec.workload.test_lines),
    blank="bigrams.workload:blank_bigrams",
    sources=("local",),
    splits=Splits,
    metrics=("perplexity", "next_token_accuracy", "token_loss"),
)

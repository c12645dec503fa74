"""Settings of text tasks: model, training, sampling and evaluation. No torch here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import Metric
from collapsebench.workloads.settings import WorkloadSettings
from collapsebench.workloads.training_settings import Training

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy

BYTES = 257
"""Vocabulary size without merges: the 256 bytes and the end-of-document token."""

BYTE_METRICS = (
    Metric(
        "nll_per_byte", "NLL per byte (real test text)", "lower", "nats", (0.0, math.inf), "linear",
        "Mean negative log-likelihood of a byte of held-out real text.",
    ),
    Metric(
        "entity_nll_per_byte", "NLL per byte of names and numbers", "lower", "nats", (0.0, math.inf), "linear",
        "The same over the bytes of names (capitalised words within a sentence) and numbers alone.",
    ),
    Metric(
        "novelty", "Novelty of the samples", None, "", (0.0, 1.0), "linear",
        "Share of runs of 24 bytes in the samples that stand nowhere in the real training text; a copy has 0.",
    ),
)  # fmt: skip

FRACTION_METRICS = (
    Metric(
        "oldest_nll_per_byte", "NLL per byte (oldest fraction)", "lower", "nats", (0.0, math.inf), "linear",
        "Mean negative log-likelihood of a byte of the real text that generation 0 was trained on, and later ones on "
        "what the generation before made of it: what is retained of it.", reference="control",
    ),
    Metric(
        "newest_nll_per_byte", "NLL per byte (newest fraction)", "lower", "nats", (0.0, math.inf), "linear",
        "The same over the real text that the generation was the first to be trained on: what is learned of it.",
        reference="control", floor="unseen",
    ),
)  # fmt: skip


class LlamaModel(Frozen):
    """A Llama-architecture model, created from scratch with `transformers`. Input and output embeddings are tied."""

    hidden_size: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> LlamaModel:
        if self.hidden_size % (2 * self.heads):
            raise ValueError("hidden_size must be a multiple of 2 · heads")
        return self


class Sampler(Frozen):
    """How a generation writes the training data of the next one.

    Attributes:
        prompt_tokens: length of the prompts, which come from the generation's own training windows and are not kept.
        temperature: 0 means greedy. top_k, top_p: truncation, off if absent.
        batch_size: maximum number of windows written at a time; does not change the samples beyond rounding.
    """

    prompt_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    batch_size: int = Field(512, ge=1)


class Evaluation(Frozen):
    """Size of the evaluation.

    Attributes:
        test_windows: windows of the test split, evenly spaced. selection_windows: windows of the selection split.
        pairs: maximum number of knowledge pairs built from the training articles.
        batch_size: sequences evaluated at a time.
        by_byte: measure the loss per byte of all text and of names and numbers only, and the novelty of the samples;
            only if every token is a byte.
        fraction_windows: windows each of the oldest and the newest fraction of the real text, evenly spaced, whose loss
            per byte is measured; only for policy ``regenerate-fresh`` and if every token is a byte. None: not measured.
    """

    test_windows: int = Field(ge=1)
    selection_windows: int = Field(ge=1)
    pairs: int = Field(ge=0)
    batch_size: int = Field(32, ge=1)
    by_byte: bool = False
    fraction_windows: int | None = Field(None, ge=1)


class TextSettings(WorkloadSettings):
    """The workload section of a text task.

    Attributes:
        vocab_size: size of the byte-level BPE vocabulary trained on the training split; `BYTES`: every token is a byte.
        block: tokens per window, the item of training and sampling.
    """

    kind: Literal["text"]
    vocab_size: int = Field(ge=BYTES)
    block: int = Field(ge=8)
    model: LlamaModel
    training: Training
    sampler: Sampler
    evaluation: Evaluation

    @model_validator(mode="after")
    def _prompt_fits(self) -> TextSettings:
        if self.sampler.prompt_tokens > self.block:
            raise ValueError("sampler.prompt_tokens must not exceed block")
        for name in ("by_byte", "fraction_windows"):
            if getattr(self.evaluation, name) and self.vocab_size != BYTES:
                raise ValueError(f"evaluation.{name} needs vocab_size {BYTES}, where a token is a byte")
        return self

    def check_policy(self, policy: Policy) -> None:
        if self.evaluation.fraction_windows is not None and policy.name != "regenerate-fresh":
            raise ValueError(
                f"evaluation.fraction_windows needs the policy regenerate-fresh; {policy.name} has no fractions"
            )

    def own_metrics(self, horizon: int) -> tuple[Metric, ...]:
        by_byte = BYTE_METRICS if self.evaluation.by_byte else ()
        return by_byte if self.evaluation.fraction_windows is None else (*by_byte, *FRACTION_METRICS)

    @property
    def measures_fractions(self) -> bool:
        return self.evaluation.fraction_windows is not None

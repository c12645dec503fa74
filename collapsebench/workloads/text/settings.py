"""What a text task fixes about its model, training, sampling and evaluation. No torch here."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen
from collapsebench.workloads.training_settings import Training


class LlamaModel(Frozen):
    """A Llama-architecture model, made from scratch with `transformers`. Input and output embeddings are tied."""

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
        prompt_tokens: length of the prompts, taken from the generation's own training windows and not kept.
        temperature: 0 means greedy. top_k, top_p: truncation, off when absent.
        batch_size: windows written at a time; does not change the samples beyond rounding.
    """

    prompt_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    batch_size: int = Field(512, ge=1)


class Evaluation(Frozen):
    """Size of the evaluation.

    Attributes:
        test_windows: windows of the test split, taken evenly over it. selection_windows: of the selection split.
        pairs: knowledge pairs built from the training articles, at most.
        batch_size: sequences evaluated at a time.
    """

    test_windows: int = Field(ge=1)
    selection_windows: int = Field(ge=1)
    pairs: int = Field(ge=0)
    batch_size: int = Field(32, ge=1)


class TextSettings(Frozen):
    """The workload section of a text task.

    Attributes:
        vocab_size: of the byte-level BPE tokeniser trained on the training split.
        block: tokens of a window, the item of training and sampling.
    """

    METRICS: ClassVar[tuple[str, ...]] = (
        "perplexity", "next_token_accuracy", "pair_accuracy", "selection_perplexity", "token_loss", "token_loss_p50",
        "token_loss_p90", "token_loss_p99", "prediction_entropy", "confident_share", "distinct_1", "distinct_2",
        "distinct_4", "repetition", "unigram_kl",
    )  # fmt: skip

    SOURCES: ClassVar[tuple[str, ...]] = ("enwiki-2016", "local", "hub")
    UNIT: ClassVar[str] = "tokens"

    kind: Literal["text"]
    vocab_size: int = Field(ge=257)
    block: int = Field(ge=8)
    model: LlamaModel
    training: Training
    sampler: Sampler
    evaluation: Evaluation

    @model_validator(mode="after")
    def _prompt_fits(self) -> TextSettings:
        if self.sampler.prompt_tokens > self.block:
            raise ValueError("sampler.prompt_tokens must not exceed block")
        return self

    def planned_elements(self, generation: int, size: int, horizon: int) -> int:
        """Tokens processed by a generation that draws `size` windows: what progress and ETA count in."""
        stage = self.training.stage(generation)
        trained = stage.updates * self.training.batch_size * self.block
        evaluated = (self.evaluation.test_windows + self.evaluation.selection_windows) * self.block
        return trained + size * self.block + evaluated

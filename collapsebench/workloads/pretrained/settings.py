"""What a task with a pretrained language model fixes about its model, training, sampling and evaluation. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import METRICS, Metric, knowledge_fraction
from collapsebench.metrics.harness_settings import HarnessTask
from collapsebench.workloads.settings import Share, WorkloadSettings

if TYPE_CHECKING:
    from collapsebench.task import Policy


class Architecture(Frozen):
    """The shape of a Llama-like model, to estimate what it takes before its weights are there.

    Attributes:
        head_dim: of an attention head; None: hidden_size / heads.
    """

    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    tied_embeddings: bool = True
    head_dim: int | None = Field(None, gt=0)


class PretrainedModel(Frozen):
    """Weights of the Hugging Face hub, at a pinned revision, or of a local folder; ``--model PATH`` overrides both.

    Attributes:
        path: local folder, relative to the task file.
        parameters: of the model, to check memory and disk before anything is loaded.
        architecture: its shape, for estimates.
    """

    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    path: str | None = None
    parameters: int = Field(gt=0)
    architecture: Architecture

    @model_validator(mode="after")
    def _one_place(self) -> PretrainedModel:
        if (self.hub is None) != (self.revision is None) or (self.hub is None) == (self.path is None):
            raise ValueError("model: name either hub and revision, or path")
        return self


class FineTuning(Frozen):
    """Full fine-tuning: Adam, constant learning rate, a fresh optimiser in every generation.

    Attributes:
        epochs: over the generation's training set. batch_size: windows per update, over all devices.
        micro_batch: windows per forward pass; gradients are accumulated up to the batch.
        precision: of matrix products under autocast on a GPU; weights and optimiser are float32. CPUs use float32.
        checkpointing: recompute activations in backward.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    micro_batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    precision: Literal["float32", "bf16", "fp16"] = "bf16"
    checkpointing: bool = False

    @model_validator(mode="after")
    def _batches_divide(self) -> FineTuning:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size must be a multiple of micro_batch {self.micro_batch}")
        return self

    def updates(self, windows: int) -> int:
        """Optimiser steps on a training set of so many windows; an incomplete batch at the end is dropped."""
        return max(1, self.epochs * windows // self.batch_size)


class StreamSampler(Frozen):
    """How a generation rewrites its own training stream: every chunk of it anew, given the real tokens before it.

    ForTIFAI (arXiv 2509.08972) uses beams; ``draw`` samples from the model.

    Attributes:
        context: tokens before the chunk that are given. new_tokens: length of a chunk.
        beams, repetition_penalty: of ``beam``. temperature, top_p: of ``draw``.
        batch_size: chunks at a time.
    """

    method: Literal["beam", "draw"]
    context: int = Field(ge=1)
    new_tokens: int = Field(ge=1)
    beams: int = Field(5, ge=1)
    repetition_penalty: float = Field(1.0, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float | None = Field(None, gt=0, le=1)
    batch_size: int = Field(16, ge=1)


class KnowledgeTest(Frozen):
    """The KR-test of ForTIFAI over a file of (context, true, false) items about the training text.

    An item's location is the row of the training split where its article begins; items about rows that the task does
    not train on are left out, and those of the oldest fraction are what is scored.

    Attributes:
        file: JSON below the data folder.
        url, sha256: where the file is downloaded from when the data folder has none, and its digest.
    """

    file: str
    url: str | None = Field(None, pattern=r"^https://\S+$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _downloads_are_checked(self) -> KnowledgeTest:
        if self.url is not None and self.sha256 is None:
            raise ValueError("knowledge: a url needs the sha256 of its file")
        return self


class PretrainedEvaluation(Frozen):
    """Size of the evaluation.

    Attributes:
        test_windows, selection_windows, oldest_windows: of the test split, of the validation split, and of the oldest
            fraction of the training stream, taken evenly.
        knowledge: KR-test; None: not measured. harness: tasks of the lm-eval harness.
        max_length: tokens that an item of these may have; contexts are cut on the left.
        batch_size: sequences at a time.
    """

    test_windows: int = Field(ge=1)
    selection_windows: int = Field(ge=1)
    oldest_windows: int = Field(ge=1)
    knowledge: KnowledgeTest | None = None
    harness: tuple[HarnessTask, ...] = ()
    max_length: int = Field(1024, ge=16)
    batch_size: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _one_name_each(self) -> PretrainedEvaluation:
        names = [task.name for task in self.harness]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"harness: the names {twice} occur twice")
        return self


class PretrainedSettings(WorkloadSettings):
    """The workload section of a task with a pretrained language model.

    Attributes:
        block: tokens of a window, the item of training and sampling.
    """

    kind: Literal["pretrained-lm"]
    block: int = Field(ge=8)
    model: PretrainedModel
    training: FineTuning
    sampler: StreamSampler
    evaluation: PretrainedEvaluation

    @model_validator(mode="after")
    def _chunks_divide_the_windows(self) -> PretrainedSettings:
        if self.block % self.sampler.new_tokens:
            raise ValueError(f"block must be a multiple of sampler.new_tokens {self.sampler.new_tokens}")
        return self

    def reduced(self, share: Share) -> Self:
        """The same on less text: the evaluation shrinks, and the rest follows from the policy's size."""
        evaluation = self.evaluation
        changes: dict[str, Any] = {
            name: share(getattr(evaluation, name), 8)
            for name in ("test_windows", "selection_windows", "oldest_windows")
        }
        changes["harness"] = tuple(
            task if task.limit is None else task.model_copy(update={"limit": share(task.limit, 5)})
            for task in evaluation.harness
        )
        return self.model_copy(update={"evaluation": evaluation.model_copy(update=changes)})

    def updates(self, policy: Policy, generation: int, items: int | None) -> int | None:
        return None if items is None else self.training.updates(items)

    def check_policy(self, policy: Policy) -> None:
        if policy.name != "regenerate-fresh":
            raise ValueError("policy: a pretrained-lm task rewrites its training stream: name must be regenerate-fresh")

    def own_metrics(self, horizon: int) -> tuple[Metric, ...]:
        """Those of the KR-test, also by fraction of the training stream; then those of the harness."""
        benchmarks = tuple(task.declared_metric for task in self.evaluation.harness)
        if self.evaluation.knowledge is None:
            return benchmarks
        fractions = (knowledge_fraction(g) for g in range(1, horizon + 1))
        return (METRICS["knowledge_retention"], METRICS["knowledge_retention_all"], *fractions, *benchmarks)

    def without_floor(self) -> tuple[str, ...]:
        return tuple(task.metric_name for task in self.evaluation.harness if task.chance is None)

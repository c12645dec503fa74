"""Settings of pretrained-language-model tasks: model, training, sampling and evaluation. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from collapsebench.frozen import Frozen
from collapsebench.metrics.catalogue import METRICS, Metric, knowledge_fraction
from collapsebench.metrics.harness_settings import HarnessTask
from collapsebench.workloads.settings import Share, WorkloadSettings

if TYPE_CHECKING:
    from collapsebench.task_spec import Policy


class Architecture(Frozen):
    """The shape of a model, to estimate its cost before its weights are available.

    Attributes:
        family: ``llama`` covers all models with that structure; ``gpt2`` has biases, and a key for every head.
        head_dim: dimension of an attention head; None: hidden_size / heads.
        positions: number of learned positions, for ``gpt2`` only.
    """

    family: Literal["llama", "gpt2"] = "llama"
    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    tied_embeddings: bool = True
    head_dim: int | None = Field(None, gt=0)
    positions: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _positions_belong_to_gpt2(self) -> Architecture:
        if (self.family == "gpt2") != (self.positions is not None):
            raise ValueError("architecture: positions is required for family gpt2, and only there")
        return self


class PretrainedModel(Frozen):
    """Weights from the Hugging Face hub, at a pinned revision, or a local folder; ``--model PATH`` overrides both.

    Attributes:
        path: local folder, relative to the task file.
        parameters: number of parameters, to check memory and disk before anything is loaded.
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
        epochs: passes over the generation's training set. batch_size: windows per update, over all devices.
        micro_batch: windows per forward pass; gradients are accumulated up to the batch.
        precision: autocast dtype of matrix products on a GPU; weights and optimiser are float32. CPUs use float32.
        checkpointing: recompute activations in the backward pass.
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
        """Optimiser steps on a training set of this many windows; an incomplete batch at the end is dropped."""
        return max(1, self.epochs * windows // self.batch_size)


class StreamSampler(Frozen):
    """How a generation writes text.

    Under ``regenerate-fresh`` it rewrites every chunk of its own training stream, given the tokens before it in the
    stream. Under ``mix`` it writes a new window for every window that it has to continue. ForTIFAI (arXiv 2509.08972)
    uses beam search; ``draw`` samples from the model.

    Attributes:
        context: number of tokens given before the chunk; under ``mix`` the first tokens of the window to continue.
        new_tokens: length of a chunk; under ``mix`` of a window.
        beams, repetition_penalty: for ``beam``. temperature, top_p: for ``draw``.
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

    An item's location is the row of the training split where its article begins. Items about rows that the task does
    not train on are dropped. The items about the oldest fraction are scored.

    Attributes:
        file: JSON below the data folder.
        url, sha256: download address for when the data folder does not have the file, and its digest.
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
        test_windows, selection_windows: windows of the test and the validation split, evenly spaced.
        oldest_windows: windows of the oldest fraction of the training stream, under ``regenerate-fresh`` only.
        newest_windows: windows of the fraction that is new to a generation; None: not measured.
        knowledge: the KR-test; None: not measured. harness: tasks of the lm-eval harness.
        max_length: maximum tokens of a KR-test or harness item; contexts are truncated on the left.
        batch_size: sequences at a time.
    """

    test_windows: int = Field(ge=1)
    selection_windows: int = Field(ge=1)
    oldest_windows: int | None = Field(None, ge=1)
    newest_windows: int | None = Field(None, ge=1)
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


class Windows(NamedTuple):
    """Maximum numbers of windows that a generation is evaluated on; splits may have fewer.

    Attributes:
        oldest, newest: windows of the training stream: of its oldest fraction, and of the fraction that is new.
    """

    test: int
    selection: int
    oldest: int
    newest: int


class PretrainedSettings(WorkloadSettings):
    """The workload section of a pretrained-language-model task.

    Attributes:
        block: tokens per window, the item of training and sampling.
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
        """The section for less text: the evaluation shrinks, and the rest follows from the policy's size."""
        evaluation = self.evaluation
        names = ("test_windows", "selection_windows", "oldest_windows", "newest_windows")
        changes: dict[str, Any] = {
            name: share(windows, 8) for name in names if (windows := getattr(evaluation, name)) is not None
        }
        changes["harness"] = tuple(
            task if task.limit is None else task.model_copy(update={"limit": share(task.limit, 5)})
            for task in evaluation.harness
        )
        return self.model_copy(update={"evaluation": evaluation.model_copy(update=changes)})

    def updates(self, policy: Policy, generation: int, items: int | None) -> int | None:
        if policy.name == "mix":  # generation 0 has the same budget as the others, and sees its items more often
            return self.training.updates(policy.size)
        return None if items is None else self.training.updates(items)

    def real_windows(self, policy: Policy) -> int:
        """Number of training windows used; under ``mix`` the real windows of a generation, which are all of them."""
        return policy.real_items if policy.name == "mix" else policy.size

    def measured(self, policy: Policy, horizon: int) -> Windows:
        """Numbers of windows that a generation is evaluated on."""
        wanted, fraction = self.evaluation, self.real_windows(policy) // (horizon + 1)
        return Windows(
            test=wanted.test_windows,
            selection=wanted.selection_windows,
            oldest=min(wanted.oldest_windows or 0, fraction),
            newest=min(wanted.newest_windows or 0, fraction),
        )

    def check_policy(self, policy: Policy) -> None:
        wanted, sampler = self.evaluation, self.sampler
        if policy.name == "regenerate-fresh":
            if wanted.oldest_windows is None:
                raise ValueError("workload.evaluation.oldest_windows is needed: the training stream has fractions")
            return
        if policy.name != "mix":
            raise ValueError("policy: of a pretrained-lm task, name must be regenerate-fresh or mix")
        if wanted.oldest_windows or wanted.newest_windows or wanted.knowledge:
            raise ValueError("workload.evaluation: under mix there are no fractions, nor a KR-test about them")
        if sampler.new_tokens != self.block or sampler.context > self.block:
            raise ValueError(
                f"workload.sampler: under mix a window of {self.block} tokens is continued by another one: new_tokens "
                f"must be {self.block}, context at most that"
            )

    def own_metrics(self, horizon: int) -> tuple[Metric, ...]:
        """Metrics of the fractions of the training stream, including the KR-test's, then those of the harness."""
        wanted, names = self.evaluation, []
        names += ["oldest_perplexity"] if wanted.oldest_windows else []
        names += ["newest_perplexity"] if wanted.newest_windows else []
        if wanted.knowledge:
            names += ["knowledge_retention", "knowledge_retention_all"]
            names += ["knowledge_newest"] if wanted.newest_windows else []
        fractions = [knowledge_fraction(g) for g in range(1, horizon + 1)] if wanted.knowledge else []
        return (*(METRICS[name] for name in names), *fractions, *(task.declared_metric for task in wanted.harness))

    @property
    def measures_fractions(self) -> bool:
        return self.evaluation.oldest_windows is not None

    def without_floor(self) -> tuple[str, ...]:
        return tuple(task.metric_name for task in self.evaluation.harness if task.chance is None)

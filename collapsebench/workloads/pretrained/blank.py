"""A pretrained-model task without its weights, for cost estimates; the task file gives the model's shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from transformers import (
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from collapsebench.policies import REAL, TrainingSet
from collapsebench.seeding import Randomness
from collapsebench.task import Task
from collapsebench.workloads.kind import Blank
from collapsebench.workloads.objective import Alone, Observed
from collapsebench.workloads.pretrained.accelerated import checkpointed
from collapsebench.workloads.pretrained.data import StreamData
from collapsebench.workloads.pretrained.settings import Architecture, PretrainedSettings, Windows
from collapsebench.workloads.pretrained.workload import PretrainedWorkload
from collapsebench.workloads.text.observed import observe_tokens
from collapsebench.workloads.work import Sizes

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def blank_pretrained(task: Task, sizes: Sizes) -> Blank:
    """The workload of a task with a pretrained model."""
    settings = task.spec.workload
    assert isinstance(settings, PretrainedSettings)
    unknown = settings.evaluation.harness or settings.evaluation.knowledge
    note = "the KR-test and the tasks of lm-eval are not counted: their items are not known here"
    return Blank(_BlankWorkload(task, sizes), {}, (*([note] if unknown else []), *sizes.notes))


class _BlankWorkload(PretrainedWorkload):
    def __init__(self, task: Task, sizes: Sizes):
        assert isinstance(task.spec.workload, PretrainedSettings)
        self.task, self.settings = task, task.spec.workload
        self.device = torch.device("meta")
        self.processes = _Alone(self.settings)
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        self.knowledge, self.benchmarks = None, ()
        self.text = _stream(task, self.settings, sizes)
        self.real = TrainingSet.of(self.text.train, REAL)
        self.data_sha256 = ""

    def observe(self, model: Any, items: Tensor, noise: torch.Generator, full: bool) -> Observed:
        return observe_tokens(model, items.long(), full, _HALF.get(self.settings.training.precision))

    def _contexts(self, windows: Tensor) -> Tensor:
        """Contexts of as many sequences as fill the windows; the estimate varies their length."""
        contexts, settings = super()._contexts(windows), self.settings
        wanted = torch.arange(windows.numel() // settings.sampler.new_tokens)
        return contexts[wanted % len(contexts)]

    def new_model(self, randomness: Randomness) -> PreTrainedModel:
        shape = self.settings.model.architecture
        with self.device:
            return _Gpt2OnPaper(gpt2_config(shape)) if shape.family == "gpt2" else _LlamaOnPaper(llama_config(shape))


def _stream(task: Task, settings: PretrainedSettings, sizes: Sizes) -> StreamData:
    """A stream with the right number of windows; `sizes` may hold only a part of the evaluation windows."""

    def windows(n: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros((1, settings.block), dtype=dtype).expand(n, settings.block)

    whole = settings.measured(task.spec.policy, task.spec.horizon)
    others = sum(whole) - whole.test
    measured = Windows(sizes.test, *(n * sizes.selection // others for n in whole[1:]))
    divided = task.spec.policy.name == "regenerate-fresh"
    counts = torch.ones(settings.model.architecture.vocab_size, dtype=torch.int64)
    return StreamData(
        train=windows(sizes.train or 1, torch.int32),
        parts=task.spec.horizon + 1 if divided else 1,
        measured=measured,
        test=windows(measured.test),
        selection=windows(measured.selection),
        train_counts=counts,
        split_digests={},
        row_starts=[0],
        sha256="",
    )


def llama_config(shape: Architecture) -> LlamaConfig:
    """The configuration of a Llama of this shape."""
    return LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )


def gpt2_config(shape: Architecture) -> GPT2Config:
    """The configuration of a GPT-2 of this shape."""
    return GPT2Config(
        vocab_size=shape.vocab_size,
        n_positions=shape.positions,
        n_embd=shape.hidden_size,
        n_inner=shape.intermediate_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        tie_word_embeddings=shape.tied_embeddings,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
    )


class _OnPaper:
    """Runs the same forward passes as `transformers.generate`; which tokens it chooses does not matter."""

    def generate(self: Any, tokens: Tensor, **arguments: Any) -> Tensor:
        beams = arguments.get("num_beams", 1)
        cache = arguments.get("past_key_values") or DynamicCache(config=self.config)
        written = tokens.repeat_interleave(beams, 0)
        step = written[:, cache.get_seq_length() :]
        for _ in range(arguments["max_new_tokens"]):
            scores = self(step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
            step = scores.log_softmax(-1).argmax(-1, keepdim=True)
            written = torch.cat([written, step], 1)
        return written[::beams]


class _LlamaOnPaper(_OnPaper, LlamaForCausalLM):
    """A Llama that generates only to be counted."""


class _Gpt2OnPaper(_OnPaper, GPT2LMHeadModel):
    """A GPT-2 that generates only to be counted."""


class _Alone(Alone):
    """A single process that does what `collapsebench.workloads.pretrained.accelerated` does on a GPU."""

    def __init__(self, settings: PretrainedSettings):
        self.training_settings = settings.training

    @contextmanager
    def training(
        self, module: nn.Module, optimiser: torch.optim.Optimizer
    ) -> Iterator[tuple[nn.Module, torch.optim.Optimizer]]:
        if self.training_settings.checkpointing:
            checkpointed(module.model, on=True)
        half = _HALF.get(self.training_settings.precision)
        try:
            with nullcontext() if half is None else _Autocast(half):
                yield module, optimiser
        finally:
            if self.training_settings.checkpointing:
                checkpointed(module.model, on=False)


class _Autocast(TorchFunctionMode):
    """Replacement for ``torch.autocast`` on the meta device: float32 matrix products run in half precision."""

    def __init__(self, half: torch.dtype):
        super().__init__()
        self.half = half
        self.weights: dict[int, Tensor] = {}  # cast once per update, as autocast does

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        products = (F.linear, torch.addmm, torch.matmul, Tensor.matmul, Tensor.__matmul__)
        if func in (*products, F.scaled_dot_product_attention):
            args = tuple(self._cast(value) for value in args)
        return func(*args, **kwargs)

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not (value.is_leaf and value.requires_grad) or value._is_view():  # a slice of a weight is short-lived
            return value.to(self.half)
        if id(value) not in self.weights:
            self.weights[id(value)] = value.to(self.half)
        return self.weights[id(value)]

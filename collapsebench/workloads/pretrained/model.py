"""Loads a pretrained causal language model and its tokeniser from the hub (pinned revision) or a local folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from collapsebench.errors import DataError
from collapsebench.workloads.pretrained.settings import PretrainedModel, PretrainedSettings
from collapsebench.workloads.pretrained.supplies import model_place


def load_pretrained(settings: PretrainedModel, folder: Path | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model in float32 on the CPU, and its tokeniser.

    Args:
        folder: local folder with config, safetensors and tokeniser, or with one ``.gguf`` file; None: use the hub.

    Raises:
        DataError: something is missing; the message names it and the option that supplies it.
    """
    where, arguments = model_place(settings, folder)
    tokenizer = load_tokenizer(settings, folder)
    with _as_data_errors(where), _without_progress_bars():
        model, found = AutoModelForCausalLM.from_pretrained(
            where, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **arguments
        )
    if missing := sorted(found["missing_keys"]):  # transformers would initialise them randomly
        raise DataError(f"the model at {where} lacks weights: {', '.join(missing[:3])}; {len(missing)} in all.")
    if (size := parameters_of(model)) != settings.parameters:
        raise DataError(f"{where} holds a model of {size:,} parameters; the task's has {settings.parameters:,}.")
    # The task alone decides how samples are drawn; a model's own penalties and temperatures would apply silently.
    own = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.config.use_cache = False
    return model, tokenizer


def load_tokenizer(settings: PretrainedModel, folder: Path | None) -> PreTrainedTokenizerBase:
    """Load only the tokeniser; arguments and errors as in `load_pretrained`."""
    where, arguments = model_place(settings, folder)
    with _as_data_errors(where):
        tokenizer = AutoTokenizer.from_pretrained(where, **arguments)
        if tokenizer.eos_token_id is None:
            end = AutoConfig.from_pretrained(where, **arguments).eos_token_id
            tokenizer.eos_token_id = end[0] if isinstance(end, list) else end
    if tokenizer.eos_token_id is None:
        raise DataError(f"the tokeniser at {where} has no end-of-text token; add one to its configuration.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


@contextmanager
def _as_data_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"the model at {where} cannot be loaded: {' '.join(str(error).split())[:300]}.") from error


def require_length(model: PreTrainedModel, settings: PretrainedSettings) -> None:
    """Raise `DataError` if a model's maximum length is below what its task needs."""
    sampler, evaluation = settings.sampler, settings.evaluation
    needs = {
        "windows of training": settings.block,
        "context and what is written after it": sampler.context + sampler.new_tokens,
        "items of the evaluation": evaluation.max_length if evaluation.knowledge or evaluation.harness else 0,
    }
    largest = max(needs, key=lambda name: needs[name])
    known = getattr(model.config, "max_position_embeddings", None)
    if known is not None and known < needs[largest]:
        raise DataError(
            f"the model reads {known} tokens at once, the task needs {needs[largest]} ({largest}): use the task's own "
            "model."
        )


@torch.no_grad()  # not inference mode: a model may keep what it computes here and be trained later
def require_plain_head(model: PreTrainedModel) -> None:
    """Raise `DataError` if a model changes its logits after the output embedding, which losses would not see."""
    tokens = torch.arange(8)[None] % model.config.vocab_size
    hidden = model.base_model(tokens, use_cache=False).last_hidden_state
    expected = hidden @ model.get_output_embeddings().weight.T
    if not torch.allclose(model(tokens, use_cache=False).logits, expected, rtol=1e-3, atol=1e-3):
        raise DataError(
            f"{type(model).__name__} scales, caps or shifts its logits after the output embedding; only models that do "
            "not (Llama, Gemma 3, Qwen, …) can be trained here."
        )


def weights_digest(model: PreTrainedModel) -> str:
    """sha256 of a model's weights, independent of the file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy())
    return digest.hexdigest()


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def parameters_of(model: torch.nn.Module) -> int:
    """Number of parameters, counting tied ones once."""
    return sum({p.data_ptr(): p.numel() for p in model.parameters()}.values())

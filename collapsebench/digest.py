"""The digest of a task's specification, which covers everything that can change a result.

A digest identifies published results, so it must not change when the schema grows. An optional field that is not in
`_FIRST` is left out while it has its default, so a task without it keeps the digest from before the field existed.
Adding a field therefore needs no entry here. In exchange, a published default must never change: for fields of the
first version the digest would change, and for later fields the same digest would mean something else.
``tests/published_defaults.json`` lists all defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

# Never part of a digest: what is shown, which seeds are official, and how raw metrics become fidelities and verdicts.
_NEVER: Mapping[str, frozenset[str]] = {
    "TaskSpec": frozenset({"title", "retired", "beside", "seeds", "scored", "calibrated_on", "checks"}),
    "Base": frozenset({"file"}),  # its content has a separate digest
}

# The optional fields of the first version of the schema. They are in every digest, even at their default.
_FIRST: Mapping[str, frozenset[str]] = {
    section: frozenset(names.split())
    for section, names in {
        "TaskSpec": "threads splits",
        "LocalText": "documents",
        "HubText": "config split column",
        "HubSplits": "column",
        "LocalSplits": "column",
        "Splits": "test selection train_chars",
        "ImageSplits": "test_images train_images",
        "Policy": "real_share",
        "Training": "weight_decay betas clip_norm",
        "Sampler": "top_k top_p batch_size",
        "Evaluation": "batch_size",
        "PretrainedModel": "hub revision path",
        "Architecture": "tied_embeddings head_dim",
        "FineTuning": "betas weight_decay clip_norm precision checkpointing",
        "StreamSampler": "beams repetition_penalty temperature top_p batch_size",
        "PretrainedEvaluation": "knowledge harness max_length batch_size",
        "KnowledgeTest": "url sha256",
        "HarnessTask": "task dataset revision local file format config subset limit num_fewshot metric chance",
        "ImageEvaluation": "classifier batch_size",
        "VaeSampler": "batch_size",
        "DiffusionSettings": "normalisation sampler sigma ema_decay",
        "UNet": "layers attention mid_attention groups ddpm_convention",
        "NoiseSchedule": "train_steps beta_schedule beta_end",
        "Normalisation": "mean std",
        "DiffusionSampler": "batch_size",
        "GmmSettings": "sampler",
        "MixtureModel": "learned",
        "MixtureSampler": "temperature",
    }.items()
}


def digest_of(spec: BaseModel) -> str:
    """sha256 of a specification, without the fields that are never part of it and later ones at their defaults."""
    content = _covered(spec, spec.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _covered(value: Any, plain: Any) -> Any:
    """The part of a value that a digest covers.

    Args:
        value: a section, or anything in one. plain: the same value as JSON.
    """
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if _is_covered(value, name)]
        return {name: _covered(getattr(value, name), plain[name]) for name in names}
    if isinstance(value, tuple | list):
        return [_covered(part, as_json) for part, as_json in zip(value, plain, strict=True)]
    if isinstance(value, dict):
        return {key: _covered(part, plain[key]) for key, part in zip(plain, value.values(), strict=True)}
    return plain


def _is_covered(section: BaseModel, name: str) -> bool:
    if _is_listed(_NEVER, type(section), name):
        return False
    field = type(section).model_fields[name]
    if field.is_required() or _is_listed(_FIRST, type(section), name):
        return True
    return bool(getattr(section, name) != field.get_default(call_default_factory=True, validated_data={}))


def _is_listed(listing: Mapping[str, frozenset[str]], section: type[BaseModel], name: str) -> bool:
    """Whether the listing has a field under the section's name, or under that of one of its base classes."""
    return any(name in listing.get(base.__name__, ()) for base in section.__mro__)

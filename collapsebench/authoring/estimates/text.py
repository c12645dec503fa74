"""What a text task costs; its model is a small Llama, see `collapsebench.authoring.estimates.causal_lm`."""

from __future__ import annotations

from dataclasses import replace

from collapsebench.authoring.estimates.causal_lm import (
    CausalLm,
    LmPlan,
    causal_lm_flops,
    causal_lm_memory,
    scoring_flops,
)
from collapsebench.authoring.estimates.costs import FLOAT, Costs
from collapsebench.task import Task
from collapsebench.workloads.text.settings import TextSettings
from collapsebench.workloads.work import Sizes

_VERSIONS = 4  # sequences per knowledge pair
_PAIR_TOKENS, _PAIR_SCORED = 38, 14  # mean length of such a sequence, and of its scored part
_TOKEN = 4  # bytes of a token on disk


def text_costs(task: Task, sizes: Sizes, samples: int) -> Costs:
    """Costs of a task whose workload is text.

    Args:
        samples: that a generation draws.
    """
    settings = task.spec.workload
    assert isinstance(settings, TextSettings)
    model, plan = language_model(settings), training_plan(settings, samples)
    flops, memory = causal_lm_flops(model, plan), causal_lm_memory(model, plan)
    together = min(settings.evaluation.batch_size, max(sizes.test, sizes.selection))
    scoring = causal_lm_memory(model, replace(plan, batch_size=together))
    pair = _VERSIONS * scoring_flops(model, _PAIR_TOKENS, _PAIR_SCORED)
    pairs = settings.evaluation.pairs
    assumed = f"each of the {pairs} pairs is assumed to be four sequences of {_PAIR_TOKENS} tokens"
    return Costs(
        parameters=model.parameters,
        update=flops.update,
        sample=flops.sample,
        evaluation={"windows": (sizes.test + sizes.selection) * flops.window, "knowledge pairs": pairs * pair},
        gallery=0,
        memory=replace(memory, evaluation=scoring.evaluation),
        model_bytes=FLOAT * model.parameters,
        item_bytes=_TOKEN * settings.block,
        notes=(*([assumed] if pairs else []), *sizes.notes),
    )


def language_model(settings: TextSettings) -> CausalLm:
    """The shape of a text task's model."""
    size = settings.model
    return CausalLm(size.hidden_size, size.layers, size.heads, size.heads, size.intermediate_size, settings.vocab_size)


def training_plan(settings: TextSettings, samples: int) -> LmPlan:
    """How a text task trains its model and lets it write so many samples."""
    return LmPlan(
        block=settings.block,
        batch_size=settings.training.batch_size,
        prompt_tokens=settings.sampler.prompt_tokens,
        new_tokens=settings.block,
        sample_batch=min(samples, settings.sampler.batch_size),
    )

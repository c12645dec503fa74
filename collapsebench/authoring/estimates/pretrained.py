"""What a task with a pretrained language model costs: fine-tuning, rewriting its stream, scoring."""

from __future__ import annotations

from dataclasses import replace

from collapsebench.authoring.estimates.causal_lm import CausalLm, LmPlan, causal_lm_flops, causal_lm_memory
from collapsebench.authoring.estimates.costs import FLOAT, Costs
from collapsebench.task import Task
from collapsebench.workloads.pretrained.settings import PretrainedSettings
from collapsebench.workloads.work import Sizes

_TOKEN = 4  # bytes of a token on disk


def pretrained_costs(task: Task, sizes: Sizes, samples: int) -> Costs:  # noqa: ARG001  (one signature for all kinds)
    """Costs of a task whose workload is a pretrained language model, in its precision on a GPU.

    Args:
        samples: windows that a generation rewrites, chunk by chunk.
    """
    settings = task.spec.workload
    assert isinstance(settings, PretrainedSettings)
    training, sampler = settings.training, settings.sampler
    model = CausalLm(**settings.model.architecture.model_dump())
    plan = LmPlan(
        block=settings.block,
        batch_size=training.micro_batch,
        accumulation=training.batch_size // training.micro_batch,
        checkpointing=training.checkpointing,
        precision="float32" if training.precision == "float32" else "bf16-mixed",
        prompt_tokens=sampler.context,
        new_tokens=sampler.new_tokens,
        beams=sampler.beams if sampler.method == "beam" else 1,
        sample_batch=sampler.batch_size,
    )
    flops, memory = causal_lm_flops(model, plan), causal_lm_memory(model, plan)
    scoring = causal_lm_memory(model, replace(plan, batch_size=settings.evaluation.batch_size))
    chunks = settings.block // sampler.new_tokens
    notes = []
    if settings.evaluation.harness or settings.evaluation.knowledge:
        notes.append("the KR-test and the tasks of lm-eval are not counted: their items are not known here")
    return Costs(
        parameters=settings.model.parameters,
        update=flops.update,
        sample=chunks * flops.sample,
        evaluation={"windows": (sizes.test + sizes.selection) * flops.window},
        gallery=0,
        memory=replace(memory, evaluation=scoring.evaluation),
        model_bytes=FLOAT * settings.model.parameters,
        item_bytes=_TOKEN * settings.block,
        notes=(*notes, *sizes.notes),
    )

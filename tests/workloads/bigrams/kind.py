"""The record of bigram tasks."""

from __future__ import annotations

from bigrams.settings import LETTERS, BigramSettings
from collapsebench.authoring.estimates.costs import FLOAT, Costs, adam_memory
from collapsebench.data.sources import Splits
from collapsebench.task import Task
from collapsebench.workloads.kind import Kind, Passes
from collapsebench.workloads.work import Sizes

_CELLS = len(LETTERS) ** 2


def bigram_costs(task: Task, sizes: Sizes, samples: int) -> Costs:
    """A row of the table is normalised for every letter; each operation on a number of it is a FLOP."""
    settings = task.spec.workload
    assert isinstance(settings, BigramSettings)
    line = 3 * len(LETTERS) * settings.line
    return Costs(
        parameters=_CELLS,
        update=3 * settings.training.batch_size * line,
        sample=line,
        evaluation={"lines": settings.test_lines * line},
        gallery=0,
        memory=adam_memory(_CELLS, FLOAT * settings.training.batch_size * line, (line, line)),
        model_bytes=FLOAT * _CELLS,
        item_bytes=FLOAT * settings.line,
        notes=sizes.notes,
    )


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
    cost="bigrams.kind:bigram_costs",
    sources=("local",),
    splits=Splits,
    metrics=("perplexity", "next_token_accuracy", "token_loss"),
)

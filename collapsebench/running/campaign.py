"""A campaign: the planned chains of a task and their cost, in ``campaign.yaml`` next to the task file.

It is a checkable statement of intent: a file written for other settings of the task is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from collapsebench.errors import TaskError
from collapsebench.frozen import Frozen
from collapsebench.methods import CONTROL
from collapsebench.task import Task, load_task
from collapsebench.task_files import read_mapping
from collapsebench.task_spec import DIGITS

CAMPAIGN_FILE = "campaign.yaml"


class Cost(Frozen):
    """The cost of one chain according to ``collapsebench estimate``, times the number of chains.

    Attributes:
        tflops: sustained rate in every phase, for which hours are given; assumed, not measured.
        hours_per_chain, hours: hours of one device at that rate. disk_gb: size of weights and samples.
    """

    tflops: float = Field(gt=0)
    hours_per_chain: float = Field(gt=0)
    hours: float = Field(gt=0)
    disk_gb: float = Field(gt=0)


class Campaign(Frozen):
    """The chains of methods × seeds over the whole horizon of a task.

    Attributes:
        task: id of the task. settings: beginning of its digest, `Task.sha256`.
        methods: ce and the control first, since the scale is measured on them. seeds: those of the task.
    """

    schema_version: Literal[1]
    task: str
    settings: str = Field(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")
    methods: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    cost: Cost

    @property
    def chains(self) -> int:
        """The number of chains."""
        return len(self.methods) * len(self.seeds)


def load_campaign(file: Path) -> tuple[Campaign, Task]:
    """Read a campaign and the task next to it.

    Raises:
        TaskError: the file does not exist, has errors or was written for another task; all errors are listed.
    """
    if not file.is_file():
        raise TaskError(f"{file}: no such campaign.")
    task = load_task(file.parent / "task.yaml")
    try:
        campaign = Campaign.model_validate(read_mapping(file.read_text("utf-8"), file))
    except ValidationError as error:
        wrong = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (given: {e['input']!r})" for e in error.errors()]
        raise TaskError("\n".join([f"{file} has {len(wrong)} error(s):", *wrong])) from error
    if problems := _problems(campaign, task):
        raise TaskError("\n".join([f"{file} does not fit {task.id}:", *(f"  {problem}" for problem in problems)]))
    return campaign, task


def _problems(campaign: Campaign, task: Task) -> list[str]:
    wanted = {
        "task": (campaign.task, task.id),
        "settings": (campaign.settings, task.sha256[:DIGITS]),
        "seeds": (list(campaign.seeds), list(task.spec.seeds)),
        "methods, the first two": (list(campaign.methods[:2]), ["ce", CONTROL]),
    }
    found = [f"{name}: {given}, the task has {has}" for name, (given, has) in wanted.items() if given != has]
    twice = sorted({name for name in campaign.methods if campaign.methods.count(name) > 1})
    return [*found, *(f"methods: {name} twice" for name in twice)]

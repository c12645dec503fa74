"""Write the campaign of a task: its methods and seeds, and their cost according to `collapsebench estimate`.

    python -m collapsebench.authoring.campaign text-wikitext2-gpt2 --tflops 100

Nothing is run. The rate is an assumption; hours are inversely proportional to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from collapsebench.authoring.estimate import estimate
from collapsebench.errors import TaskError
from collapsebench.files import write_atomically
from collapsebench.methods import CONTROL
from collapsebench.running.campaign import CAMPAIGN_FILE, Campaign, Cost
from collapsebench.task import Task, load_task
from collapsebench.task_spec import DIGITS

METHODS = ("ce", CONTROL, "focal", "tce")


def campaign_of(task: Task, tflops: float, methods: tuple[str, ...] = METHODS) -> Campaign:
    """The campaign of these methods on all official seeds of a task, with its cost at a sustained rate."""
    found, chains = estimate(task), len(methods) * len(task.spec.seeds)
    hours = found.hours(tflops)
    return Campaign(
        schema_version=1,
        task=task.id,
        settings=task.sha256[:DIGITS],
        methods=methods,
        seeds=task.spec.seeds,
        cost=Cost(
            tflops=tflops,
            hours_per_chain=_short(hours),
            hours=_short(hours * chains),
            disk_gb=_short(found.total.disk * chains / 1e9),
        ),
    )


def text_of(campaign: Campaign) -> str:
    """The text of the file, which begins with the command that runs the campaign."""
    cost = campaign.cost
    return f"""# collapsebench compare {campaign.task.split("@")[0]} --methods {",".join(campaign.methods)}
schema_version: 1
task: {campaign.task}
settings: "{campaign.settings}"
methods: [{", ".join(campaign.methods)}]
seeds: {list(campaign.seeds)}
cost:                   # by `collapsebench estimate`, at an assumed rate: a lower bound, never measured
  tflops: {cost.tflops:g}
  hours_per_chain: {cost.hours_per_chain:g}
  hours: {cost.hours:g}
  disk_gb: {cost.disk_gb:g}
"""


def _short(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")


def main() -> None:
    """Write the file next to the task file."""
    parser = argparse.ArgumentParser(description="Write a task's campaign.yaml.")
    parser.add_argument("task")
    parser.add_argument("--tflops", type=float, required=True, help="sustained rate that is assumed, in TFLOP/s")
    given = parser.parse_args()
    try:
        task = load_task(given.task)
    except TaskError as error:
        parser.error(str(error))
    file: Path = task.path.parent / CAMPAIGN_FILE
    write_atomically(file, text_of(campaign_of(task, given.tflops)))
    print(file)


if __name__ == "__main__":
    main()

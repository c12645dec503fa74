"""Judge the cheats on ranked tasks, and write what became of them into ``docs/cheats.md``. Resumes where it stopped.

    python tests/cheats/run.py [TASK …] [--out runs/cheats] [--seeds 5] [--generations G] [--write docs/cheats.md]

Without a task: every ranked micro task. Exits with 1 where rule 2 is broken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from judging import Judgement, Verdict, judge, ranked_micro_tasks

from collapsebench.files import write_atomically, write_json
from collapsebench.running.progress import Event
from collapsebench.running.progress_display import plain_console
from collapsebench.task import CHEATS_FILE, load_task

INTRODUCTION = """# Cheats

Made by `python tests/cheats/run.py TASK … --write docs/cheats.md`; the losses are in [tests/cheats/](../tests/cheats/).
Of each family that shares a kind of model and its start, one task is judged; what has no section here was not judged
yet. On a ranked task, a loss that learns less is significantly worse than cross entropy. A loss that is the same in
another unit ties with it. A loss that looks at what it must not see is refused, exposed by `verify`, or not
significantly better (two-sided paired t-test, 5 %). Only a leak that pays is handed to `verify`, so one that does not
pay here says nothing about a better way to use the same leak. A difference whose whole 95 % interval is within 2 % of
cross entropy's mFI also counts as a tie. With five seeds, a tie says little unless the difference is exactly 0: see its
interval. Distortions are shown, but no rule decides on them.
"""


def main() -> int:
    """Judge, print, write; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="registered names or task files; every ranked micro task when absent")
    parser.add_argument("--out", type=Path, default=Path("runs/cheats"), help="directory of the runs")
    parser.add_argument("--seeds", type=int, default=5, help="how many of the official seeds")
    parser.add_argument("--generations", type=int, help="the last generation; the task's horizon when absent")
    parser.add_argument("--write", type=Path, help=f"page for the tables; also {CHEATS_FILE} beside each task")
    given = parser.parse_args()
    tasks = [load_task(name) for name in given.tasks] or list(ranked_micro_tasks())
    console = plain_console(stderr=True)

    def listener(event: Event) -> None:
        if event.phase in ("complete", "diverged"):
            told = f"{event.method} seed {event.seed}: generation {event.generation} {event.phase}"
            console.print(told, markup=False, highlight=False)

    sections, broken = {}, False
    for task in tasks:
        last = task.spec.horizon if given.generations is None else given.generations
        found = judge(task, given.out, task.spec.seeds[: given.seeds], last, listener=listener)
        sections[task.spec.name] = table(found)
        rule = judged(found)
        broken |= not rule["kept"]
        if given.write is not None:
            write_json(task.path.parent / CHEATS_FILE, {"sha256": task.sha256, "seeds": found.seeds, "rules": [rule]})
            old = given.write.read_text("utf-8") if given.write.exists() else ""
            write_atomically(given.write, page(old, sections))
        print(sections[task.spec.name], flush=True)
    if not tasks:
        print("No registered task is micro, ranked and calibrated at the moment.")
    return int(broken)


def page(old: str, sections: dict[str, str]) -> str:
    """The page `old` with the sections of these tasks, by name; those of other tasks stay."""
    parts = {part.partition("@")[0]: f"## {part.rstrip()}\n" for part in old.split("\n## ")[1:]}
    return "\n".join([INTRODUCTION, *(text for _, text in sorted({**parts, **sections}.items()))])


def judged(found: Judgement) -> dict[str, object]:
    """Rule 2 on a task: its name, whether it is kept, and what was found, as calibration writes its rules."""
    wrong = [verdict for verdict in found.verdicts if verdict.holds is False]
    told = "; ".join(f"{v.cheat.loss.partition(':')[2]} is {v.outcome} (mFI {v.mfi:.2f})" for v in wrong)
    count = sum(verdict.holds is not None for verdict in found.verdicts)
    return {"rule": "cheats", "kept": not wrong, "told": f"cheats: {told or f'all {count} behave as rule 2 says'}"}


def table(found: Judgement) -> str:
    """The verdicts on a task as a Markdown table."""
    ce = f"Cross entropy: mFI {found.mfi:.2f}" + ("" if found.novelty is None else f", novelty {found.novelty:.2f}")
    lines = [
        f"## {found.task.id}",
        "",
        f"{ce}; {found.seeds} seeds.",
        "",
        "| cheat | group | mFI | difference to ce | p | novelty | outcome | rule 2 |",
        "|---|---|--:|--:|--:|--:|---|---|",
        *(_row(verdict) for verdict in found.verdicts),
    ]
    return "\n".join(lines) + "\n"


def _row(v: Verdict) -> str:
    numbers = ["", "", "", ""]
    if v.mfi is not None:
        novelty = "" if v.novelty is None else f"{v.novelty:.2f}"
        numbers = [f"{v.mfi:.2f}", f"{v.difference:+.3f} [{v.low:+.3f}, {v.high:+.3f}]", f"{v.p:.2g}", novelty]
    name = v.cheat.loss.partition(":")[2]
    outcome = v.outcome + (f": {v.told}" if v.outcome == "caught" else "")
    rule = {None: "shown only", True: "holds", False: "**broken**"}[v.holds]
    return f"| {' | '.join([name, v.cheat.group, *numbers, outcome, rule])} |"


if __name__ == "__main__":
    sys.exit(main())

"""Curves of TCE and focal over their parameters: how far the papers' values are from the best on a task.

python -m collapsebench.authoring.gamma markov-micro text-bytes-micro --out runs --write docs/gamma.md

The seeds are not official, fidelity is measured on the selection split, and nothing is ranked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from collapsebench.authoring.tuning import SEEDS, Tuned, default_seeds, read_tuning, tuning_cells, variants_of
from collapsebench.files import write_atomically
from collapsebench.running.engines import run_cells
from collapsebench.running.progress import Event
from collapsebench.scoring.columns import interval_text
from collapsebench.scoring.engagement import percent_text
from collapsebench.task import Task, load_task

TRIED = {"tce": "gamma=0.5,0.7,0.8,0.9,0.99", "focal": "gamma=0.5,1,2"}
PUBLISHED = {"tce": "0.9", "focal": "2"}


def measure(task: Task, out: Path, device: str) -> Tuned:
    """Run the missing cells of a task and compare them, on a quarter of the number of official seeds, or three."""
    seeds = default_seeds(task, max(SEEDS, len(task.spec.seeds) // 4))
    methods = [variant for method, tried in TRIED.items() for variant in variants_of(method, [tried])]
    cells = tuning_cells(task, methods, seeds, out, None, device)

    def say(event: Event) -> None:
        if event.phase == "diverged" or (event.phase == "complete" and event.generation == task.spec.horizon):
            print(
                f"{task.id} {event.method} seed {event.seed}: generation {event.generation} {event.phase}", flush=True
            )

    run_cells(cells, "auto", None, say)
    return read_tuning(cells)


def page(found: Sequence[Tuned], command: str, picture: str) -> str:
    """The text of the page: a table and a row of pictures per task."""
    values = "; ".join(f"{method} at {tried.replace(',', ', ')}" for method, tried in TRIED.items())
    parts = [
        "# How much the parameter matters\n",
        f"The board has TCE at γ = {PUBLISHED['tce']} and focal loss at γ = {PUBLISHED['focal']}, the values of their "
        "papers, untuned. Where few elements have p > 0.9, TCE at 0.9 hardly differs from cross entropy, and another γ "
        f"may do more. This page shows {values}, on seeds that are not official, by fidelity on the selection split. "
        "None of it is ranked, and the best of several looks too good by luck. A tuned variant is a separate entry "
        "([protocol](protocol.md) 4).\n",
        f"```\n{command}\n```\n",
    ]
    for tuned in found:
        parts += [f"## {tuned.task.id}\n", _told(tuned), f"![Fidelity by generation]({picture_of(tuned, picture)})\n"]
    return "\n".join(parts)


def picture_of(tuned: Tuned, folder: str) -> str:
    """File name of a task's picture in the documentation."""
    return f"{folder}/gamma-{tuned.task.spec.name}.png"


def panels(tuned: Tuned) -> dict[str, dict[str, tuple[float, ...]]]:
    """Curves by method and variant, including ce."""
    curves = {variant.method: variant.curve for variant in tuned.variants}
    return {method: {name: curves[name] for name in _named(tuned, method)} | {"ce": curves["ce"]} for method in TRIED}


def _named(tuned: Tuned, method: str) -> list[str]:
    """Names of a method's variants, sorted by the parameter; the default's name does not contain the parameter."""
    known = {variant.method for variant in tuned.variants}
    found = []
    for value in TRIED[method].partition("=")[2].split(","):
        found += [
            n for n in (f"{method}:gamma={float(value):g}", f"{method}:gamma={float(value)}", method) if n in known
        ][:1]
    return found


def _told(tuned: Tuned) -> str:
    by_name = {variant.method: variant for variant in tuned.variants}
    lines = ["| method | mFI [95 %] | minus CE [95 %] | masks, of CE's gradient |", "|---|---|---|---|"]
    for name in ["ce", *(n for method in TRIED for n in _named(tuned, method))]:
        variant = by_name[name]
        against = "" if variant.against_ce is None else interval_text(variant.row, "difference_ce")
        masks = "" if variant.masks is None else percent_text(variant.masks)
        lines.append(f"| {name} | {interval_text(variant.row, 'mfi')} | {against} | {masks} |")
    seeds = ", ".join(map(str, tuned.seeds))
    metric = tuned.task.spec.metric(tuned.metric).title
    return "\n".join(lines) + f"\n\nSeeds {seeds}; {metric}; mFI in generations of {tuned.task.spec.horizon}.\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the missing cells, and write the page and its pictures."""
    from collapsebench.reports.plots import save_figure, tuning_figure

    parser = argparse.ArgumentParser(prog="python -m collapsebench.authoring.gamma", description=__doc__)
    parser.add_argument("tasks", nargs="+", help="registered names, or paths of task.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="directory of all runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--write", type=Path, help="the page; pictures go to the folder images beside it")
    given = parser.parse_args(arguments)
    found = [measure(load_task(task), given.out, given.device) for task in given.tasks]
    command = f"python -m collapsebench.authoring.gamma {' '.join(given.tasks)} --out runs --write docs/gamma.md"
    text = page(found, command, "images")
    if given.write is None:
        print(text)
        return
    for tuned in found:
        metric = tuned.task.spec.metric(tuned.metric).title
        picture = given.write.parent / picture_of(tuned, "images")
        save_figure(tuning_figure(tuned.task.id, panels(tuned), f"{metric}, selection split"), picture)
    write_atomically(given.write, text)
    print(f"wrote {given.write}")


if __name__ == "__main__":
    main()

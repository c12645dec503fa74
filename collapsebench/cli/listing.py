"""Listings of tasks, with what is known about them without running anything, and of methods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from collapsebench import __version__
from collapsebench.cli.options import JsonOption, TaskArgument, What
from collapsebench.errors import UserError

if TYPE_CHECKING:
    from collapsebench.authoring.rates import Measured
    from collapsebench.task import Task

TITLE = "collapsebench: a benchmark of model collapse under recursive training"
"""As in ``CITATION.cff``, which an installed package does not have."""

CITATION_FILE = "citation.bib"
"""File beside the card of a task or method: the papers that it comes from."""


def list_(
    what: Annotated[What | None, typer.Argument(help="tasks or methods; default: both.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the registered tasks and methods."""
    tasks = [] if what is What.METHODS else _tasks()
    methods = [] if what is What.TASKS else _methods()
    if as_json:
        found = ({} if what is What.METHODS else {"tasks": tasks}) | (
            {} if what is What.TASKS else {"methods": methods}
        )
        typer.echo(json.dumps(found, indent=1))
        return
    if tasks:
        typer.echo("\n".join(["tasks", *_task_lines(tasks)]))
    if methods:
        typer.echo("methods")
        for method in methods:
            typer.echo(f"  {method['name']:<24} {method['title']}")


def show(task: TaskArgument) -> None:
    """Print a task: its card and everything it fixes."""
    from collapsebench.task import load_task
    from collapsebench.task_files import as_yaml, own_file, read_task_file

    loaded = load_task(task)
    card = own_file(loaded.path, "card.md")
    if card.is_file():
        typer.echo(card.read_text("utf-8"))
    typer.echo(f"--- {loaded.path.name} (digest {loaded.sha256[:16]}) ---")
    typer.echo(loaded.path.read_text("utf-8"))
    if loaded.extended:
        typer.echo(f"--- with what it inherits from {', '.join(map(str, loaded.extended))} ---")
        typer.echo(as_yaml(read_task_file(loaded.path).content))


def cite(name: Annotated[str, typer.Argument(metavar="NAME", help="A task or a method.")]) -> None:
    """Print BibTeX: collapsebench, the task, and the papers that a task or method comes from."""
    from collapsebench.methods import registered_methods
    from collapsebench.parameters import did_you_mean
    from collapsebench.task import load_task, registered_tasks
    from collapsebench.task_files import own_file

    methods, tasks = registered_methods(), registered_tasks()
    entries = [_entry("collapsebench", TITLE, f"Version {__version__}")]
    if name in methods:
        papers = methods[name].parent / CITATION_FILE
    elif name in tasks or name.endswith((".yaml", ".yml")):
        task = load_task(name)
        key = f"collapsebench-{task.spec.name}-{task.spec.version}"
        entries.append(
            _entry(key, f"{task.id}: {task.spec.title}", f"Task of collapsebench, digest {task.sha256[:16]}")
        )
        papers = own_file(task.path, CITATION_FILE)
    else:
        known = [*tasks, *methods]
        raise UserError(f"unknown name {name!r}{did_you_mean(name, known)}. Tasks and methods: {', '.join(known)}.")
    if papers.is_file():
        entries.append(papers.read_text("utf-8").strip())
    typer.echo("\n\n".join(entries))


def _entry(key: str, title: str, note: str) -> str:
    fields = {"title": f"{{{title}}}", "author": "{The collapsebench authors}", "note": note}
    return f"@misc{{{key},\n" + ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items()) + "\n}"


def _tasks() -> list[dict[str, Any]]:
    from collapsebench.authoring.rates import read_measured
    from collapsebench.task import load_task, registered_tasks

    measured = read_measured()
    return [_about(load_task(name), measured) for name in registered_tasks()]


def _about(task: Task, measured: Measured) -> dict[str, Any]:
    """The listed properties of a task."""
    return {
        "task": task.id,
        "tier": task.spec.tier,
        "calibrated": task.calibrated,
        "ranked": task.calibrated and not task.mark,
        "status": _status(task),
        "hours_per_cell": measured.hours(task),
        "title": task.spec.title,
    }


def _status(task: Task) -> str:
    """Ranked, or why not, in a few words."""
    if task.spec.retired:
        return "retired"
    if not task.calibrated:
        return "not calibrated"
    if task.broken_rules:
        return f"not ranked: breaks {', '.join(task.broken_rules)}"
    return "ranked by itself" if task.spec.beside else "ranked"


def _task_lines(tasks: list[dict[str, Any]]) -> list[str]:
    from collapsebench.authoring.rates import duration_text

    shown = ("task", "tier", "status")
    widths = {name: max(len(task[name]) for task in tasks) for name in shown}
    known = any(task["hours_per_cell"] is not None for task in tasks)
    lines = []
    for task in tasks:
        hours = task["hours_per_cell"]
        time = f"{'–' if hours is None else duration_text(hours):>9} " if known else ""
        lines.append("  " + " ".join(f"{task[name]:<{widths[name]}}" for name in shown) + f" {time} {task['title']}")
    told = "time per method and seed on this machine, as measured" if known else "no times: not measured here"
    return [*lines, f"  ({told} by `collapsebench doctor --measure`)"]


def _methods() -> list[dict[str, str]]:
    from collapsebench.methods import CONTROL, registered_methods

    found = []
    for name, path in registered_methods().items():
        title = (path.parent / "card.md").read_text("utf-8").splitlines()[0].lstrip("# ")
        found.append({"name": name, "title": title})
    return [
        *found,
        {"name": CONTROL, "title": "ce on real data in every generation: separates collapse from over-training"},
    ]

"""The process of one generation, started by `collapsebench.running.isolated`: order on stdin, events on a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collapsebench.errors import CollapsebenchError, RunError, UserError
from collapsebench.methods import Contestant, load_method_with
from collapsebench.resources import Resources
from collapsebench.running.artifacts import RunDirectory
from collapsebench.running.cells import Cell, in_one_line, run_cell
from collapsebench.running.progress import Event
from collapsebench.task import load_task


def main() -> None:
    """Run the order on stdin; write events and the result to the file descriptor given as the first argument."""
    order = json.load(sys.stdin)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as pipe:

        def tell(**message: Any) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        try:
            _carry_out(order, lambda event: tell(event=asdict(event)))
        except BrokenPipeError:
            raise
        except CollapsebenchError as error:
            tell(end={"kind": type(error).__name__, "text": str(error)})
        except Exception as error:
            tell(end={"kind": RunError.__name__, "text": in_one_line(error)})
        else:
            tell(end={})


def _carry_out(order: dict[str, Any], listener: Callable[[Event], None]) -> None:
    task = load_task(order["task"], order["budget"], Resources.model_validate(order["resources"]))
    method = load_method_with(order["loss"], order["parameters"], task.spec.workload.kind)
    _require_same(method, order)
    g, run = order["generation"], Path(order["run"])
    cell = Cell(task, method, order["seed"], run.parent, g, order["device"])
    run_cell(cell, listener, RunDirectory(run), first=g)


def _require_same(method: Contestant, order: dict[str, Any]) -> None:
    """Raise `UserError` unless the method is the expected one, which for an installed package is known only now."""
    if method.source_sha256 != order["source_sha256"]:
        raise UserError(other_source(order["shown"], method.source_sha256, order["source_sha256"]))
    if method.track != order["track"]:
        raise UserError(f"{order['shown']} is of track {method.track}, not of track {order['track']} as submitted.")


def other_source(named: str, found: str, wanted: str) -> str:
    """The message for a loss that is not the submission's."""
    return (
        f"{named} is not the loss that was submitted: its sha256 is {found}, the submission has {wanted}. Give the "
        "submitted version with --method path/to/file.py:ClassName."
    )


if __name__ == "__main__":
    main()

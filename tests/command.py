"""Run the command line in a process of its own, forked from one that has torch imported: fast, and killable."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

PATIENCE = 120  # seconds after which a process that should have ended is a failure

_context: ForkServerContext = multiprocessing.get_context("forkserver")
_IMPORTED = (
    *("api", "cli.main", "cli.submissions", "cli.terminal", "reports.report", "reports.plots", "running.loop"),
    *("workloads.text.workload", "workloads.images.vae", "workloads.images.diffusion", "workloads.mixture.workload"),
    "workloads.markov.workload",
)
assert all(find_spec(f"collapsebench.{name}") for name in _IMPORTED)  # the server passes over what does not exist
_context.set_forkserver_preload([*(f"collapsebench.{name}" for name in _IMPORTED), "frozen_heap"])


@dataclass(frozen=True)
class Finished:
    """A command that has ended: exit code, and what it printed on either stream."""

    code: int | None
    out: str
    err: str


class Command:
    """A running ``collapsebench …``."""

    def __init__(self, arguments: list[str], cwd: Path, before: Callable[[], None] | None = None):
        self._folder = Path(tempfile.mkdtemp(prefix="command-", dir=os.environ["COLLAPSEBENCH_CACHE"]))
        self.process = start(_command, arguments, str(cwd), str(self._folder), before)

    def finished(self) -> Finished:
        """Wait for the end."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {PATIENCE} s; so far: {self.output('err')}")
        return Finished(self.process.exitcode, self.output("out"), self.output("err"))

    def output(self, stream: str) -> str:
        file = self._folder / stream
        return file.read_text("utf-8") if file.is_file() else ""


def collapsebench(*arguments: object, cwd: Path, before: Callable[[], None] | None = None) -> Finished:
    """Run a command to its end in a directory; `before` is called in its process first."""
    return Command([str(a) for a in arguments], cwd, before).finished()


def python(
    *arguments: object, cwd: Path, stdin: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter; it reads `stdin` where that is given."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        input=stdin,
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )


def start(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a function of a test module in a forked process."""
    process = _context.Process(target=function, args=arguments)
    process.start()
    return process


def forking_workers(_: str) -> ForkServerContext:
    """Replacement for `multiprocessing.get_context`, with workers that need not import torch again."""
    return _context


def _command(arguments: list[str], cwd: str, folder: str, before: Callable[[], None] | None) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    os.chdir(cwd)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    from collapsebench.cli.main import main
    from collapsebench.running import engines

    engines.cpu_count = lambda: 1  # so that engine auto stays in this process: workers take seconds to import torch
    if before is not None:
        before()

    sys.argv = ["collapsebench", *arguments]
    main()


def with_methods(task: Path, methods: str, out: str = "runs", *more: object) -> list[object]:
    return ["compare", task, "--methods", methods, "--out", out, "--device", "cpu", *more]

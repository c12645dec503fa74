"""Ctrl-C: a run that can go on, a sentence that says how, and no process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import PATIENCE, Command, collapsebench, with_methods
from tiny_task import results, write_tiny_task


def until(condition: Callable[[], object], command: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, command
        time.sleep(0.01)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A task that takes long enough to be interrupted."""
    return write_tiny_task(tmp_path / "slow", **{"workload.training.later.updates": 80, "seeds": [0]})


def check_stopped(code: int | None, err: str, group: int) -> None:
    assert code == 130, err
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    until(lambda: group_is_gone(group), "a process is left behind")


def check_resumed(slow: Path, tmp_path: Path) -> None:
    again = collapsebench(*with_methods(slow, "ce,tce", "runs", "--engine", "inline"), cwd=tmp_path)
    assert again.code == 0, again.err
    assert "generation 0/3 reused" in again.err
    assert "generation 3/3 complete" in again.err
    assert collapsebench(*with_methods(slow, "ce,tce", "whole", "--engine", "inline"), cwd=tmp_path).code == 0
    for method in ("ce", "tce"):
        path = f"tiny@1/{method}/seed-0"
        assert results(tmp_path / "runs" / path) == results(tmp_path / "whole" / path)


def test_ctrl_c_leaves_a_resumable_run_and_no_process(slow: Path, tmp_path: Path) -> None:
    arguments = [str(a) for a in with_methods(slow, "ce,tce", "runs", "--engine", "inline")]
    command = Command(arguments, tmp_path)
    until((tmp_path / "runs/tiny@1/ce/seed-0/.gen-1.partial").exists, "compare did not start")
    os.killpg(command.process.pid, signal.SIGINT)
    finished = command.finished()
    check_stopped(finished.code, finished.err, command.process.pid)
    check_resumed(slow, tmp_path)


def interrupted_in_compiled_code() -> None:
    """The second generation is saved by code that turns Ctrl-C into an error of its own."""
    from collapsebench.running import loop

    original, calls = loop.save_file, []

    def dying(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
            except KeyboardInterrupt:
                raise ValueError("could not determine the shape") from None
        original(*arguments)

    loop.save_file = dying


def test_ctrl_c_that_a_library_turns_into_another_error_is_still_ctrl_c(slow: Path, tmp_path: Path) -> None:
    arguments = [str(a) for a in with_methods(slow, "ce,tce", "runs", "--engine", "inline")]
    command = Command(arguments, tmp_path, interrupted_in_compiled_code)
    finished = command.finished()
    check_stopped(finished.code, finished.err, command.process.pid)
    assert "tce seed 0" not in finished.err


@pytest.fixture
def with_workers(slow: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A comparison in worker processes, as started from a shell."""
    arguments = with_methods(slow, "ce,tce", "runs", "--engine", "local")
    process = subprocess.Popen(
        [sys.executable, "-m", "collapsebench", *map(str, arguments)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A background job of a shell ignores the signal, and its children do.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    yield process
    if not group_is_gone(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow  # Ctrl-C in one process, and while workers start, are in the default tests
def test_ctrl_c_with_workers_leaves_a_resumable_run_and_no_process(
    slow: Path, tmp_path: Path, with_workers: subprocess.Popen[str]
) -> None:
    """As in a shell: the whole process group gets the signal, workers too."""
    until(lambda: list(tmp_path.glob("runs/tiny@1/*/seed-0/.gen-1.partial")), "compare did not start")
    os.killpg(with_workers.pid, signal.SIGINT)
    _, err = with_workers.communicate(timeout=PATIENCE)
    check_stopped(with_workers.returncode, err, with_workers.pid)
    check_resumed(slow, tmp_path)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks at processes through /proc")
def test_ctrl_c_while_workers_start_is_quiet(with_workers: subprocess.Popen[str]) -> None:
    until(lambda: any("spawn_main" in command for command in children_of(with_workers.pid)), "no worker was started")
    os.killpg(with_workers.pid, signal.SIGINT)
    _, err = with_workers.communicate(timeout=PATIENCE)
    check_stopped(with_workers.returncode, err, with_workers.pid)


def children_of(pid: int) -> list[str]:
    """Command lines of a process's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}/cmdline").read_text() for child in children if Path(f"/proc/{child}").exists()]

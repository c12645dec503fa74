"""A run directory shared by several processes: all of them read it, and only the first writes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collapsebench.running.artifacts import RunDirectory, State
from collapsebench.workloads.processes import is_first


class SharedRun(RunDirectory):
    """A run directory that several processes read and the first one writes, on shared storage."""

    @contextmanager
    def opened(self, identity: dict[str, Any], origin: dict[str, Any], circumstances: dict[str, Any]) -> Iterator[None]:
        """Like `RunDirectory.opened`; the first process holds the lock for all."""
        if is_first():
            with super().opened(identity, origin, circumstances):
                _wait()
                yield
                _wait()
        else:
            _wait()
            yield
            _wait()

    def state(self, g: int) -> State:
        """Like `RunDirectory.state`, with the same result in every process."""
        from accelerate.utils import broadcast_object_list

        answer: list[State] = [super().state(g)] if is_first() else ["missing"]
        broadcast_object_list(answer)
        return answer[0]

    @contextmanager
    def writing(self, g: int) -> Iterator[Path]:
        """Like `RunDirectory.writing`; files written by the other processes are discarded."""
        if is_first():
            with super().writing(g) as folder:
                yield folder
        else:
            with tempfile.TemporaryDirectory(prefix="collapsebench-") as scratch:
                yield Path(scratch)
        _wait()


def _wait() -> None:
    from accelerate import PartialState

    PartialState().wait_for_everyone()

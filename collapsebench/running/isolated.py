"""Runs a chain with isolated generations: each has its own process, folder and home directory.

State that a loss keeps in memory or in a file is lost between generations, so a chain that relies on it gives other
numbers here. The child process is `collapsebench.running.one_generation`. For what this cannot prevent, such as a file
at a fixed path, see ``docs/protocol.md``, section 10.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collapsebench import errors
from collapsebench.errors import CollapsebenchError, RunError
from collapsebench.paths import cache_dir
from collapsebench.policies import generations_read
from collapsebench.running.artifacts import MARKER, RunDirectory
from collapsebench.running.cells import Cell, how_it_ended
from collapsebench.running.progress import Event, Listener

_SAMPLES = "samples.safetensors"
_LAST_ONLY = ("model.safetensors", "method.safetensors", MARKER)
_ORIGIN = ("task_file", "loss", "spec", "description")


@dataclass(frozen=True)
class Named:
    """A method to be loaded by a separate process, with its expected digest and track.

    Attributes:
        loss: ``path/to/my_loss.py:MyLoss``, ``tce`` or ``my_package.losses:MyLoss``. file: the file of the first form.
        parameters: parameters with their types. source_sha256, track: expected values.
    """

    loss: str
    file: Path | None
    parameters: dict[str, Any]
    source_sha256: str
    track: str


def run_isolated(cell: Cell, named: Named, listener: Listener) -> None:
    """Run a chain with a new process for every generation; finished generations are reused.

    The method is loaded only in those processes; of `cell.method`, only name and id are used.

    Raises:
        UserError: the method cannot be loaded, or is not the expected one. RunError: a generation failed.
    """
    store = cell.directory
    with ExitStack() as opened:
        locked = False
        for g in range(cell.generations + 1):
            state = store.state(g)
            if state == "missing":
                with _scratch() as scratch:
                    made = _generation(cell, named, g, scratch, listener)
                    if not locked:
                        opened.enter_context(_opened(store, made))
                        locked = True
                    with store.writing(g) as folder:
                        for file in made.generation(g).iterdir():
                            if file.name != MARKER and file.is_file() and not file.is_symlink():
                                shutil.copyfile(file, folder / file.name)
                state = store.state(g)
            else:
                listener(Event(cell.method.name, cell.seed, g, "reused"))
            if state == "diverged":
                return


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="collapsebench-", ignore_cleanup_errors=True) as name:
        yield Path(name).resolve()


@contextmanager
def _opened(store: RunDirectory, made: RunDirectory) -> Iterator[None]:
    """Lock the run's directory under the identity that a generation reported."""
    about = json.loads((made.path / "run.json").read_text("utf-8"))
    origin = {key: about.pop(key) for key in _ORIGIN}
    circumstances = about.pop("circumstances")
    identity = {key: value for key, value in about.items() if key not in ("schema_version", "resumed")}
    with store.opened(identity, origin, circumstances):
        yield


def _generation(cell: Cell, named: Named, g: int, scratch: Path, listener: Listener) -> RunDirectory:
    """Run one generation in a process of its own and return the directory that it wrote."""
    for name in ("work", "home", "tmp", "loss", "run"):
        (scratch / name).mkdir()
    _hand_over(cell, g, scratch / "run")
    loss = named.loss
    if named.file is not None:  # copy it without its neighbours, since an entry is a single file
        shutil.copyfile(named.file, scratch / "loss" / named.file.name)
        loss = f"{scratch / 'loss' / named.file.name}:{named.loss.rpartition(':')[2]}"
    order = {
        "task": str(cell.task.path),
        "budget": cell.task.budget,
        "resources": cell.task.resources.absolute().model_dump(mode="json"),
        "loss": loss,
        "shown": named.loss,
        "parameters": named.parameters,
        "source_sha256": named.source_sha256,
        "track": named.track,
        "seed": cell.seed,
        "generation": g,
        "device": cell.device,
        "run": str(scratch / "run"),
    }
    _carried_out(order, scratch, lambda event: listener(_of(cell, event)))
    made = RunDirectory(scratch / "run")
    if made.state(g) == "missing" or not (made.path / "run.json").is_file():
        raise RunError(f"the process of generation {g} says that it is done and has left no generation.")
    return made


def _hand_over(cell: Cell, g: int, run: Path) -> None:
    """Copy only the models and samples that generation g is made from."""
    spec = cell.task.spec
    wanted = [(h, _SAMPLES) for h in generations_read(spec.policy, g)]
    last = [name for name in _LAST_ONLY if name != "model.safetensors" or spec.init == "previous"]
    wanted += [(g - 1, name) for name in last if g > 0]
    for h, name in wanted:
        source = cell.directory.generation(h) / name
        if source.is_file():
            (run / f"gen-{h}").mkdir(exist_ok=True)
            shutil.copyfile(source, run / f"gen-{h}" / name)


def _of(cell: Cell, event: dict[str, Any]) -> Event:
    return Event(**{**event, "method": cell.method.name})


def _carried_out(order: dict[str, Any], scratch: Path, told: Any) -> None:
    """Start the process, pass on its events, and raise its error."""
    inlet, outlet = os.pipe()
    command = [sys.executable, "-P", "-m", "collapsebench.running.one_generation", str(outlet)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=2, pass_fds=[outlet], cwd=scratch / "work",
            env=_environment(scratch), start_new_session=True,
        )  # fmt: skip
    except BaseException:
        os.close(inlet)
        raise
    finally:
        os.close(outlet)
    answer: dict[str, Any] | None = None
    try:
        with os.fdopen(inlet, encoding="utf-8", errors="replace") as lines:
            assert process.stdin is not None
            with process.stdin:
                process.stdin.write(json.dumps(order).encode())
            for line in lines:
                answer = _read(line, told)
                if answer is not None:
                    break
        process.wait()
    finally:
        with suppress(ProcessLookupError):  # end everything it started, and after Ctrl-C the process itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if answer is None:
        raise RunError(
            f"the process of generation {order['generation']} {how_it_ended(process.returncode)}. What finished is "
            "kept; run the same command again."
        )
    if answer:
        known = getattr(errors, str(answer.get("kind")), None)
        kind = known if isinstance(known, type) and issubclass(known, CollapsebenchError) else RunError
        raise kind(str(answer.get("text")))


def _read(line: str, told: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Pass on the event in a line, or return the answer that it ends with.

    Raises:
        RunError: it is neither. The contestant's code can write anything there.
    """
    try:
        message = json.loads(line)
        if "end" in message:
            return dict(message["end"])
        told(message["event"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunError(f"the process of a generation wrote what is no message: {line[:80]!a}.") from error
    return None


def _environment(scratch: Path) -> dict[str, str]:
    """This process's environment with other writable folders; prepared data and downloads keep their place."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()
    return {
        "HF_HOME": str(caches / "huggingface"),
        "TORCH_HOME": str(caches / "torch"),
        "PYTHONUSERBASE": site.getuserbase(),
        **{name: value for name, value in os.environ.items() if name != "OLDPWD"},
        "PWD": str(scratch / "work"),
        "PYTHONPATH": os.pathsep.join(str(Path(entry or ".").absolute()) for entry in sys.path),
        "COLLAPSEBENCH_CACHE": str(cache_dir().absolute()),
        "HOME": str(scratch / "home"),
        "XDG_CACHE_HOME": str(scratch / "home"),
        **{name: str(scratch / "tmp") for name in ("TMPDIR", "TMP", "TEMP")},
    }

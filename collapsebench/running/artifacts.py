"""Run directories: atomic, checksummed, locked, resumable.

``DIR/<task>@<version>/<method-id>/seed-<s>/`` contains ``run.json`` (what was run, where, with what) and one folder per
generation. A generation's files are written into a temporary folder. The marker ``complete.json`` with their checksums
is written last, and then the folder is renamed, so a generation is either complete or absent. Files are JSON and
safetensors only; nothing executes on load.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from collapsebench.errors import RunError, UserError
from collapsebench.files import give_ordinary_mode, sha256_of, sync, write_atomically

SCHEMA_VERSION = 1
MARKER = "complete.json"
State = Literal["missing", "ok", "diverged"]


class RunDirectory:
    """The artefacts of one cell.

    Attributes:
        path: the cell's directory.
    """

    def __init__(self, path: Path):
        self.path = path
        self._later: dict[str, Any] | None = None  # circumstances of a session that has not computed anything yet

    @staticmethod
    def of(out: Path, task_id: str, method_id: str, seed: int) -> RunDirectory:
        """The directory of a cell below `out`."""
        return RunDirectory(out / task_id / method_id / f"seed-{seed}")

    def generation(self, g: int) -> Path:
        """The folder of generation g."""
        return self.path / f"gen-{g}"

    @contextmanager
    def opened(self, identity: dict[str, Any], origin: dict[str, Any], circumstances: dict[str, Any]) -> Iterator[None]:
        """Lock the directory and write ``run.json``, or check that it belongs to the same run.

        Args:
            identity: what determines the results (task, method, seed); a directory with another identity is refused.
            origin: where task and method come from (``task_file``, ``loss``, ``spec``, …) in the first session.
                Scoring uses it to find tasks that are not registered, and submissions to name the loss.
            circumstances: machine and versions, written when the run starts. A later session with other circumstances
                is added under ``resumed`` when it begins its first generation; sessions that only read are not added.

        Raises:
            RunError: another process uses the directory, or the disk is full. UserError: it belongs to another run.
        """
        with _disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path} is in use by another process. Wait for it, or use another --out directory."
            ) from None
        try:
            self._write_or_check(identity, origin, circumstances)
            yield
        finally:
            lock.release()

    def _write_or_check(self, identity: dict[str, Any], origin: dict[str, Any], circumstances: dict[str, Any]) -> None:
        file = self.path / "run.json"
        found = _read_json(file)
        if found is None:
            if any(self.path.glob("gen-*/metrics.json")):  # what `verify` hands over has none
                raise UserError(
                    f"{self.path} has generations, but no run.json that can be read and says what they belong to. "
                    "Use another --out directory, or delete this one."
                )
            content = {
                "schema_version": SCHEMA_VERSION,
                **identity,
                **origin,
                "circumstances": circumstances,
                "resumed": [],
            }
        else:
            expected = json.loads(json.dumps(identity))
            # A key may be added to the identity later; in older runs it counts as empty.
            different = [key for key, value in expected.items() if found.get(key, []) != value]
            if different:
                raise UserError(
                    f"{self.path} holds another run: {', '.join(different)} differ(s) from what was asked for. "
                    "Use another --out directory, or delete this one."
                )
            sessions = [found.get("circumstances"), *found.get("resumed", [])]
            self._later = None if json.loads(json.dumps(circumstances)) in sessions else circumstances
            return
        _write_run(file, content)

    def _add_session(self) -> None:
        """Record the circumstances of this session, if they are new."""
        file = self.path / "run.json"
        found = _read_json(file)
        if self._later is not None and found is not None:
            _write_run(file, {**found, "resumed": [*found.get("resumed", []), self._later]})
        self._later = None

    def state(self, g: int) -> State:
        """The state of generation g; a damaged generation counts as missing."""
        folder = self.generation(g)
        marker = _read_json(folder / MARKER)
        if marker is None or not _is_whole(marker) or marker["parent"] != self._parent_digest(g):
            return "missing"
        for name, sha256 in marker["files"].items():
            file = folder / name
            if not file.is_file() or sha256_of(file) != sha256:
                return "missing"
        return marker["status"]

    def _parent_digest(self, g: int) -> str | None:
        """Digest of the previous generation's marker; a generation is valid only with the parent it was made from."""
        marker = self.generation(g - 1) / MARKER
        return sha256_of(marker) if g > 0 and marker.is_file() else None

    @contextmanager
    def writing(self, g: int) -> Iterator[Path]:
        """Yield a temporary folder for generation g, and commit it when the block ends without an error.

        Write the generation's files into it. Its ``status`` is ``ok`` unless the block writes ``diverged.json``.
        """
        partial = self.path / f".gen-{g}.partial"
        final = self.generation(g)
        with _disk_errors(self.path):
            self._add_session()
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            status = "diverged" if (partial / "diverged.json").is_file() else "ok"
            files = {file.name: sha256_of(file) for file in sorted(partial.iterdir()) if file.name != "timing.json"}
            marker = {
                "schema_version": SCHEMA_VERSION,
                "status": status,
                "parent": self._parent_digest(g),
                "files": files,
            }
            written = list(partial.iterdir())
            give_ordinary_mode(*written)
            for file in written:
                sync(file)
            write_atomically(partial / MARKER, json.dumps(marker, indent=1, sort_keys=True) + "\n")
            if final.exists():  # damaged, or made from another parent
                shutil.rmtree(final)
            os.rename(partial, final)
            sync(self.path)

    def read(self, g: int, name: str) -> Any:
        """Content of a JSON file of generation g."""
        return json.loads((self.generation(g) / name).read_text("utf-8"))

    def seconds(self, g: int) -> dict[str, float]:
        """Seconds per phase of generation g; may be empty. Not in the checksums, since they vary between runs."""
        return _read_json(self.generation(g) / "timing.json") or {}


def _write_run(file: Path, content: dict[str, Any]) -> None:
    with _disk_errors(file.parent):
        write_atomically(file, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if it is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_whole(marker: dict[str, Any]) -> bool:
    """Whether a marker is exactly as `RunDirectory.writing` writes it; a flipped bit may leave valid JSON."""
    return (
        marker.keys() == {"schema_version", "status", "parent", "files"}
        and marker["schema_version"] == SCHEMA_VERSION
        and marker["status"] in ("ok", "diverged")
        and isinstance(marker["files"], dict)
    )


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _means_full(error):
            raise RunError(
                f"no space left on the disk of {path}. Finished generations are safe; free some space and run the "
                "same command again."
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"{path} cannot be written: {error.strerror}. Choose another --out directory.") from error
        raise


def _means_full(error: Exception) -> bool:
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in full
    return any(f"(os error {number})" in str(error) for number in full)  # safetensors has its own error type

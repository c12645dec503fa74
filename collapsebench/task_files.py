"""The content of a task file, with what it inherits from the file that it extends.

``extends: ../other/task.yaml`` puts another file's mapping under one's own: a mapping is merged key by key, anything
else replaces what was there, null included, and ``!replace`` before a mapping replaces that whole section. What is
said about one task only (`_OWN`, the fidelity scale) is not taken over. The other file is named by its path, not as a
registered task, so that it need not be a task and does not depend on the version that is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from collapsebench.errors import TaskError

EXTENDS = "extends"

# Of one task alone. Two tasks must not be called the same, and one that changes has to say so itself.
_OWN = ("name", "version", "title", "retired", "beside", "calibrated_on")
# Where a path stands that is relative to the file it is written in.
RELATIVE_PATHS = (
    ("data", "path"),
    ("base", "file"),
    ("base", "data", "path"),
    ("workload", "model", "path"),
    ("workload", "evaluation", "classifier", "file"),
)

_Place = tuple[str, ...]


@dataclass(frozen=True)
class TaskFile:
    """The content of a task file.

    Attributes:
        content: the complete task, as if it were written in this file.
        own: what the file says itself.
        files: the file, then those that it extends, nearest first.
        origins: which file last set the value at a place in the content.
    """

    content: dict[str, Any]
    own: dict[str, Any]
    files: tuple[Path, ...]
    origins: dict[_Place, Path]

    def origin(self, place: tuple[int | str, ...]) -> Path:
        """The file that set the value at a place, or from which it is missing."""
        parts = tuple(str(part) for part in place)
        ends = range(len(parts), 0, -1)
        return next((self.origins[parts[:n]] for n in ends if parts[:n] in self.origins), self.files[0])


def own_file(path: Path, name: str) -> Path:
    """The path of a file that belongs to a task file, such as ``card.md``.

    An older version, in ``task@1.yaml``, has its own: ``card@1.md``.
    """
    _, mark, version = path.stem.partition("@")
    return path.with_name(f"{Path(name).stem}{mark}{version}{Path(name).suffix}")


def read_task_file(path: Path) -> TaskFile:
    """Read a task file and the files that it extends.

    Raises:
        TaskError: a file is missing, not a mapping in YAML, or extends itself; the message names the files.
    """
    try:
        return _read(path, ())
    except RecursionError as error:
        raise TaskError(f"{path} is not valid YAML: an alias is part of what it stands for.") from error


def told(error: Any, file: TaskFile) -> str:
    """Where an error is, what it is, and in which file if that is an extended one.

    Args:
        error: one of pydantic's, on the content of the file.
    """
    place = _place_of(error["loc"])
    origin = file.origin(place)
    given = "" if isinstance(error["input"], dict) else f" (given: {error['input']!r})"
    if error["type"] == "extra_forbidden":
        problem = f"unknown key{given}"
    else:
        problem = error["msg"].removeprefix("Value error, ") + ("" if error["type"] == "missing" else given)
    where = "" if origin == file.files[0] else f" [in {origin}]"
    return f"{'.'.join(str(part) for part in place) or '(task)'}: {problem}{where}"


def _place_of(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The path of an error in the file; pydantic also names the member of a union, which is not in the file."""
    return location[:1] + location[2:] if location[:1] in (("data",), ("splits",)) else location


def as_yaml(content: dict[str, Any]) -> str:
    """Content as the text of one task file, in its original order."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _read(path: Path, within: tuple[Path, ...]) -> TaskFile:
    own = read_mapping(path.read_bytes(), path)
    origins = dict.fromkeys(_places(own), path)
    if EXTENDS not in own:
        return TaskFile(_plain(own), own, (path,), origins)
    base = _read(_extended(path, own[EXTENDS], within), (*within, path))
    said = {key: value for key, value in own.items() if key != EXTENDS}
    below = _taken_over(base.content, base.files[0].parent, path.resolve().parent)
    merged = _merged(below, said)
    content = {key: merged[key] for key in (*base.content, *merged) if key in merged}  # in the other file's order
    # The places of sections that were replaced stay among the origins: nothing in the content is looked up there.
    return TaskFile(content, own, (path, *base.files), base.origins | origins)


def _extended(path: Path, given: Any, within: tuple[Path, ...]) -> Path:
    if not isinstance(given, str) or not given:
        raise TaskError(f"{path}: extends must be the path of one other file, relative to this one; given: {given!r}.")
    file = (path.resolve().parent / Path(given).expanduser()).resolve()
    if not file.is_file():
        raise TaskError(
            f"{path}: extends {given!r}, but there is no file {file}. Give a path relative to this file, such as "
            "../text-wiki-micro/task.yaml."
        )
    chain = (*within, path)
    if file in [link.resolve() for link in chain]:
        told = " extends ".join(str(link) for link in (*chain, file))
        raise TaskError(f"{told}: a file cannot extend itself.")
    return file


def read_mapping(text: str | bytes, path: Path) -> dict[str, Any]:
    """The mapping in the text of one file, without what it extends.

    Raises:
        TaskError: it is not a mapping in YAML; the message names the path.
    """
    try:
        content: Any = yaml.load(text.decode("utf-8") if isinstance(text, bytes) else text, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise TaskError(f"{path}: expected a mapping with name, version, data, …; got {type(content).__name__}.")
    return content


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain YAML and the tag ``!replace``; in C, where PyYAML has it: `list` reads every task file."""


class _Replacing(dict[str, Any]):
    """A mapping that replaces the inherited one instead of being merged."""


def _replacing(loader: yaml.SafeLoader, node: Any) -> _Replacing:
    return _Replacing({str(key): value for key, value in loader.construct_mapping(node, deep=True).items()})


_Loader.add_constructor("!replace", _replacing)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if isinstance(value, dict) and isinstance(under, dict) and not isinstance(value, _Replacing):
            result[key] = _merged(under, value)
        else:
            result[key] = _plain(value)
    return result


def _plain(value: Any) -> Any:
    """The same without marks of replacing mappings."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _places(content: Any, place: _Place = ()) -> Iterator[_Place]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield (*place, str(key))
            yield from _places(value, (*place, str(key)))


def _taken_over(content: dict[str, Any], written_in: Path, folder: Path) -> dict[str, Any]:
    """What a file inherits from one that it extends, with paths relative to its own folder."""
    kept = {key: value for key, value in content.items() if key not in _OWN}
    if isinstance(scored := kept.get("scored"), dict):  # which metrics; their scale was measured on the other task
        kept["scored"] = {name: {} for name in scored}
    for place in RELATIVE_PATHS:
        kept = _moved(kept, place, written_in, folder)
    return kept


def _moved(section: Any, place: _Place, written_in: Path, folder: Path) -> Any:
    """A section in which the path at a place is rewritten relative to another folder."""
    if not isinstance(section, dict) or place[0] not in section:
        return section
    key, *rest = place
    value = section[key]
    if rest:
        return section | {key: _moved(value, tuple(rest), written_in, folder)}
    if not isinstance(value, str) or Path(value).expanduser().is_absolute() or written_in == folder:
        return section
    return section | {key: Path(os.path.relpath(written_in / value, folder)).as_posix()}

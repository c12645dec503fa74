"""Run as a program: the digests of tasks if every section of the schema had more optional fields.

The fields are added to the class that all sections are made from, before anything else is imported: that is why it
takes a process of its own. Reads JSON: the content of task files by name, to which the registered tasks are added.
Prints JSON: digests by name, and for every section of every task what its digest is when one of these fields is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from collapsebench import frozen


class Section(frozen.Frozen):
    """A section that a task may leave out."""

    number: float = 0.5
    names: tuple[str, ...] = ("a", "b")


class Grown(frozen.Frozen):
    """The fields added to every section, with every form that a default can have."""

    later_number: int | None = None
    later_switch: bool = False
    later_list: tuple[int, ...] = ()
    later_mapping: dict[str, int] = Field(default_factory=dict)
    later_section: Section = Section()
    later_optional_section: Section | None = None


GIVEN: dict[str, Any] = {
    "later_number": 0,
    "later_switch": True,
    "later_list": [1],
    "later_mapping": {"a": 1},
    "later_section": {"number": 0.25},
    "later_optional_section": {},
}
frozen.Frozen = Grown  # type: ignore[misc]

from collapsebench.digest import digest_of  # noqa: E402
from collapsebench.task import load_task, registered_tasks  # noqa: E402
from collapsebench.task_spec import TaskSpec  # noqa: E402


def places(section: frozen.Frozen, content: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every section of a task with its content, which may be changed."""
    yield path or "(task)", content
    for name in type(section).model_fields:
        yield from _places_in(getattr(section, name), content[name], f"{path}.{name}".lstrip("."))


def _places_in(value: Any, content: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, Grown):
        yield from places(value, content, path)
    elif isinstance(value, tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in items:
            yield from _places_in(part, content[key], f"{path}.{key}")


def main() -> None:
    """Print them."""
    specs = {name: TaskSpec.model_validate(content) for name, content in json.load(sys.stdin).items()}
    specs |= {name: load_task(name).spec for name in registered_tasks()}
    given: dict[str, dict[str, str]] = {name: {} for name in specs}
    for name, spec in specs.items():
        content = spec.model_dump(mode="json")
        for place, section in places(spec, content, ""):
            for field, value in GIVEN.items():
                before, section[field] = section[field], value
                given[name][f"{place}: {field}"] = digest_of(TaskSpec.model_validate(content))
                section[field] = before
    print(json.dumps({"digests": {name: digest_of(spec) for name, spec in specs.items()}, "given": given}))


if __name__ == "__main__":
    main()

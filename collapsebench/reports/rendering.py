"""Pages from the templates beside this file; whatever they show is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def render(template: str, **shown: Any) -> str:
    """The text of a template with what it shows.

    Raises:
        jinja2.UndefinedError: the template shows something that was not given.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**shown)

"""The base of everything that is read from a task file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Validated once, immutable, unknown keys rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True)

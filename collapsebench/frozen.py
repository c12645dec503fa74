"""The base of everything that is read from a task file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Validated once, immutable; unknown keys, NaN and infinity rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

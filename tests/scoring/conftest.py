"""Properties are checked on the same examples every time, and without a clock: the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("scoring", deadline=None, derandomize=True)
settings.load_profile("scoring")

"""Data and weights that a user has already, and names on the command line instead of downloading them."""

from __future__ import annotations

from pathlib import Path

from collapsebench.frozen import Frozen


class Resources(Frozen):
    """Where to find what a task would otherwise download.

    Attributes:
        data: folder of the data (``--data``).
        inception: the file of the Inception network or its folder (``--inception``); ``none``: measure no FID.
    """

    data: Path | None = None
    inception: str | None = None

    @property
    def without(self) -> list[str]:
        """What is not measured on the user's wish; a run directory belongs to one such list."""
        return ["inception"] if self.inception == "none" else []


NOTHING_GIVEN = Resources()

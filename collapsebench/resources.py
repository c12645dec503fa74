"""Data and weights that a user has already, and names on the command line instead of downloading them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from collapsebench.frozen import Frozen


class Resources(Frozen):
    """Where to find what a task would otherwise download, and what to measure besides or not at all.

    Attributes:
        data: folder of the data (``--data``).
        model: folder with the weights of a pretrained model (``--model``).
        inception: the file of the Inception network or its folder (``--inception``); ``none``: measure no FID.
        track: tracker that gets the metrics (``--track``).
        features: further networks to measure images with (``--features``); never scored.
    """

    data: Path | None = None
    model: Path | None = None
    inception: str | None = None
    track: Literal["tensorboard", "wandb", "trackio"] | None = None
    features: tuple[Literal["efficientnet-lite0", "inception"], ...] = ()

    def absolute(self) -> Resources:
        """The same for a process in another folder."""
        inception = self.inception
        if inception not in (None, "none"):
            inception = str(Path(inception).expanduser().absolute())
        folders = {n: path.expanduser().absolute() for n in ("data", "model") if (path := getattr(self, n)) is not None}
        return self.model_copy(update={"inception": inception, **folders})

    @property
    def differences(self) -> list[str]:
        """What is measured otherwise than the task says; all generations of a run agree on it."""
        return [*(["-inception"] if self.inception == "none" else []), *(f"+{name}" for name in self.features)]


NOTHING_GIVEN = Resources()

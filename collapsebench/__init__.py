"""collapsebench: how long does a generative model trained on its own samples stay faithful to the real data?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collapsebench.api import compare, run, score
    from collapsebench.hooks import Method, View
    from collapsebench.losses import Elements, Loss
    from collapsebench.methods import load_loss
    from collapsebench.task import load_task

__version__ = "0.1.0"
__all__ = ["Elements", "Loss", "Method", "View", "compare", "load_loss", "load_task", "run", "score"]

_HOMES = {
    "Elements": "losses",
    "Loss": "losses",
    "Method": "hooks",
    "View": "hooks",
    "compare": "api",
    "load_loss": "methods",
    "load_task": "task",
    "run": "api",
    "score": "api",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``import collapsebench`` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'collapsebench' has no attribute {name!r}")
    return getattr(import_module(f"collapsebench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

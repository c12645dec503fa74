"""Hides warnings of libraries, which a user cannot fix, and keeps those of the user's own code."""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from pathlib import Path
from typing import TextIO

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_PACKAGE = str(Path(__file__).resolve().parents[1])


def keep_off_the_screen() -> None:
    """Show only warnings from the user's own files, for the rest of the process.

    Has no effect if warnings were requested with ``python -W`` or ``PYTHONWARNINGS``.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if sys.warnoptions:
        return
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not filename.startswith((*_LIBRARIES, _PACKAGE, "<")):
            shown(message, category, filename, lineno, file, line)

    warnings.showwarning = show

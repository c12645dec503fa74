"""Where the real data sets are, for tests that read them; they are skipped where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_DATA = Path(os.environ.get("COLLAPSEBENCH_TEST_DATA", _BESIDE))

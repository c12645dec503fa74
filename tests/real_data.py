"""Locations of the real data sets, for tests that read them; these tests are skipped if the data is absent."""

from __future__ import annotations

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_DATA = Path(os.environ.get("COLLAPSEBENCH_TEST_DATA", _BESIDE))

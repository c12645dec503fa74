"""Imported first by a module whose tests run tasks: skips it where a package is missing that all tasks need."""

import pytest

for _name in ("pydantic", "yaml", "pandas", "filelock", "PIL"):
    pytest.importorskip(_name, reason=f"no task can be run without {_name}")

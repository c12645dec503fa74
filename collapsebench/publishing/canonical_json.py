"""The canonical JSON format of this package: sorted keys and shortest exact floats.

Objects and lists that contain only plain values are on one line, so that a diff shows only the numbers that changed.
"""

from __future__ import annotations

import json
from functools import lru_cache
from math import isfinite
from typing import Any

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, allow_nan=False).encode
_key = lru_cache(maxsize=1024)(_encode)


def canonical_json(value: Any) -> str:
    """The text of a value made of dicts with string keys, lists and plain values, without a trailing newline.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return _written(value, 0)


def _written(value: Any, depth: int) -> str:
    if type(value) is int or (type(value) is float and isfinite(value)):
        return repr(value)  # same text as from the encoder, without the cost of calling it
    if not isinstance(value, dict | list) or not value or _plain(value):
        return _encode(value)
    indent, end = "\n" + " " * (depth + 1), "\n" + " " * depth
    if isinstance(value, dict):
        keys = sorted(value)
        texts = _written_all([value[key] for key in keys], depth + 1)
        parts = [f"{_key(key)}: {text}" for key, text in zip(keys, texts, strict=True)]
        return "{" + ",".join(indent + part for part in parts) + end + "}"
    return "[" + ",".join(indent + text for text in _written_all(value, depth + 1)) + end + "]"


def _written_all(values: list[Any], depth: int) -> list[str]:
    """Serialise each value. Rows of plain values, most of a submission, are serialised in one call and then split."""
    if all(isinstance(value, dict) for value in values) and _plain(values[0]):
        text = _encode(values)
        rows = text[2:-2].split("}, {")
        if len(rows) == len(values) and text.count("{") == len(rows) and text.count("[") == 1 and all(rows):
            return ["{" + row + "}" for row in rows]
    return [_written(value, depth) for value in values]


def _plain(value: dict[str, Any] | list[Any]) -> bool:
    return not any(isinstance(item, dict | list) for item in (value.values() if isinstance(value, dict) else value))

"""Parses untrusted JSON within bounds on size, depth and number of values, and rejects ambiguous text.

`json.loads` alone accepts duplicate keys (the last one wins), NaN and numbers too large for a float. It recurses as
deep as the text, and a short text can become many objects. Here all bounds are checked before any object is built.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

MAX_BYTES = 2_000_000
MAX_DEPTH = 12
MAX_VALUES = 50_000
MAX_KEYS = 256
_STRING = re.compile(rb'"(?:[^"\\]+|\\.?)*+(?:"|\Z)', re.DOTALL)  # an unterminated string extends to the end
_MAY_OVERFLOW = re.compile(rb"\d[eE]\+?\d{3}|\d{100}")


class Unreadable(ValueError):
    """The text is not JSON within the bounds.

    Attributes:
        code: short name of the kind of problem. given, allowed: readable descriptions.
    """

    def __init__(self, code: str, given: str, allowed: str):
        super().__init__(f"{code}: {given}; allowed: {allowed}")
        self.code = code
        self.given = given
        self.allowed = allowed


def parse_bounded(content: bytes) -> Any:
    """Parse JSON text.

    Args:
        content: UTF-8 text with at most `MAX_BYTES` bytes, depth `MAX_DEPTH`, `MAX_VALUES` values, and `MAX_KEYS` keys
            per object.

    Raises:
        Unreadable: the text is not such JSON.
    """
    if len(content) > MAX_BYTES:
        raise Unreadable("too-large", f"{len(content):,} bytes", f"at most {MAX_BYTES:,} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("not-utf8", f"byte {content[error.start]:#04x} at {error.start}", "UTF-8") from None
    plain = _STRING.sub(b"", content)
    _check_shape(plain)
    # Only a long number or a large exponent can overflow; checking every number takes longer than parsing them.
    parse_float = _finite if _MAY_OVERFLOW.search(plain) else None
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=parse_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        given = f"{error.msg.lower()} at line {error.lineno}, column {error.colno}"
        raise Unreadable("not-json", given, "one JSON object") from None


def _check_shape(plain: bytes) -> None:
    """Bound depth and number of values by counting brackets and commas in JSON text without its strings."""
    marks = np.frombuffer(plain, dtype=np.uint8)
    opening, closing = (marks == ord("[")) | (marks == ord("{")), (marks == ord("]")) | (marks == ord("}"))
    depth = int(np.cumsum(opening.astype(np.int32) - closing).max(initial=0))
    if depth > MAX_DEPTH:
        raise Unreadable("too-deep", f"nested {depth} deep", f"at most {MAX_DEPTH}")
    values = int(opening.sum() + (marks == ord(",")).sum())
    if values > MAX_VALUES:
        raise Unreadable("too-many-values", f"about {values:,} values", f"at most {MAX_VALUES:,}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise Unreadable("too-many-keys", f"an object with {len(pairs):,} keys", f"at most {MAX_KEYS}")
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Unreadable("duplicate-key", f"the key {twice[:80]!r} more than once in an object", "every key once")
    return found


def _refuse(name: str) -> Any:
    raise Unreadable("not-finite", name, "finite numbers; a diverged generation is declared with its status")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Unreadable("not-finite", text[:40], "numbers that a 64-bit float can hold")
    return value


def _integer(text: str) -> int:
    if len(text) > 20:
        raise Unreadable("not-finite", f"an integer of {len(text)} digits", "integers of at most 19 digits")
    return int(text)

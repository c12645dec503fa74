"""Damage to files, as a failing disk does it."""

from __future__ import annotations

from pathlib import Path


def flip_bit(file: Path, position: int, bit: int = 0) -> None:
    """Invert one bit of the byte at a position."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)

"""Checks that bytes are a plain PNG: small, 8-bit grey or RGB, with nothing but pixels.

Pictures in submissions come from strangers and are shown to others. A picture that passes this check cannot be a
decompression bomb, contains no text, profile or second file, and looks the same in every decoder.
"""

from __future__ import annotations

import struct
import zlib

MAX_SIDE = 1024
MAX_PIXELS = 262_144
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3}  # colour types grey and RGB


def check_plain_png(content: bytes) -> tuple[int, int]:
    """Return width and height.

    Raises:
        ValueError: it is not a plain PNG; the message says why.
    """
    if not content.startswith(_SIGNATURE):
        raise ValueError("not a PNG file")
    chunks = _chunks(content[len(_SIGNATURE) :])
    names = [name for name, _ in chunks]
    if len(names) < 3 or names[0] != b"IHDR" or names[-1] != b"IEND" or set(names[1:-1]) != {b"IDAT"} or chunks[-1][1]:
        raise ValueError("a PNG with other chunks than IHDR, IDAT and IEND, in this order")
    width, height, channels = _header(chunks[0][1])
    stride = 1 + width * channels
    pixels = _inflated(b"".join(data for name, data in chunks if name == b"IDAT"), stride * height)
    if max(pixels[::stride]) > 4:
        raise ValueError("a PNG with an unknown filter")
    return width, height


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    while content:
        if len(content) < 12:
            raise ValueError("a PNG that ends within a chunk")
        (length,) = struct.unpack(">I", content[:4])
        body, rest = content[4 : 8 + length], content[8 + length :]
        if len(rest) < 4 or struct.unpack(">I", rest[:4])[0] != zlib.crc32(body):
            raise ValueError("a PNG with a damaged chunk")
        found.append((body[:4], body[4:]))
        content = rest[4:]
    return found


def _header(content: bytes) -> tuple[int, int, int]:
    if len(content) != 13:
        raise ValueError("a PNG with a damaged header")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", content)
    if depth != 8 or colour not in _CHANNELS or (compression, filtering, interlace) != (0, 0, 0):
        raise ValueError("a PNG that is not 8-bit grey or RGB without interlacing")
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(f"a PNG of {width} × {height} pixels; at most {MAX_SIDE} a side and {MAX_PIXELS:,} in all")
    return width, height, _CHANNELS[colour]


def _inflated(content: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        pixels = inflater.decompress(content, size + 1)
    except zlib.error:
        raise ValueError("a PNG whose pixels do not decompress") from None
    if len(pixels) != size or not inflater.eof or inflater.unused_data:
        raise ValueError("a PNG with more or fewer pixels than it declares")
    return pixels

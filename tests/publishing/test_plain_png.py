"""Pictures from strangers: what Pillow writes for grey and RGB passes, everything else is a ValueError, and small."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from submission_files import HANGING, png

from collapsebench.publishing.plain_png import MAX_PIXELS, MAX_SIDE, check_plain_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2
END = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, depth=8, colour=GREY, compression=0, filtering=0, interlace=0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, compression, filtering, interlace))


def made(width: int, height: int, pixels: bytes, **options: int) -> bytes:
    """A PNG of these filtered pixels, right or not."""
    return SIGNATURE + header(width, height, **options) + chunk(b"IDAT", zlib.compress(pixels, 9)) + END


def refusal(content: bytes) -> str:
    with pytest.raises(ValueError) as caught:
        check_plain_png(content)
    assert str(caught.value).isprintable()
    return str(caught.value)


def saved(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.fixture(params=[(5, 7), (5, 7, 3), (1, 1), (64, 300, 3)], ids=str)
def pixels(request: pytest.FixtureRequest) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, request.param).astype(np.uint8)


# what passes


def test_what_pillow_writes_for_grey_and_rgb_passes(pixels):
    assert check_plain_png(png(pixels)) == (pixels.shape[1], pixels.shape[0])
    assert check_plain_png(png(pixels, optimize=True)) == (pixels.shape[1], pixels.shape[0])


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([GREY, RGB]), st.integers(0, 4), st.randoms())
def test_what_passes_is_what_pillow_shows(width, height, colour, row_filter, random):
    channels = {GREY: 1, RGB: 3}[colour]
    rows = (bytes([row_filter]) + random.randbytes(width * channels) for _ in range(height))
    content = made(width, height, b"".join(rows), colour=colour)
    assert check_plain_png(content) == Image.open(io.BytesIO(content)).size
    Image.open(io.BytesIO(content)).load()


def test_pixels_in_several_chunks_pass(pixels):
    data = zlib.compress(b"\x00\x01\x02" * 3)
    parts = b"".join(chunk(b"IDAT", data[i : i + 2]) for i in range(0, len(data), 2))
    assert check_plain_png(SIGNATURE + header(2, 3) + parts + END) == (2, 3)


@pytest.mark.parametrize(("width", "height"), [(MAX_SIDE, 1), (1, MAX_SIDE), (MAX_SIDE, MAX_PIXELS // MAX_SIDE)])
def test_the_largest_pictures_pass(width, height):
    assert check_plain_png(png(np.zeros((height, width, 3), np.uint8))) == (width, height)


# other kinds of PNG


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16"])
def test_other_modes_are_refused(mode):
    refusal(saved(Image.new(mode, (6, 4))))


@pytest.mark.parametrize("depth", [0, 1, 2, 4, 7, 9, 16, 255])
@pytest.mark.parametrize("colour", [GREY, RGB])
def test_other_depths_are_refused(depth, colour):
    row = bytes(1 + 4 * depth * (1 if colour == GREY else 3) // 8)
    assert "8-bit" in refusal(made(4, 2, row * 2, depth=depth, colour=colour))


@pytest.mark.parametrize("colour", [1, 3, 4, 5, 6, 7, 255])
def test_other_colour_types_are_refused(colour):
    assert "8-bit" in refusal(made(4, 2, bytes(10), colour=colour))


def test_interlaced_pictures_are_refused():
    content = made(1, 1, b"\x00\x07", interlace=1)  # one pixel has the same bytes either way
    assert Image.open(io.BytesIO(content)).getpixel((0, 0)) == 7
    assert "interlacing" in refusal(content)


@pytest.mark.parametrize("options", [{"compression": 1}, {"filtering": 1}, {"interlace": 2}])
def test_unknown_methods_in_the_header_are_refused(options):
    refusal(made(2, 1, bytes(3), **options))


def test_unknown_row_filters_are_refused():
    assert check_plain_png(made(2, 2, b"\x00aa\x04aa")) == (2, 2)
    for wrong in (5, 255):
        assert "filter" in refusal(made(2, 2, b"\x00aa" + bytes([wrong]) + b"aa"))


# what could hide something


def test_text_in_a_picture_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>alert(1)</script>")
    assert "chunks" in refusal(saved(Image.new("L", (4, 4)), pnginfo=info))


NAMES = [
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"eXIf",
    b"iCCP",
    b"gAMA",
    b"tRNS",
    b"PLTE",
    b"acTL",
    b"fdAT",
    b"pHYs",
    b"IHDR",
    b"IEND",
]


@pytest.mark.parametrize("name", [*NAMES, b"idat", b"IDAt", b"\x1b[2J", b"    ", b"\0\0\0\0"])
@pytest.mark.parametrize("place", ["before", "between", "after"])
def test_other_chunks_are_refused(name, place):
    extra = {place: chunk(name, b"abc")}
    data = zlib.compress(bytes(6))
    before, after = chunk(b"IDAT", data[:3]), chunk(b"IDAT", data[3:])
    parts = [header(2, 2), extra.get("before", b""), before, extra.get("between", b""), after, extra.get("after", b"")]
    assert check_plain_png(SIGNATURE + header(2, 2) + before + after + END) == (2, 2)
    assert "chunks" in refusal(SIGNATURE + b"".join(parts) + END)


@pytest.mark.parametrize("rest", [b"\0", b"PK\x03\x04", b"<html>" * 10, END, chunk(b"IDAT"), chunk(b"tEXt", b"a\0b")])
def test_bytes_after_the_end_are_refused(rest):
    refusal(made(2, 2, bytes(6)) + rest)


def test_data_in_the_end_chunk_is_refused():
    refusal(made(2, 2, bytes(6))[: -len(END)] + chunk(b"IEND", b"hidden"))


@pytest.mark.parametrize("rest", [b"\0", b"hidden", zlib.compress(b"a second stream")])
def test_bytes_after_the_compressed_pixels_are_refused(rest):
    content = SIGNATURE + header(2, 2) + chunk(b"IDAT", zlib.compress(bytes(6)) + rest) + END
    assert "pixels" in refusal(content)


@pytest.mark.parametrize("start", [b"", b"GIF89a", b"\xff\xd8\xff", b"<svg>", b"%PDF-1.4", b" ", b"\x89PNG\n\x1a\n"])
def test_other_files_are_refused(start):
    assert refusal(start + made(2, 2, bytes(6))[8:]) == "not a PNG file"


# damage


def test_a_picture_cut_anywhere_is_refused(pixels):
    content = png(pixels)
    for length in {*range(min(len(content), 80)), *range(0, len(content), 1 + len(content) // 80), len(content) - 1}:
        refusal(content[:length])


def test_any_flipped_bit_is_refused():
    content = png(np.arange(60, dtype=np.uint8).reshape(6, 10))
    for i in range(len(content)):
        refusal(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :])


@pytest.mark.parametrize("missing", [b"IHDR", b"IDAT", b"IEND"])
def test_every_chunk_is_needed(missing):
    chunks = {b"IHDR": header(2, 2), b"IDAT": chunk(b"IDAT", zlib.compress(bytes(6))), b"IEND": END}
    refusal(SIGNATURE + b"".join(part for name, part in chunks.items() if name != missing))


@pytest.mark.parametrize("size", [0, 12, 14])
def test_a_header_of_another_length_is_refused(size):
    content = SIGNATURE + chunk(b"IHDR", bytes(size)) + chunk(b"IDAT", zlib.compress(bytes(6))) + END
    assert "header" in refusal(content)


@pytest.mark.parametrize("length", [4, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_chunk_that_claims_more_than_there_is_is_refused(length):
    content = made(2, 2, bytes(6))
    refusal(content[:33] + struct.pack(">I", length) + content[37:])


def test_a_wrong_checksum_of_the_pixels_is_refused():
    data = zlib.compress(bytes(6))
    refusal(SIGNATURE + header(2, 2) + chunk(b"IDAT", data[:-1] + bytes([data[-1] ^ 1])) + END)


@pytest.mark.parametrize("data", [b"", b"not zlib", zlib.compress(bytes(6))[:-1], zlib.compress(bytes(6))[2:]])
def test_pixels_that_do_not_decompress_are_refused(data):
    assert "pixels" in refusal(SIGNATURE + header(2, 2) + chunk(b"IDAT", data) + END)


# size

SIZES = [(0, 1), (1, 0), (MAX_SIDE + 1, 1), (1, MAX_SIDE + 1), (MAX_SIDE, MAX_PIXELS // MAX_SIDE + 1)]


@pytest.mark.parametrize(("width", "height"), [*SIZES, (65_535, 65_535), (2**31 - 1, 1), (2**32 - 1, 2**32 - 1)])
def test_empty_and_oversized_pictures_are_refused(width, height):
    assert "at most" in refusal(made(width, height, bytes(min(height * (1 + width), 10**6))))


@pytest.mark.parametrize("size", [0, 5, 7, 12, 10**6])
def test_more_or_fewer_pixels_than_declared_are_refused(size):
    assert "pixels" in refusal(made(2, 2, bytes(size)))


def bombs() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(100_000_000), 9)
    pieces = b"".join(chunk(b"IDAT", zeros[i : i + 99]) for i in range(0, len(zeros), 99))
    return {
        "tiny": SIGNATURE + header(2, 2) + chunk(b"IDAT", zeros) + END,
        "largest": SIGNATURE + header(512, 512, colour=RGB) + chunk(b"IDAT", zeros) + END,
        "split": SIGNATURE + header(9, 9) + pieces + END,
        "huge header": SIGNATURE + header(50_000, 50_000) + chunk(b"IDAT", zeros) + END,
        "empty chunks": SIGNATURE + header(9, 9) + chunk(b"IDAT") * 3_400 + END,
    }


def test_a_bomb_is_refused_quickly_and_in_little_memory():
    for name, bomb in bombs().items():
        tracemalloc.start()
        start = time.perf_counter()
        refusal(bomb)
        seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds < HANGING, name
        assert peak < 5_000_000, name

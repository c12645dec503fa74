"""Grids of images, their first rows, and animations over generations. No torch here."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 10, 6
SHOWN = COLUMNS * ROWS
_GAP = 2
_PAPER = 255
_SECONDS_PER_FRAME = 0.7
_CAPTION = 20  # pixels
_SIDE = 84  # pixels of an enlarged image: differences between neighbouring generations can be seen
_SPACE = 24  # pixels between the blocks of a sheet
_MARGIN = 130  # pixels of a sheet's row captions
_INK, _WHITE = (40, 40, 40), (255, 255, 255)


def grid(images: npt.NDArray[np.uint8]) -> Image.Image:
    """Arrange up to `SHOWN` images, (n, C, H, W) uint8 with C 1 or 3, in rows of `COLUMNS`."""
    n, channels, height, width = images[:SHOWN].shape
    rows = -(-n // COLUMNS)
    canvas = np.full((rows * (height + _GAP) + _GAP, COLUMNS * (width + _GAP) + _GAP, channels), _PAPER, dtype=np.uint8)
    for i, image in enumerate(images[:SHOWN]):
        top, left = (_GAP + (i // COLUMNS) * (height + _GAP), _GAP + (i % COLUMNS) * (width + _GAP))
        canvas[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)


def top_rows(picture: Image.Image, rows: int) -> Image.Image:
    """The first rows of a grid of square images."""
    side = (picture.width - _GAP) // COLUMNS
    return picture.crop((0, 0, picture.width, min(picture.height, rows * side + _GAP)))


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write_animation(grids: Sequence[tuple[str, Image.Image]], path: Path) -> None:
    """Write an animated WebP that shows captioned grids one after another, enlarged.

    Args:
        grids: (caption, grid) in order. path: the output file.
    """
    frames = [_captioned(caption, picture) for caption, picture in grids]
    frames[0].save(
        path, "WEBP", save_all=True, append_images=frames[1:], duration=int(1000 * _SECONDS_PER_FRAME), loop=0,
        quality=70, method=4,
    )  # fmt: skip


def sheet(blocks: Sequence[tuple[str, Sequence[tuple[str, Image.Image | None]]]]) -> Image.Image:
    """Put grids below one another, enlarged, to compare them.

    Args:
        blocks: (heading, rows), from top to bottom; a row is (caption, grid). Grids have the same size; None leaves a
            place empty. At least one place is not.
    """
    parts = [
        (heading, [(caption, picture and _enlarged(picture)) for caption, picture in rows]) for heading, rows in blocks
    ]
    width, height = next(picture for _, rows in parts for _, picture in rows if picture).size
    heights = [2 * _CAPTION + len(rows) * (height + _GAP) for _, rows in parts]
    canvas = Image.new("RGB", (_MARGIN + width, sum(heights) + (len(parts) - 1) * _SPACE), _WHITE)
    top = 0
    for (heading, rows), taken in zip(parts, heights, strict=True):
        _write(canvas, (_MARGIN, top + _CAPTION // 3), heading)
        for i, (caption, picture) in enumerate(rows):
            y = top + 2 * _CAPTION + i * (height + _GAP)
            _write(canvas, (6, y + (height - _CAPTION) // 2), caption)
            if picture:
                canvas.paste(picture, (_MARGIN, y))
        top += taken + _SPACE
    return canvas


def _captioned(caption: str, picture: Image.Image) -> Image.Image:
    large = _enlarged(picture)
    frame = Image.new("RGB", (large.width, large.height + 2 * _CAPTION), _WHITE)
    frame.paste(large, (0, 2 * _CAPTION))
    _write(frame, (6, _CAPTION // 3), caption)
    return frame


def _enlarged(picture: Image.Image) -> Image.Image:
    """A grid with every pixel enlarged by the same whole factor, so that an image is about `_SIDE` wide."""
    side = (picture.width - _GAP) // COLUMNS - _GAP
    factor = max(1, round(_SIDE / side))
    return picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _write(canvas: Image.Image, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(canvas).text(place, text, fill=_INK, font=ImageFont.load_default(size=_CAPTION))

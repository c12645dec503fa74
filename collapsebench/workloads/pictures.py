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


def write_animation(grids: Sequence[tuple[str, Image.Image]], path: Path, scale: int = 2) -> None:
    """Write an animated WebP that shows captioned grids one after another.

    Args:
        grids: (caption, grid) in order. path: the output file. scale: factor by which every pixel is enlarged.
    """
    frames = [_captioned(caption, picture, scale) for caption, picture in grids]
    frames[0].save(
        path, "WEBP", save_all=True, append_images=frames[1:], duration=int(1000 * _SECONDS_PER_FRAME), loop=0,
        quality=70, method=4,
    )  # fmt: skip


def _captioned(caption: str, picture: Image.Image, scale: int) -> Image.Image:
    large = picture.convert("RGB").resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    frame = Image.new("RGB", (large.width, large.height + 2 * _CAPTION), (255, 255, 255))
    frame.paste(large, (0, 2 * _CAPTION))
    font = ImageFont.load_default(size=_CAPTION)
    ImageDraw.Draw(frame).text((6, _CAPTION // 3), caption, fill=(40, 40, 40), font=font)
    return frame

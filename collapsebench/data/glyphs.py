"""Letters in the fonts shipped with matplotlib, drawn like MNIST's digits, to train base models of images.

They include no digits and no letters that look like digits. The fonts are DejaVu (free, derived from Bitstream Vera)
and STIX (SIL Open Font License); their licences are in the same folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from collapsebench.data.labelled_images import Images
from collapsebench.errors import DataError

_FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip
_SHA256 = "3cd0a79bc53f6c07d09ed312f958bde083ca9d48e90ea03f744f970897158047"  # of the concatenated font files
_RANGES = (("A", "Z"), ("a", "z"), ("Α", "Ρ"), ("Σ", "Ω"), ("α", "ω"), ("А", "я"))
_LIKE_DIGITS = "OolIiΟοΙОо"
# Rotation in degrees, and width relative to the letter's own: handwriting is slanted and narrower than print.
_LOOKS = ((-12, 0.80), (-7, 1.00), (-2, 0.90), (2, 0.75), (7, 0.85), (12, 0.95))
_SIDE, _BOX = 28, 20  # as in MNIST: the letter fits the box, and its centre of mass is at the image's centre
_POINTS = 64


def load_glyphs() -> Images:
    """Every letter in every font and look, (n, 1, 28, 28) uint8, white on black; the class is the letter.

    Pillow draws the pixels, which can differ by a few grey values between its versions.

    Raises:
        DataError: matplotlib's fonts are not the expected ones.
    """
    folder = _fonts()
    pixels, labels = [], []
    for font in _FONTS:
        drawn = ImageFont.truetype(folder / f"{font}.ttf", _POINTS)
        for label, letter in enumerate(_letters()):
            glyph = _drawn(letter, drawn)
            pixels += [_placed(glyph, degrees, width) for degrees, width in _LOOKS]
            labels += [label] * len(_LOOKS)
    return Images(torch.tensor(np.stack(pixels))[:, None], torch.tensor(labels))


def _fonts() -> Path:
    """The folder of the fonts."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise DataError("the letters are drawn with fonts that come with matplotlib, which is not installed.")
    folder = Path(next(iter(spec.submodule_search_locations))) / "mpl-data" / "fonts" / "ttf"
    files = [folder / f"{font}.ttf" for font in _FONTS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{folder} has no {', '.join(missing)}; this release of matplotlib comes with other fonts.")
    found = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if found != _SHA256:
        raise DataError(f"the fonts in {folder} are others: sha256 {found[:16]}…, expected {_SHA256[:16]}….")
    return folder


def _letters() -> Iterator[str]:
    for first, last in _RANGES:
        yield from (chr(code) for code in range(ord(first), ord(last) + 1) if chr(code) not in _LIKE_DIGITS)


def _drawn(letter: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Draw a letter, white on black, without a margin."""
    canvas = Image.new("L", (3 * _POINTS, 3 * _POINTS))
    ImageDraw.Draw(canvas).text((_POINTS, _POINTS // 2), letter, fill=255, font=font)
    return canvas.crop(canvas.getbbox())


def _placed(glyph: Image.Image, degrees: float, width: float) -> NDArray[np.uint8]:
    """Place a letter in one look: fitted into the box, with its centre of mass at the centre of the image."""
    turned = glyph.rotate(degrees, expand=True, resample=Image.Resampling.BICUBIC)
    scale = _BOX / max(turned.width * width, turned.height)
    size = max(1, round(turned.width * width * scale)), max(1, round(turned.height * scale))
    small = np.asarray(turned.resize(size, Image.Resampling.LANCZOS))
    image = np.zeros((_SIDE, _SIDE), np.uint8)
    rows, columns = (_start(small.sum(axis, dtype=np.int64)) for axis in (1, 0))
    image[rows : rows + small.shape[0], columns : columns + small.shape[1]] = small
    return image


def _start(mass: NDArray[np.int64]) -> int:
    """Start of a row of pixels such that its centre of mass is in the middle, as far as it fits."""
    centre = float(mass @ np.arange(len(mass))) / int(mass.sum())
    return int(np.clip(round((_SIDE - 1) / 2 - centre), 0, _SIDE - len(mass)))

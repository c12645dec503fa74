"""The letters that a base model of images sees: drawn like digits, and no digits."""

from __future__ import annotations

import pytest
import torch

from collapsebench.data import glyphs
from collapsebench.errors import DataError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only four letters, since all of them take a while."""
    monkeypatch.setattr(glyphs, "_RANGES", ("AC", "ll", "xx"))  # l is written like 1


@pytest.mark.usefixtures("few")
def test_letters_are_drawn_like_the_digits_of_mnist() -> None:
    found = glyphs.load_glyphs()
    looks = 16 * 6
    assert found.pixels.shape == (4 * looks, 1, 28, 28)
    assert torch.bincount(found.labels).tolist() == [looks] * 4
    mass = found.pixels.double().squeeze(1)
    where = torch.arange(28, dtype=torch.float64)
    for axis in (1, 2):
        centre = (mass.sum(3 - axis) * where).sum(1) / mass.sum((1, 2))
        assert float((centre - 13.5).abs().max()) <= 1.0
        lit = mass.sum(3 - axis) > 0
        assert int(lit.sum(1).max()) <= 20
    assert torch.equal(glyphs.load_glyphs().pixels, found.pixels)


def test_no_letter_looks_like_a_digit() -> None:
    letters = list(glyphs._letters())
    assert len(letters) == len(set(letters)) == 155
    assert not any(letter.isdigit() or letter in "OoIl" for letter in letters)
    assert all(letter.isalpha() for letter in letters)


def test_other_fonts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glyphs, "_SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"are others: sha256 [0-9a-f]{16}…, expected 0{16}…"):
        glyphs.load_glyphs()
    monkeypatch.setattr(glyphs, "_FONTS", ("Nowhere",))
    with pytest.raises(DataError, match=r"has no Nowhere.ttf"):
        glyphs.load_glyphs()

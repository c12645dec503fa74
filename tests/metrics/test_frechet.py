"""Distances between sets of features, against closed forms and clean-fid."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from collapsebench.errors import DataError
from collapsebench.metrics.frechet import _distance_from_singular_values, frechet_distance, kernel_distance

torch.set_num_threads(1)
fid = pytest.importorskip("cleanfid.fid")

Matrix = NDArray[np.float64]


def normal(rows: int, columns: int, seed: int, scale: float = 1.0) -> Matrix:
    return scale * np.random.default_rng(seed).normal(size=(rows, columns))


def with_moments(mean: Matrix, covariance: Matrix, rows: int, seed: int) -> Matrix:
    """Features whose sample mean and covariance are exactly these."""
    x = normal(rows, len(mean), seed)
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_distance_of_commuting_gaussians_is_the_closed_form() -> None:
    axes = np.linalg.qr(normal(4, 4, 1))[0]
    a, b = np.array([1.0, 2.0, 0.5, 3.0]), np.array([2.0, 0.1, 0.5, 1.0])
    x = with_moments(np.arange(4.0), axes @ np.diag(a) @ axes.T, 50, 2)
    y = with_moments(np.ones(4), axes @ np.diag(b) @ axes.T, 60, 3)
    expected = np.square(np.arange(4) - 1).sum() + np.square(np.sqrt(a) - np.sqrt(b)).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_distance_of_any_gaussians_is_the_trace_formula() -> None:
    x, y = normal(300, 6, 1) @ normal(6, 6, 2), normal(200, 6, 3) @ normal(6, 6, 4) + 1
    p, q = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    eigenvalues = np.linalg.eigvals(p @ q).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(p + q) - 2 * np.sqrt(eigenvalues).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_equal_sets_are_at_zero() -> None:
    x = normal(100, 16, 1)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(("rows", "columns", "scale"), [(400, 32, 1.0), (20, 32, 1.0), (5, 40, 0.01), (50, 2, 100.0)])
def test_singular_values_give_the_distance_of_clean_fid(rows: int, columns: int, scale: float) -> None:
    x, y = normal(rows, columns, 1, scale), normal(rows + 3, columns, 2, scale) + scale
    assert _distance_from_singular_values(x, y) == pytest.approx(frechet_distance(x, y), rel=1e-5)


@pytest.mark.filterwarnings("ignore")  # of clean-fid
def test_what_clean_fid_refuses_has_a_distance() -> None:
    x, y = normal(20, 64, 1, 1e4), normal(20, 64, 2, 1e4)
    with pytest.raises(ValueError, match="Imaginary"):
        fid.fid_from_feats(x, y)
    assert frechet_distance(x, y) == pytest.approx(1e8 * frechet_distance(x / 1e4, y / 1e4), rel=1e-4)


def test_one_column_has_a_distance() -> None:
    x, y = normal(50, 1, 1), 3 * normal(70, 1, 2) + 2
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_a_collapsed_set_has_a_distance() -> None:
    x, y = np.ones((40, 5)), normal(50, 5, 1)
    expected = np.square(1 - y.mean(0)).sum() + y.var(0, ddof=1).sum()
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x, np.zeros((40, 5))) == pytest.approx(5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_have_no_distance(bad: float) -> None:
    x, y = normal(30, 4, 1), normal(30, 4, 2)
    x[3, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pair in ((x, y), (y, x)):
            assert np.isnan(frechet_distance(*pair))
            assert np.isnan(kernel_distance(*pair, np.random.default_rng(0)))


def test_features_too_large_to_square_have_no_distance() -> None:
    assert np.isnan(frechet_distance(normal(30, 4, 1, 1e200), normal(30, 4, 2)))


def test_single_precision_is_widened_first() -> None:
    x, y = (normal(200, 8, seed) + 1000 for seed in (1, 2))
    narrow = frechet_distance(x.astype(np.float32), y.astype(np.float32))
    assert narrow == pytest.approx(
        frechet_distance(x.astype(np.float32).astype(float), y.astype(np.float32)), rel=1e-12
    )


def test_no_warning_reaches_the_caller() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(np.ones((40, 5)), np.zeros((40, 5)))
        frechet_distance(normal(10, 20, 1), normal(10, 20, 2))


def test_clean_fid_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanfid.fid", None)
    with pytest.raises(DataError, match=r"collapsebench\[images\]"):
        frechet_distance(normal(9, 2, 1), normal(9, 2, 2))


@pytest.mark.parametrize("shapes", [((5, 3), (5, 4)), ((5,), (5,)), ((1, 3), (5, 3)), ((5, 3), (0, 3))])
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, y = (np.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match="shapes"):
        frechet_distance(x, y)
    with pytest.raises(ValueError, match="shapes"):
        kernel_distance(x, y, np.random.default_rng(0))


@pytest.mark.parametrize(("rows", "other_rows"), [(30, 30), (2, 2)])
def test_kernel_distance_of_whole_sets_is_that_of_clean_fid(rows: int, other_rows: int) -> None:
    x, y = normal(rows, 8, 1), normal(other_rows, 8, 2) + 0.3
    expected = fid.kernel_distance(x, y, num_subsets=2, max_subset_size=1000)
    assert kernel_distance(x, y, np.random.default_rng(0), subsets=3) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_the_unbiased_sum_over_pairs() -> None:
    x, y = normal(5, 3, 1), normal(5, 3, 2)

    def kernel(p: Matrix, q: Matrix) -> float:
        return (p @ q / 3 + 1) ** 3

    same = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(5) for j in range(5) if i != j) / 20
    cross = sum(kernel(p, q) for p in x for q in y) / 25
    assert kernel_distance(x, y, np.random.default_rng(0), subsets=1) == pytest.approx(same - 2 * cross, rel=1e-9)


def test_subsets_average_to_the_whole() -> None:
    x, y = normal(60, 4, 1), normal(60, 4, 2) + 0.5
    whole = kernel_distance(x, y, np.random.default_rng(0), subsets=1)
    found = [kernel_distance(x, y, np.random.default_rng(s), subsets=200, subset_size=20) for s in range(2)]
    assert found[0] != found[1]
    assert np.mean(found) == pytest.approx(whole, rel=0.1)


def test_kernel_distance_of_one_distribution_is_around_zero() -> None:
    found = [kernel_distance(normal(50, 4, s), normal(50, 4, s + 100), np.random.default_rng(s), 1) for s in range(40)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(40)


def test_the_smaller_set_bounds_the_subsets() -> None:
    x, y = normal(12, 4, 1), normal(80, 4, 2)
    drawn = np.random.default_rng(5)
    expected = 0.0
    for _ in range(4):
        p, q = x[drawn.choice(12, 12, replace=False)], y[drawn.choice(80, 12, replace=False)]
        expected += fid.kernel_distance(p, q, num_subsets=1) / 4
    assert kernel_distance(x, y, np.random.default_rng(5), subsets=4) == pytest.approx(expected, rel=1e-9)


def test_the_global_generator_of_numpy_is_left_alone() -> None:
    x, y = normal(60, 4, 1), normal(60, 4, 2)
    found = []
    for seed in (1, 2):
        np.random.seed(seed)
        before = np.random.get_state()[1].copy()
        found.append(kernel_distance(x, y, np.random.default_rng(7), subset_size=20))
        frechet_distance(x, y)
        assert np.array_equal(np.random.get_state()[1], before)
    assert found[0] == found[1]


def as_pngs(images: Tensor, folder: Path) -> str:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:04}.png")
    return str(folder)


@pytest.mark.filterwarnings("ignore")  # of clean-fid
def test_distance_of_images_in_memory_is_that_of_clean_fid_on_files(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(256, (90, 3, 12, 12), generator=generator, dtype=torch.uint8)
    fake = torch.randint(200, (80, 3, 12, 12), generator=generator, dtype=torch.uint8)
    weights = torch.randn(3 * 144, 24, generator=generator)

    def extract(images: Tensor) -> Tensor:
        return torch.relu((images.float() / 255).flatten(1) @ weights)

    expected = fid.compute_fid(
        as_pngs(real, tmp_path / "real"),
        as_pngs(fake, tmp_path / "fake"),
        custom_feat_extractor=extract,
        custom_fn_resize=lambda image: image.astype(np.float32),
        num_workers=0,
        use_dataparallel=False,
        device=torch.device("cpu"),
        verbose=False,
    )
    assert expected > 1
    assert frechet_distance(extract(real).numpy(), extract(fake).numpy()) == pytest.approx(expected, rel=1e-3)

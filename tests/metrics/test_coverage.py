"""Precision, recall, density, coverage and nearest neighbours, against loops written from the definitions."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor

from collapsebench.metrics.coverage import Manifold, manifold_metrics, nearest_distances

torch.set_num_threads(1)


def points(rows: int, columns: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def radius(centre: int, among: np.ndarray, k: int) -> float:
    """Distance to the k-th nearest other point."""
    return sorted(math.dist(among[centre], other) for j, other in enumerate(among) if j != centre)[k - 1]


def in_manifold(point: np.ndarray, of: np.ndarray, k: int) -> bool:
    return any(math.dist(point, of[i]) <= radius(i, of, k) for i in range(len(of)))


def by_definition(real_points: Tensor, fake_points: Tensor, k: int = 3, j: int = 5) -> Manifold:
    real, fake = real_points.double().numpy(), fake_points.double().numpy()
    inside = [[math.dist(y, real[i]) <= radius(i, real, j) for i in range(len(real))] for y in fake]
    return Manifold(
        precision=sum(in_manifold(y, real, k) for y in fake) / len(fake),
        recall=sum(in_manifold(x, fake, k) for x in real) / len(real),
        density=sum(sum(row) for row in inside) / (j * len(fake)),
        coverage=sum(any(row[i] for row in inside) for i in range(len(real))) / len(real),
    )


def close(a: Manifold, b: Manifold) -> bool:
    return astuple(a) == pytest.approx(astuple(b), abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (25, 40), (6, 4)])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_values_are_those_of_the_definitions(n: int, m: int, shift: float) -> None:
    real, fake = points(n, seed=1), points(m, seed=2) * 0.7 + shift
    assert close(manifold_metrics(real, fake), by_definition(real, fake))


@pytest.mark.parametrize(("k", "j"), [(1, 1), (5, 3), (7, 2)])
def test_other_neighbour_counts(k: int, j: int) -> None:
    real, fake = points(20, seed=3), points(22, seed=4) + 0.5
    assert close(manifold_metrics(real, fake, k, j), by_definition(real, fake, k, j))


def test_a_copy_of_the_data_is_judged_by_closed_balls() -> None:
    real = points(40, 8)
    shuffled = real[torch.randperm(40, generator=torch.Generator().manual_seed(1))]
    found = manifold_metrics(real, shuffled)
    assert close(found, Manifold(precision=1, recall=1, density=6 / 5, coverage=1))  # five neighbours and itself


def test_duplicates_in_balls_without_extent_count() -> None:
    real, fake = points(20, seed=5), points(12, seed=6)
    real[:8] = real[0].clone()
    fake[:5] = real[0]
    assert close(manifold_metrics(real, fake), by_definition(real, fake))


def test_features_far_from_the_origin_lose_nothing() -> None:
    real, fake = points(30, seed=7), points(30, seed=8) + 0.5
    moved = manifold_metrics(real.double() + 1e5, fake.double() + 1e5)
    assert close(moved, manifold_metrics(real, fake))


def test_a_collapsed_generator_covers_little() -> None:
    real = points(200, 4)
    found = manifold_metrics(real, real[:1] + 0.001 * points(100, 4, seed=9))
    assert found.precision == 1
    assert found.recall < 0.05
    assert found.coverage < 0.1


def test_a_generator_far_away_is_worst() -> None:
    assert close(manifold_metrics(points(50), points(50, seed=1) + 1e6), Manifold(0, 0, 0, 0))


def test_the_same_distribution_has_a_density_about_one() -> None:
    found = manifold_metrics(points(600, 5), points(600, 5, seed=1))
    assert found.density == pytest.approx(1, abs=0.1)
    assert found.coverage > 0.9


def test_values_do_not_depend_on_blocks_or_order(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = points(70, seed=1), points(50, seed=2) + 0.5
    whole = manifold_metrics(real, fake)
    monkeypatch.setattr("collapsebench.metrics.coverage._ROWS", 16)
    assert manifold_metrics(real, fake) == whole
    assert close(manifold_metrics(real.flip(0), fake.flip(0)), whole)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_have_no_values(bad: float) -> None:
    real, fake = points(20), points(20, seed=1)
    fake[3, 1] = bad
    assert all(math.isnan(value) for value in astuple(manifold_metrics(real, fake)))
    assert all(math.isnan(value) for value in astuple(manifold_metrics(fake, real)))


@pytest.mark.parametrize(("n", "m", "kind"), [(5, 20, "real"), (20, 3, "generated"), (0, 20, "real")])
def test_too_few_samples_are_refused(n: int, m: int, kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} samples are too few"):
        manifold_metrics(points(n), points(m))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same d"):
        manifold_metrics(points(20, 3), points(20, 4))
    with pytest.raises(ValueError, match="same d"):
        nearest_distances(points(20, 3)[0], points(20, 3))


def test_nearest_distances_are_those_of_a_loop() -> None:
    queries, data = points(25, seed=1), points(31, seed=2)
    expected = [min(math.dist(q, x) for x in data.tolist()) for q in queries.tolist()]
    found = nearest_distances(queries, data)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-7)


def test_nearest_distances_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, data = points(25, seed=1), points(31, seed=2)
    whole = nearest_distances(queries, data)
    monkeypatch.setattr("collapsebench.metrics.coverage._ROWS", 4)
    monkeypatch.setattr("collapsebench.metrics.coverage._COLUMNS", 5)
    assert torch.equal(nearest_distances(queries, data), whole)


def test_nearest_distances_of_pixels() -> None:
    data = torch.randint(256, (40, 27), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    queries = data[:3].clone()
    queries[1, 2] ^= 4
    assert nearest_distances(queries, data).tolist() == [0, pytest.approx(4), 0]


def test_a_copy_is_at_zero_and_a_near_copy_is_not() -> None:
    data = points(1200, 64) + 100
    queries = data[[700, 3]].clone()
    queries[1, 0] = torch.nextafter(queries[1, 0], torch.tensor(1e9))
    copy, near = nearest_distances(queries, data).tolist()
    assert copy == 0
    assert near == pytest.approx(float(queries[1, 0] - data[3, 0]), rel=1e-6)


def test_without_data_there_is_no_nearest() -> None:
    with pytest.raises(ValueError, match="too few"):
        nearest_distances(points(4), points(0))
    assert nearest_distances(points(0), points(4)).shape == (0,)


def test_a_query_that_is_not_finite_stays_visible() -> None:
    queries = points(3)
    queries[1, 0] = float("nan")
    assert torch.isnan(nearest_distances(queries, points(9, seed=1))).tolist() == [False, True, False]

"""Distances between two sets of image features: Fréchet distance and kernel distance.

With features of the Inception network these are FID and KID. With any other features they are not, so the number must
be given with the name of the network. Both depend on the number of images, which is reported next to them.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from collapsebench.errors import DataError

Matrix = NDArray[np.float64]


def frechet_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Squared 2-Wasserstein distance of the Gaussians fitted to two sets of features (Heusel 2017, arXiv 1706.08500).

    Computed by clean-fid in float64. It fails for a single column, and when the matrix root has an imaginary part, as
    with singular covariances of large features. Then the same trace is computed from singular values, which exist for
    every input.

    Args:
        a, b: (n, d) and (m, d) features, one row per image.

    Returns:
        Squared units of the features, 0 for equal moments. NaN if a feature or its square is not finite: the model
        diverged, and there is no distance.

    Raises:
        ValueError: not two matrices of equal width, or fewer than two rows in one.
        DataError: clean-fid is not installed.
    """
    x, y = _matrices(a, b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    try:
        from cleanfid.fid import fid_from_feats
    except ImportError as error:
        raise DataError("the Fréchet distance needs clean-fid: pip install 'collapsebench[images]'.") from error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # sqrtm(disp=False), which scipy < 1.18 still accepts
        warnings.simplefilter("ignore", RuntimeWarning)  # singular covariances: tests compare both computations
        try:
            distance = float(fid_from_feats(x, y))
        except (ValueError, np.linalg.LinAlgError):
            distance = _distance_from_singular_values(x, y)
    return distance if np.isfinite(distance) else float("nan")


def kernel_distance(
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    generator: np.random.Generator,
    subsets: int = 50,
    subset_size: int = 500,
) -> float:
    """Mean unbiased MMD² with the kernel (x·y/d + 1)³ over random subsets (Bińkowski 2018, arXiv 1801.01401).

    Args:
        a, b: (n, d) and (m, d) features, one row per image.
        generator: draws the subsets; numpy's global state is neither read nor changed.
        subsets: number of subsets averaged. subset_size: rows per subset, at most those of the smaller set.

    Returns:
        A unitless number. About 0 for samples of one distribution; sometimes below 0, since the estimate is unbiased.
        NaN if a feature is NaN or infinite.

    Raises:
        ValueError: not two matrices of equal width, or fewer than two rows in one.
    """
    x, y = _matrices(a, b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    size = min(len(x), len(y), subset_size)
    total = 0.0
    for _ in range(subsets):
        p = x[generator.choice(len(x), size, replace=False)]
        q = y[generator.choice(len(y), size, replace=False)]
        within = _kernel(p, p) + _kernel(q, q)
        total += (within.sum() - within.trace()) / (size * (size - 1)) - 2 * _kernel(p, q).mean()
    return float(total / subsets)


def distance_flops(n: int, m: int, d: int, subsets: int = 50, subset_size: int = 500) -> int:
    """FLOPs of both distances: two covariances, the root of their product, and three kernels per subset.

    Args:
        n, m: rows of the two sets. d: columns. Other arguments as in `kernel_distance`.
    """
    size = min(n, m, subset_size)
    root = 30 * d**3  # the product, its Schur form, the root of the triangular factor, the transformation back
    return 2 * (n + m) * d**2 + root + subsets * 3 * 2 * size**2 * d


def _kernel(x: Matrix, y: Matrix) -> Matrix:
    product = x @ y.T / x.shape[1] + 1
    return product * product * product  # raising an array to an integer power is far slower


def _distance_from_singular_values(x: Matrix, y: Matrix) -> float:
    """The Fréchet distance without a matrix root.

    With covariances XᵀX and YᵀY of centred and scaled features, the trace of the root of their product is the sum of
    the singular values of XYᵀ. Here they are computed from the small factors R_x R_yᵀ, and they are real and
    non-negative for any rank.
    """
    shift = x.mean(0) - y.mean(0)
    x = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    y = (y - y.mean(0)) / np.sqrt(len(y) - 1)
    apart = shift @ shift + np.square(x).sum() + np.square(y).sum()
    if not np.isfinite(apart):
        return float("nan")
    factor: Matrix = np.linalg.qr(x).R @ np.linalg.qr(y).R.T
    return float(apart - 2 * np.linalg.svd(factor, compute_uv=False).sum())


def _matrices(a: NDArray[np.floating], b: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"features have the shapes {a.shape} and {b.shape}; wanted (n, d) and (m, d) with the same d, n ≥ 2 and "
            "m ≥ 2."
        )
    return a.astype(np.float64), b.astype(np.float64)

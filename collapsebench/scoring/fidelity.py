"""Raw values to fidelities, and curves of fidelity to fidelity intervals and their mean.

Fidelity is 1 at the reference (what the cross-entropy model reaches at generation 0) and 0 at the floor (what a model
reaches that learned nothing). The fidelity interval FI(λ) is the first generation at which a curve falls below λ; the
mean fidelity interval mFI is FI(λ) averaged over all λ from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

Array = npt.NDArray[np.float64]

ALL = "all"
"""Name, in the column ``metric``, of the score over all scored metrics of a task."""

DIVERGED = "diverged"
"""Content, in a frame of raw metrics, of the column ``status`` of a generation that diverged."""


@dataclass(frozen=True)
class Scale:
    """How a raw metric becomes a fidelity. The order of reference and floor says which direction is better.

    Attributes:
        reference: raw value with fidelity 1, in the metric's unit.
        floor: raw value with fidelity 0, in the metric's unit.
        kind: ``log``: equal ratios of the raw metric are equal steps of fidelity; ``linear``: equal differences are.
        later: what has fidelity 1 in generations 1, 2, …; empty: the reference, which is then that of all generations.

    Raises:
        ValueError: a number is not finite, the two are equal, or one is not positive on a log scale.
    """

    reference: float
    floor: float
    kind: Literal["log", "linear"]
    later: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("log", "linear"):
            raise ValueError(f"scale: kind is {self.kind!r}; allowed are 'log' and 'linear'")
        if self.reference is None or self.floor is None:
            raise ValueError("scale: reference or floor is not measured; calibrate the task first")
        for reference in (self.reference, *self.later):
            if not np.isfinite([reference, self.floor]).all():
                raise ValueError(f"scale: reference {reference} and floor {self.floor} must be finite numbers")
            if self.kind == "log" and min(reference, self.floor) <= 0:
                raise ValueError(f"log scale: reference {reference} and floor {self.floor} must be positive")
            if _position(reference, self.kind) == _position(self.floor, self.kind):
                raise ValueError(f"scale: reference and floor are both {self.floor}, fidelity would be undefined")

    def reference_in(self, generation: npt.ArrayLike) -> Array | float:
        """What has fidelity 1 in a generation, or in each of several."""
        return np.array((self.reference, *self.later))[np.asarray(generation)] if self.later else self.reference


@dataclass(frozen=True)
class FidelityInterval:
    """First generation at which a fidelity curve falls below a threshold.

    Attributes:
        generations: in generations, interpolated; G, the last generation, when the curve never falls below.
        censored: True when the curve never falls below: the true interval is at least ``generations``.
    """

    generations: float
    censored: bool


def fidelity(value: npt.ArrayLike, scale: Scale, generation: npt.ArrayLike = 0) -> Array:
    """Map raw values to fidelities in [0, 1].

    ``log``: log(floor / m) / log(floor / reference). ``linear``: (m − floor) / (reference − floor). Both are clipped,
    and both work whether lower or higher is better.

    Args:
        value: raw values m of any shape, in the unit of the scale.
        scale: reference and floor.
        generation: that the values are of, where it matters: one, or an array that broadcasts with them.

    Returns:
        Array of the shape of ``value`` (0-d for a number). NaN and ±inf give 0, as does m ≤ 0 on a log scale.
    """
    return np.asarray(np.clip(unclipped_fidelity(value, scale, generation), 0.0, 1.0))


def unclipped_fidelity(value: npt.ArrayLike, scale: Scale, generation: npt.ArrayLike = 0) -> Array:
    """Like `fidelity`, but above 1 for values better than the reference and below 0 for values worse than the floor.

    NaN, ±inf and, on a log scale, m ≤ 0 give 0. Used to look at the control; scores use the clipped fidelity.
    """
    raw = np.asarray(value, dtype=np.float64)
    valid = np.isfinite(raw) & (raw > 0 if scale.kind == "log" else True)
    safe = np.where(valid, raw, scale.floor)
    floor = _position(scale.floor, scale.kind)
    with np.errstate(over="ignore"):  # a huge raw value becomes ±inf here, and a clip makes it 0 or 1
        reference = _position(scale.reference_in(generation), scale.kind)
        share = (_position(safe, scale.kind) - floor) / (reference - floor)
    return np.asarray(np.where(valid, share, 0.0))


def fidelity_interval(curve: Sequence[float] | Array, threshold: float) -> FidelityInterval:
    """First generation at which a curve is strictly below the threshold, interpolated linearly between generations.

    Args:
        curve: fidelities of generations 0..G.
        threshold: λ, in (0, 1].

    Returns:
        0 and not censored for a curve that starts below the threshold; G and censored for one that never falls below
        it. Touching does not count as below: a curve that touches at g and is below at g + 1 has FI = g.

    Raises:
        ValueError: the curve is empty, is not one-dimensional or holds NaN, or the threshold is not in (0, 1].
    """
    values = np.asarray(curve, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"fidelity curve of shape {values.shape}: give one fidelity per generation, at least one")
    if np.isnan(values).any():
        raise ValueError("fidelity curve holds NaN; a missing fidelity is 0, see fidelity()")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not in (0, 1]")
    generations, censored = first_below(values, threshold)
    return FidelityInterval(float(generations), bool(censored))


def first_below(curves: Array, threshold: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    """`fidelity_interval` of many curves at once.

    Args:
        curves: fidelities, the last axis over generations 0..G; without NaN.

    Returns:
        Generations, and whether they are censored, both of the shape of the other axes.
    """
    last = curves.shape[-1] - 1
    below = curves < threshold
    censored = ~below.any(axis=-1)
    after = np.argmax(below, axis=-1)
    before = np.maximum(after - 1, 0)
    high = np.take_along_axis(curves, before[..., None], axis=-1)[..., 0]
    low = np.take_along_axis(curves, after[..., None], axis=-1)[..., 0]
    fall = np.where(after > 0, high - low, 1.0)
    crossing = np.where(after > 0, before + (high - threshold) / np.where(fall > 0, fall, 1.0), 0.0)
    return np.where(censored, float(last), crossing), np.asarray(censored)


def non_increasing(curves: Array) -> Array:
    """The non-increasing least-squares fits of curves: what a noisy curve says about a decay.

    A running minimum would treat every dip as decay, and its bias would grow with the noise.

    Args:
        curves: the last axis over generations 0..G; without NaN.

    Returns:
        Array of the same shape. A recovery is averaged with the dip before it.
    """
    fitted = curves.reshape(-1, curves.shape[-1]).copy()
    for row in np.flatnonzero((np.diff(fitted, axis=-1) > 0).any(axis=-1)):
        fitted[row] = isotonic_regression(fitted[row], increasing=False).x
    return np.asarray(fitted.reshape(curves.shape))


def mean_fidelity_interval(fitted: Array) -> Array:
    """mFI of non-increasing curves: ∫₀¹ FI(λ) dλ, which is the area under the curve, interpolated linearly.

    Args:
        fitted: as from `non_increasing`, within [0, 1].

    Returns:
        In generations, from 0 to G, of the shape of the other axes. Exact: a crossing between two generations counts
        where it is.
    """
    return np.asarray((fitted[..., 1:] + fitted[..., :-1]).sum(axis=-1) / 2)


def losses_by_generation(fitted: Array) -> Array:
    """What each generation costs in mFI; the sum is G − mFI.

    Generation 0 costs (1 − f(0)) G. A fall from generation g − 1 to g lasts until G and costs its height times
    G − g + ½.

    Args:
        fitted: as from `non_increasing`.

    Returns:
        In generations, of the same shape.
    """
    last = fitted.shape[-1] - 1
    start = (1.0 - fitted[..., :1]) * last
    return np.concatenate([start, -np.diff(fitted, axis=-1) * (last + 0.5 - np.arange(1, last + 1))], axis=-1)


def _position(value: Any, kind: Literal["log", "linear"]) -> Any:
    return np.log(value) if kind == "log" else value

"""Fit the power law C N^-a + L0 to errors (1 - AUC) at several sizes N, with bootstrap intervals. Pure NumPy.

For a given exponent the law is linear in C and L0, so both follow in closed form, and a search over the exponent alone
finds the least squares. C, L0 and a are not negative, and a lies within EXPONENTS.

Shapes: R resamples, K sizes, A exponents that are tried at once, S seeds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluate.statistics.bootstrap import Interval, interval

Floats = NDArray[np.float64]

EXPONENTS = (0.01, 3.0)
"""Between these an exponent is searched. At the lower end a curve falls as slowly as a logarithm, and no floor can be
told; at the upper end it has ended after the first size."""
LEAST_SIZES = 4
"""Sizes that determine three unknowns, and leave one to contradict them."""
_AT_THE_END = 1.05  # a bound of the interval within this factor of an end of EXPONENTS is at the end
_WIDEST = 5.0  # the largest factor between the bounds of an exponent that is told
_FIRST, _LATER, _ROUNDS = 129, 17, 8


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """1 - AUC = scale * N ** -exponent + floor, for N ECGs."""

    scale: Interval
    exponent: Interval
    floor: Interval
    """What is left of the error with any number of ECGs, if the law holds there."""
    twice: Interval
    """AUC that twice the ECGs of the largest size would add, by the law."""

    def error(self, size: float) -> float:
        """Return 1 - AUC at a size."""
        return self.scale.value * size**-self.exponent.value + self.floor.value


def fit(size_K: Floats, error_RK: Floats) -> tuple[Floats, Floats, Floats]:
    """Return scale, exponent and floor (R,) of least squares, for each row of errors.

    size_K: positive and rising.
    """
    relative_K = size_K / size_K[-1]  # the power of a small exponent of a large number loses digits
    tried_A = np.log(np.geomspace(*EXPONENTS, _FIRST))
    log_RA = np.broadcast_to(tried_A, (len(error_RK), _FIRST))
    best_R, at_R = np.zeros(len(error_RK)), np.zeros(len(error_RK), int)
    for _ in range(_ROUNDS):
        squares_RA, _, _ = _linear(relative_K, error_RK, np.exp(log_RA))
        at_R = squares_RA.argmin(axis=1)
        best_R = np.take_along_axis(log_RA, at_R[:, None], axis=1)[:, 0]
        last = log_RA.shape[1] - 1
        low_R, high_R = (
            np.take_along_axis(log_RA, np.clip(at_R + step, 0, last)[:, None], axis=1)[:, 0] for step in (-1, 1)
        )
        log_RA = low_R[:, None] + (high_R - low_R)[:, None] * np.linspace(0, 1, _LATER)
    exponent_R = np.exp(best_R)
    _, scale_R1, floor_R1 = _linear(relative_K, error_RK, exponent_R[:, None])
    return scale_R1[:, 0] * size_K[-1] ** exponent_R, exponent_R, floor_R1[:, 0]


def _linear(relative_K: Floats, error_RK: Floats, exponent_RA: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the squares that are left, scale and floor (R, A), of non-negative least squares for given exponents."""
    power_RAK = relative_K ** -exponent_RA[..., None]
    error_R1K = error_RK[:, None, :]
    mean_RA, error_mean_R1 = power_RAK.mean(axis=-1), error_R1K.mean(axis=-1)
    centred_RAK = power_RAK - mean_RA[..., None]
    scale_RA = (centred_RAK * error_R1K).sum(axis=-1) / (centred_RAK**2).sum(axis=-1)
    floor_RA = error_mean_R1 - scale_RA * mean_RA
    through_zero_RA = (power_RAK * error_R1K).sum(axis=-1) / (power_RAK**2).sum(axis=-1)
    # Errors are not negative, so at most one of both is at its bound.
    scale_RA = np.where(floor_RA < 0, through_zero_RA, scale_RA)
    floor_RA = np.where(floor_RA < 0, 0.0, floor_RA)
    floor_RA = np.where(scale_RA < 0, error_mean_R1, floor_RA)
    scale_RA = np.maximum(scale_RA, 0.0)
    left_RAK = error_R1K - scale_RA[..., None] * power_RAK - floor_RA[..., None]
    return (left_RAK**2).sum(axis=-1), scale_RA, floor_RA


def drawn_seeds(seeds: int, *, resamples: int, seed: int) -> Floats:
    """Return how much each training seed weighs in each resample, (R, S): seeds are drawn with replacement.

    One draw is for all sizes, since the subsets of a seed are nested.
    """
    drawn_RS = np.random.default_rng([seed, 1]).integers(0, seeds, size=(resamples, seeds))
    return np.stack([(drawn_RS == s).mean(axis=1) for s in range(seeds)], axis=1)


def power_law(size_K: Floats, error_K: Floats, error_RK: Floats, *, confidence: float) -> tuple[PowerLaw | None, str]:
    """Return the law of a curve, or None and why it cannot be told.

    error_K, error_RK: on the data as they are, and in each resample.
    """
    if len(size_K) < LEAST_SIZES:
        return None, f"shares that were scored: {len(size_K)}, and at least {LEAST_SIZES} are needed"
    gain = interval(error_K[0] - error_K[-1], error_RK[:, 0] - error_RK[:, -1], confidence)
    if gain.low <= 0:
        return None, (
            f"the curve is flat within its interval: from the smallest to the largest share the AUC changes by "
            f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
        )
    (scale,), (exponent,), (floor,) = fit(size_K, error_K[None])
    scale_R, exponent_R, floor_R = fit(size_K, error_RK)
    law = PowerLaw(
        scale=interval(scale, scale_R, confidence),
        exponent=interval(exponent, exponent_R, confidence),
        floor=interval(floor, floor_R, confidence),
        twice=interval(float(_twice(size_K[-1], scale, exponent)), _twice(size_K[-1], scale_R, exponent_R), confidence),
    )
    if not _is_told(law.exponent):
        return None, (
            f"these sizes do not determine the exponent: its interval is {law.exponent.low:.2f} to "
            f"{law.exponent.high:.2f}, of {EXPONENTS[0]:g} to {EXPONENTS[1]:g} that are searched"
        )
    if law.floor.high <= 0:
        return None, "the error falls more evenly, by each doubling of the ECGs, than a law with a floor above 0 can"
    return law, ""


def _is_told(exponent: Interval) -> bool:
    """Whether an exponent's interval is narrow enough, and reaches no end of what is searched."""
    low, high = EXPONENTS
    inside = low * _AT_THE_END < exponent.low and exponent.high < high / _AT_THE_END
    return inside and exponent.high < _WIDEST * exponent.low


def _twice(size: float, scale: Floats, exponent: Floats) -> Floats:
    """Return by how much the error falls from a size to twice the size."""
    return scale * size**-exponent * (1 - 2.0**-exponent)

"""Preprocessing of ECGs: the eight leads, resampling, the window. Harmonization and serving share it.

Shapes: L leads, T samples; arrays may carry batch axes in front, (..., L, T). Amplitudes are millivolt throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import LEADS, LeadMissing, complete_limb_leads, select_leads
from ecg_model.standard import RATE, SAMPLES, SECONDS

RATE_MIN, RATE_MAX = 50.0, 2000.0  # samples a second that are accepted

# Kaiser-windowed sinc with 20 zero crossings a side and 70 dB: flat to 0.446 of the lower rate, stopped from 0.554.
_CROSSINGS = 20
_BETA = 0.1102 * (70.0 - 8.7)  # Kaiser's rule for 70 dB; scipy.signal has it, and takes half a second to import
_BLOCK = 50  # outputs that are computed together
# Orders of the prediction at the edges: higher if the signal is sampled more sparsely than the target, since it then
# fills its band.
_ORDER = 16
_ORDER_SPARSE = 32


class TooShort(ValueError):
    """The recording is shorter than the window."""


def independent_leads(x_LT: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    """Select the independent leads, (..., L, T) with rows called `names` -> (..., 8, T) in the order of LEADS.

    Other channels are left out. I and II are computed if two other limb leads are given. Raises ValueError as
    `select_leads` does, and LeadMissing if a lead is absent.
    """
    x_LT, known, _ = select_leads(x_LT, names)
    x_LT, known, _ = complete_limb_leads(x_LT, known)
    if missing := [lead for lead in LEADS if lead not in known]:
        raise LeadMissing(
            f"leads {', '.join(missing)} are missing among {', '.join(names)}: give I, II and V1 to V6, by these names"
        )
    return x_LT[..., [known.index(lead) for lead in LEADS], :]


def derived_leads(limb_2T: NDArray[Any]) -> NDArray[Any]:
    """Compute the leads DERIVED from I and II, (..., 2, T) -> (..., 4, T).

    III = II - I (Einthoven); aVR = -(I + II) / 2, aVL = I - II / 2, aVF = II - I / 2 (Goldberger).
    """
    i_T, ii_T = limb_2T[..., 0, :], limb_2T[..., 1, :]
    return np.stack([ii_T - i_T, -(i_T + ii_T) / 2, i_T - ii_T / 2, ii_T - i_T / 2], axis=-2)


def resample(x_LT: NDArray[Any], rate: float, target: float = RATE) -> NDArray[np.float32]:
    """Resample along the last axis, band-limited: (..., T) at `rate` -> float32 (..., ceil(T * target / rate)).

    Output k lies at the time k / target. It is a convolution with a Kaiser-windowed sinc, cut off at half the lower of
    both rates, whose weights sum to one at each output (for any real ratio: a polyphase bank with one phase for each
    output). Beyond its ends the signal is continued by linear prediction, so that edges do not ring. At rate == target
    samples pass unchanged.

    Raises ValueError if a rate is outside 50..2000 Hz, if the signal is empty, or if a sample is not finite, since a
    filter would smear it.
    """
    x_LT = np.asarray(x_LT)
    _check_rate("rate", rate)
    _check_rate("target", target)
    if x_LT.shape[-1] == 0:
        raise ValueError(f"signal of shape {x_LT.shape} has no samples")
    if not np.isfinite(x_LT).all():
        raise ValueError("signal has samples that are not finite: fill or drop them before resampling")
    if rate == target:
        return x_LT.astype(np.float32)
    samples = x_LT.shape[-1]
    bank = _bank(float(rate), float(target), samples)
    order = _ORDER if rate > target else _ORDER_SPARSE
    x_MT = _continued(x_LT.reshape(-1, samples), bank.before, bank.after, order)
    # One product for each recording: its bits then do not depend on the rest of the batch, and it is too small for BLAS
    # threads.
    x_NLT = x_MT.reshape(-1, *x_LT.shape[-2:-1], x_MT.shape[-1])
    y_NLK = np.empty((*x_NLT.shape[:-1], bank.outputs), np.float32)
    for block, start in enumerate(bank.starts):
        weights_WK = bank.weights_BWK[block % len(bank.weights_BWK)]
        first = block * _BLOCK
        width = min(_BLOCK, bank.outputs - first)
        y_NLK[..., first : first + width] = (x_NLT[..., start : start + len(weights_WK)] @ weights_WK)[..., :width]
    return y_NLK.reshape(*x_LT.shape[:-1], bank.outputs)


def window_samples(rate: float) -> int:
    """Return the number of samples at `rate` that cover ten seconds."""
    return math.ceil(SECONDS * rate - 1e-6)


def window_reach(rate: float) -> int:
    """Return the number of samples from the start that `prepare` reads: the window and the filter's reach behind it."""
    return window_samples(rate) + _reach(rate, RATE) + 1


def prepare(x_LT: NDArray[Any], *, leads: Sequence[str], rate: float) -> NDArray[np.float32]:
    """Return the model's input: (..., L, T) millivolt with rows called `leads` -> float32 (..., 8, 2500) millivolt.

    It has the eight leads of LEADS, the first ten seconds, 250 samples a second. A longer recording is cut before it is
    resampled, with the filter's reach as margin, so that the window's end is no edge. Raises ValueError as
    `independent_leads` and `resample` do, and TooShort below ten seconds.
    """
    x_LT = independent_leads(np.asarray(x_LT), leads)
    _check_rate("rate", rate)
    needed = window_samples(rate)
    if x_LT.shape[-1] < needed:
        raise TooShort(
            f"signal of {x_LT.shape[-1]} samples at {rate:g} Hz lasts {x_LT.shape[-1] / rate:.2f} s: "
            f"give at least {SECONDS} s ({needed} samples)"
        )
    reach_LT = x_LT[..., : window_reach(rate)]
    if not np.isfinite(reach_LT[..., needed:]).all():  # samples behind the window are optional
        reach_LT = reach_LT[..., :needed]
    return resample(reach_LT, rate)[..., :SAMPLES]


def _check_rate(name: str, value: float) -> None:
    if not RATE_MIN <= value <= RATE_MAX:
        raise ValueError(f"{name} {value} Hz is not supported: use {RATE_MIN:g} to {RATE_MAX:g} samples a second")


class _Bank:
    """Filter weights for blocks of outputs.

    starts: block b reads the continued signal from starts[b] on.
    outputs: number of all outputs.
    weights_BWK: (blocks until they repeat, inputs, outputs of a block).
    before, after: samples by which the signal must be continued.
    """

    def __init__(self, rate: float, target: float, samples: int) -> None:
        step = Fraction(rate) / Fraction(target)
        reach = _reach(rate, target)
        self.outputs = max(1, math.ceil(samples / step))
        blocks = -(-self.outputs // _BLOCK)
        inputs = math.ceil((_BLOCK - 1) * step) + 2 * reach + 2
        starts = [math.floor(block * _BLOCK * step) for block in range(blocks)]
        # After a whole number of input samples the phases repeat, and with them the weights.
        period = min(blocks, (_BLOCK * step).denominator)
        first_B = [float(block * _BLOCK * step - start) for block, start in enumerate(starts[:period])]
        times_BK = np.array(first_B)[:, None] + np.arange(_BLOCK) * float(step)
        offsets_BWK = times_BK[:, None, :] - (np.arange(inputs) - reach)[:, None]
        # The Kaiser-windowed sinc at the offset of each input from each output, in input samples.
        cutoff = min(1.0, target / rate)
        window = np.i0(_BETA * np.sqrt(np.maximum(0.0, 1.0 - (offsets_BWK * cutoff / _CROSSINGS) ** 2)))
        inside = np.abs(offsets_BWK * cutoff) <= _CROSSINGS
        weights = np.where(inside, np.sinc(offsets_BWK * cutoff) * window, 0.0)
        self.weights_BWK = weights / weights.sum(axis=1, keepdims=True)
        self.before = reach
        self.after = max(0, starts[-1] - reach + inputs - samples)
        self.starts = starts


@lru_cache(maxsize=16)
def _bank(rate: float, target: float, samples: int) -> _Bank:
    return _Bank(rate, target, samples)


def _reach(rate: float, target: float) -> int:
    """Return the samples at `rate` that the filter reaches to either side."""
    return math.ceil(_CROSSINGS * max(1.0, rate / target))


def _continued(x_MT: NDArray[Any], before: int, after: int, order: int) -> NDArray[np.float64]:
    """Return the signals with `before` predicted samples in front and `after` behind, float64."""
    end = before + x_MT.shape[-1]
    y_MT = np.empty((len(x_MT), end + after))
    y_MT[:, before:end] = x_MT
    y_MT[:, end:] = _predicted(y_MT[:, before:end], after, order)
    y_MT[:, :before] = _predicted(y_MT[:, before:end][:, ::-1], before, order)[:, ::-1]
    return y_MT


def _predicted(x_MT: NDArray[np.float64], count: int, order: int) -> NDArray[np.float64]:
    """Predict the next samples linearly about the mean of the last 8 * order, (M, T) -> (M, count).

    The coefficients follow from Burg's recursion (Kay and Marple, Proc. IEEE 69, 1981, section II-D). Its poles lie
    inside the unit circle, so the continuation decays to the mean and never diverges.
    """
    tail_TM = np.ascontiguousarray(x_MT[:, -8 * order :].T)
    mean_M = tail_TM.mean(axis=0)
    tail_TM = tail_TM - mean_M
    order = min(order, len(tail_TM) // 2)
    forward, backward = tail_TM[1:].copy(), tail_TM[:-1].copy()
    coefficients = np.zeros((order + 1, len(x_MT)))
    coefficients[0] = 1.0
    tiny = np.finfo(np.float64).tiny
    # Forward and backward prediction errors of order i - 1 give the reflection coefficient of order i.
    for i in range(1, order + 1):
        power = np.einsum("tm,tm->m", forward, forward) + np.einsum("tm,tm->m", backward, backward)
        k_M = -2.0 * np.einsum("tm,tm->m", forward, backward) / (power + tiny)
        coefficients[: i + 1] += k_M * coefficients[i::-1]
        forward, backward = (forward + k_M * backward)[1:], (backward + k_M * forward)[:-1]
    # Time in rows, so that each new sample is one weighted sum over the `order` rows before it, newest first.
    future_TM = np.zeros((len(tail_TM) + count, len(x_MT)))
    future_TM[: len(tail_TM)] = tail_TM
    for t in range(len(tail_TM), len(future_TM)):
        future_TM[t] = -np.einsum("pm,pm->m", coefficients[1:], future_TM[t - order : t][::-1])
    return (future_TM[len(tail_TM) :] + mean_M).T

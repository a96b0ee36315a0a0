"""Whether two harmonized ECGs are one recording, by the correlation of their signals.

A copy may have been resampled, rounded, scaled in each lead, filtered, or shifted in baseline or by a few milliseconds.
What it keeps is its shape, and the time between its beats: another rhythm, however regular and however well in step at
its first beat, runs ahead of it or falls behind. Both are judged over all leads and all ten seconds.

Two ECGs that differ in noise alone, such as a simulator's, are one recording here.
Shapes: N records, K others, L leads, T samples, G lags.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.shard import RATE

# docs/decisions.md has the figures: copies of real ECGs correlate by 0.993 or more and drift by 0.2 ms or less.
SAME_CORRELATION = 0.985
SAME_DRIFT = 1.0
"""Milliseconds by which one may run ahead of the other between its first and its last second."""

_BLOCK = 2  # samples
_STEP = 1000 * _BLOCK / RATE  # milliseconds
_SMOOTH, _AROUND = 5, 45  # blocks: 40 ms and 360 ms, as in a signature
_MARGIN = (_AROUND - _SMOOTH) // 2
_LAG = 1  # blocks by which one may start later
_TINY = np.finfo(np.float32).tiny


def shapes(x_NLT: NDArray[np.int16]) -> NDArray[np.float16]:
    """Return what is compared of int16 (N, L, 2500), microvolt at 250 Hz: float16 (N, L, 1206), 19 kB an ECG.

    It is the mean of 40 ms minus the mean of 360 ms around it, every 8 ms, each lead scaled to a sum of squares of 1;
    a constant lead gives zeros.
    """
    total_NLT = np.zeros((*x_NLT.shape[:-1], x_NLT.shape[-1] // _BLOCK + 1), np.int32)
    np.cumsum(x_NLT[..., ::_BLOCK].astype(np.int32) + x_NLT[..., 1::_BLOCK], axis=-1, out=total_NLT[..., 1:])
    level_NLT, around_NLT = _sums(total_NLT, _SMOOTH)[..., _MARGIN:-_MARGIN], _sums(total_NLT, _AROUND)
    wave_NLT = (_AROUND * level_NLT - _SMOOTH * around_NLT).astype(np.float32)
    wave_NLT /= np.maximum(np.linalg.norm(wave_NLT, axis=-1, keepdims=True), 1)
    return wave_NLT.astype(np.float16)


def same_recording(one_LT: NDArray[np.float16], others_KLT: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return which of the others are the same recording as one, of their shapes; bool (K,)."""
    correlation_K, drift_K = agreement(one_LT, others_KLT)
    return (correlation_K >= SAME_CORRELATION) & (np.abs(drift_K) <= SAME_DRIFT)


def agreement(
    one_LT: NDArray[np.float16], others_KLT: NDArray[np.float16]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how one agrees with each of the others, of their shapes: the correlation, and the drift in milliseconds.

    The correlation is that of all leads together, at the best common lag. Lag and drift are fitted by least squares:
    where one is later, the difference of the two is its slope.
    """
    n = one_LT.shape[-1] - 2 * _LAG
    x_LT, all_KLT = one_LT[:, _LAG : _LAG + n].astype(np.float32), others_KLT.astype(np.float32)
    lagged = [all_KLT[..., lag : lag + n] for lag in range(2 * _LAG + 1)]
    best_K = np.argmax([np.einsum("lt,klt->k", x_LT, y_KLT) for y_KLT in lagged], axis=0)
    y_KLT = np.stack([lagged[best][k] for k, best in enumerate(best_K)])
    slope_KLT = np.zeros_like(y_KLT)
    both_KLT = x_LT + y_KLT
    slope_KLT[..., 1:-1] = (both_KLT[..., 2:] - both_KLT[..., :-2]) / 4
    # The normal equations of: x - y = (lag + drift * time) * slope.
    weight_KT = np.einsum("klt,klt->kt", slope_KLT, slope_KLT)
    later_KT = np.einsum("klt,klt->kt", x_LT - y_KLT, slope_KLT)
    time_T = np.linspace(-0.5, 0.5, n, dtype=np.float32)
    w0, w1, w2 = weight_KT.sum(axis=1), weight_KT @ time_T, weight_KT @ (time_T * time_T)
    b0, b1 = later_KT.sum(axis=1), later_KT @ time_T
    determinant = np.maximum(w0 * w2 - w1 * w1, _TINY)
    lag_K, drift_K = (b0 * w2 - b1 * w1) / determinant, (b1 * w0 - b0 * w1) / determinant
    y_KLT += lag_K[:, None, None] * slope_KLT
    size_K = np.linalg.norm(x_LT) * np.sqrt(np.einsum("klt,klt->k", y_KLT, y_KLT))
    return np.einsum("lt,klt->k", x_LT, y_KLT) / np.maximum(size_K, _TINY), drift_K * _STEP


def _sums(total_NLT: NDArray[np.int32], length: int) -> NDArray[np.int32]:
    """Return the sums of `length` neighbours, of running totals that begin with 0."""
    return total_NLT[..., length:] - total_NLT[..., :-length]

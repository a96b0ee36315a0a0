"""Handcrafted features of an ECG: a baseline that an encoder must beat. Pure, no training.

For each lead: percentiles of its amplitude about the median, percentiles of its slope, and the logarithm of its power
in six bands; for the ECG, a heart rate by autocorrelation and how clear it is. 21 a lead and 2, so 170 of 8 leads.
Shapes: N records, L leads, T samples, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from pipelines.evaluate.features import Extract, FeatureConfig, OnProgress
from pipelines.formats.shard import RATE
from pipelines.hashing import digest_of

NAME = "handcrafted"
"""Name of this source of features."""

VERSION = "1"
"""To be raised if the same ECG gives other features."""

LEVELS = (1, 2.5, 5, 10, 25, 75, 90, 95, 97.5, 99)
SLOPES = (1, 5, 50, 95, 99)
BANDS = ((0.5, 1.5), (1.5, 4), (4, 8), (8, 15), (15, 25), (25, 40))
"""In Hz. Above 40 Hz there is mostly muscle noise and mains hum."""

RATES = (30.0, 220.0)
"""Range of heart rates, beats a minute."""

_A_LEAD = len(LEVELS) + len(SLOPES) + len(BANDS)
_BATCH = 128  # records that are computed at once: 10 MB of float32
_SMOOTHING = round(0.1 * RATE)  # about a QRS complex
_NEARLY = 0.9  # a peak of this share of the highest is nearly as high
_FLOOR = 1e-8  # mV^2, added to the power, so that a flat lead has a logarithm


@dataclass(frozen=True, kw_only=True)
class HandcraftedSource:
    """These features as a `FeatureSource`, so that they are cached and probed like an encoder's."""

    name: str = NAME
    digest: str = digest_of({NAME: VERSION})

    def extractor(self, config: FeatureConfig) -> Extract:
        """Return the computation, which is in float32 on the CPU whatever `config` says of device and precision."""
        return handcrafted


def handcrafted(signal_NLT: NDArray[np.int16], progress: OnProgress | None = None) -> NDArray[np.float32]:
    """Compute features, float32 (N, 21 * L + 2), of int16 ECGs (N, L, T) in microvolt at 250 Hz; all are finite."""
    feature_ND = np.empty((len(signal_NLT), signal_NLT.shape[1] * _A_LEAD + 2), np.float32)
    for first in range(0, len(signal_NLT), _BATCH):
        end = min(first + _BATCH, len(signal_NLT))
        feature_ND[first:end] = _features(signal_NLT[first:end])
        if progress is not None:
            progress(end, len(signal_NLT))
    return feature_ND


def _features(signal_NLT: NDArray[np.int16]) -> NDArray[np.float32]:
    """Compute the features of a batch, float32 (N, D), of int16 ECGs (N, L, T) in microvolt."""
    sorted_NLT = np.sort(signal_NLT, axis=-1)
    median_NL1 = _at(sorted_NLT, (50,))
    # Slopes stay int16, which sorts several times as fast; a slope beyond 32 mV a sample is an artefact.
    slope_NLT = np.diff(signal_NLT.astype(np.int32), axis=-1).clip(-32768, 32767).astype(np.int16)
    x_NLT = (signal_NLT - median_NL1) * np.float32(1e-3)
    rate_N2 = np.stack(heart_rate(slope_NLT), axis=1)
    per_lead_NLK = np.concatenate(
        [
            (_at(sorted_NLT, LEVELS) - median_NL1) * 1e-3,
            _at(np.sort(slope_NLT, axis=-1), SLOPES) * 1e-3,
            np.log10(_band_power(x_NLT) + _FLOOR),
        ],
        axis=-1,
    )
    return np.concatenate([per_lead_NLK.reshape(len(signal_NLT), -1), rate_N2], axis=1).astype(np.float32)


def _at(sorted_NLT: NDArray[np.int16], percentiles: tuple[float, ...]) -> NDArray[np.float32]:
    """Return the nearest values at these percentiles of the last axis, which is sorted; (..., percentiles)."""
    last = sorted_NLT.shape[-1] - 1
    return sorted_NLT[..., [round(p / 100 * last) for p in percentiles]].astype(np.float32)


def _band_power(x_NLT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean square in each of BANDS, (N, L, bands), in mV^2 (Parseval; one-sided, no window)."""
    samples = x_NLT.shape[-1]
    power_NLF = 2 * np.abs(np.asarray(fft.rfft(x_NLT, axis=-1))) ** 2 / samples**2
    hertz_F = fft.rfftfreq(samples, 1 / RATE)
    return np.stack([power_NLF[..., (hertz_F >= low) & (hertz_F < high)].sum(-1) for low, high in BANDS], axis=-1)


def heart_rate(slope_NLT: NDArray[np.int16]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the heart rate in beats a minute and the autocorrelation's height there, each (N,), of slopes (N, L, T).

    A height of 1 is a perfectly regular rhythm. The autocorrelation is of the absolute slopes, each lead divided by its
    mean, summed and smoothed over 100 ms, which shows QRS complexes of any shape. A regular rhythm has peaks as high at
    each multiple of its interval, so the rate is that of the first local peak between 220 and 30 beats a minute that is
    nearly as high as the highest. Both are 0 if there is no peak.
    """
    size_NLT = np.abs(slope_NLT, dtype=np.float32)
    size_NT = (size_NLT / (size_NLT.mean(axis=-1, keepdims=True) + 1e-6)).sum(axis=1)
    # A moving sum over 100 ms, as the difference of two cumulative sums.
    total_NT = np.cumsum(size_NT, axis=-1)
    smooth_NT = total_NT[:, _SMOOTHING:] - total_NT[:, :-_SMOOTHING]
    smooth_NT -= smooth_NT.mean(axis=-1, keepdims=True)
    # The autocorrelation is the inverse transform of the power spectrum; padding keeps it from wrapping around.
    samples = smooth_NT.shape[-1]
    length = fft.next_fast_len(2 * samples, real=True)
    power_NF = np.abs(np.asarray(fft.rfft(smooth_NT, length, axis=-1))) ** 2
    lagged_NT = np.asarray(fft.irfft(power_NF, length, axis=-1))[:, :samples]
    # Divided by the number of products at each lag, or slow rates would have lower peaks.
    correlation_NT = lagged_NT / np.maximum(lagged_NT[:, :1], 1e-6) * (samples / (samples - np.arange(samples)))
    first, last = (round(60 * RATE / rate) for rate in reversed(RATES))
    # Local maxima within the range of rates; the first that is nearly as high as the highest gives the interval.
    inside_NT = correlation_NT[:, first : last + 1]
    peak_NT = (inside_NT > correlation_NT[:, first - 1 : last]) & (inside_NT >= correlation_NT[:, first + 1 : last + 2])
    height_NT = np.where(peak_NT & (inside_NT > 0), inside_NT, 0)
    best_N = (height_NT >= _NEARLY * height_NT.max(axis=-1, keepdims=True)).argmax(axis=-1)
    height_N = height_NT[np.arange(len(height_NT)), best_N]
    rate_N = np.where(height_N > 0, 60 * RATE / (first + best_N), 0)
    return rate_N.astype(np.float32), height_N.astype(np.float32)

"""Quality figures of ECGs, and the limits on them. Every record gets the figures; few are dropped by them.

Shapes: N records, L leads as the source gives them, T samples at the source's rate; 8 leads and 2500 samples once
harmonized. Amplitudes are in millivolt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft, rfftfreq
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from ecg_model.leads import DERIVED, LEADS
from ecg_model.quality import FLAT_MILLIVOLT, INT16_MILLIVOLT, constant_leads, out_of_range
from ecg_model.signal import RATE, SAMPLES, derived_leads
from pipelines.records import DropReason

# The figures that a limit of the same name can judge, the gravest first, with their units.
MOST = {
    "saturation_share": (DropReason.SATURATED, "of the samples"),
    "einthoven": (DropReason.LIMB_LEADS_DISAGREE, "mV"),
    "wander": (DropReason.BASELINE_WANDER, "mV"),
    "mains": (DropReason.MAINS, "mV"),
    "noise": (DropReason.NOISE, "mV"),
}

WANDER_HZ = (0.05, 0.5)
NOISE_HZ = (70.0, 110.0)
MAINS_HZ = (50.0, 60.0)
_HANN = np.hanning(SAMPLES + 1)[:-1].astype(np.float32)
_FREQUENCIES = rfftfreq(SAMPLES, 1 / RATE)


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """Limits on a record's quality. The defaults drop what the paper drops, and keep what it keeps.

    A missing sample always drops a record, as in the published loaders: a filled gap would be learnt as an ECG. The
    optional limits are None by default, since the paper keeps noisy records: the figure is then recorded but drops
    nothing. A figure that is unknown drops nothing either. The values quoted are what real ECGs have, to choose a limit
    by.
    """

    flat_leads: int = field(default=0, metadata={"ge": 0, "le": len(LEADS)})
    """How many of the eight leads may be constant. With 1 or more, the network is also trained on leads that were
    off."""
    flat_millivolt: float = field(default=FLAT_MILLIVOLT, metadata={"ge": 0, "lt": 1})
    """A lead whose range is at most this, in millivolt, counts as constant. 0.0005 is half the smallest step of the
    stored arrays, so that a constant digital lead is flat and the quietest real one is not."""
    amplitude: float = field(default=INT16_MILLIVOLT, metadata={"gt": 0, "le": INT16_MILLIVOLT})
    """Largest absolute value that is kept, in millivolt. 32.767 is what int16 microvolt can hold; CODE-15% has exams of
    27 mV, nearly all of it baseline wander, which the paper keeps."""
    saturation_share: float | None = field(default=None, metadata={"ge": 0})
    """Largest share of samples that may stand still at a lead's extreme. Nine of ten ECGs have at most 0.001; the most
    in PTB-XL is 0.011."""
    einthoven: float | None = field(default=None, metadata={"ge": 0})
    """Largest rms of III, aVR, aVL, aVF against their formulas, in millivolt. Rounding alone gives up to 0.003 in all
    sources but LUDB, whose leads are scaled one by one (0.02 to 0.17); the most in PTB-XL is 0.06, and 0.1 means that
    leads were swapped or edited."""
    wander: float | None = field(default=None, metadata={"ge": 0})
    """Largest rms of 0.05-0.5 Hz, in millivolt. The median is 0.03 in PTB-XL and 0.26 in CODE-15%; one in 1,000 and one
    in ten are above 0.7."""
    mains: float | None = field(default=None, metadata={"ge": 0})
    """Largest rms of 50 or 60 Hz, in millivolt. Medians of the sources are 0.001 to 0.003; the most, in Chapman, is
    0.06."""
    noise: float | None = field(default=None, metadata={"ge": 0})
    """Largest rms of 70-110 Hz, in millivolt. Medians of the sources are 0.002 to 0.009; the most, in Chapman, is
    0.24."""
    heart_rate_least: float | None = field(default=None, metadata={"ge": 0})
    """Slowest heart rate that is kept, in beats per minute. The slowest in PTB-XL is 27; below 20 a count is an
    error."""
    heart_rate_most: float | None = field(default=None, metadata={"ge": 0})
    """Fastest heart rate that is kept, in beats per minute. The fastest in PTB-XL is 203; above 300 a count is an
    error."""

    def __post_init__(self) -> None:
        if not 0 <= self.flat_leads <= len(LEADS):
            raise ValueError(f"flat_leads {self.flat_leads}: use a number of leads, 0 to {len(LEADS)}")
        if not 0 <= self.flat_millivolt < 1:
            raise ValueError(f"flat_millivolt {self.flat_millivolt}: use a range in millivolt, from 0 to below 1")
        if not 0 < self.amplitude <= INT16_MILLIVOLT:
            raise ValueError(f"amplitude {self.amplitude}: use millivolt, above 0 and at most {INT16_MILLIVOLT}")
        for name in (*MOST, "heart_rate_least", "heart_rate_most"):
            limit = getattr(self, name)
            if limit is not None and not 0 <= limit < math.inf:
                raise ValueError(f"{name} {limit}: use a number from 0 on, or None to drop nothing by it")
        least, most = self.heart_rate_least, self.heart_rate_most
        if least is not None and most is not None and least >= most:
            raise ValueError(f"heart_rate_least {least}: use less than heart_rate_most {most}")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One value per record in each field, float32 (N,). NaN if a figure does not apply."""

    flat_leads: NDArray[np.float32]
    """How many of the eight leads are constant in the window."""
    saturation_share: NDArray[np.float32]
    """Share of samples that stand still at the lead's own extreme; the worst of the leads given."""
    minimum: NDArray[np.float32]
    """Over the eight harmonized leads, millivolt."""
    maximum: NDArray[np.float32]
    """Over the eight harmonized leads, millivolt."""
    wander: NDArray[np.float32]
    """rms of 0.05-0.5 Hz, mean power of the eight leads, millivolt."""
    mains: NDArray[np.float32]
    """rms of 50 or 60 Hz (the stronger) above the neighbouring frequencies, millivolt. NaN if the source's rate is too
    low for them."""
    noise: NDArray[np.float32]
    """rms of 70-110 Hz, mean power of the eight leads, millivolt. NaN if the source's rate is too low for them."""
    einthoven: NDArray[np.float32]
    """rms of the given III, aVR, aVL, aVF against their formulas in I and II, the worst lead, millivolt. NaN if none of
    them is given."""
    heart_rate: NDArray[np.float32]
    """Beats per minute from the median interval of QRS energy peaks. NaN with fewer than three beats."""


# Samples near the limit of float32 give infinite figures; their record is dropped for its amplitude.
@np.errstate(over="ignore", invalid="ignore")
def figures(
    raw_NLT: NDArray[Any],
    x_NLT: NDArray[Any],
    *,
    leads: Sequence[str],
    computed: Sequence[str] = (),
    rate: float,
    limits: QualityLimits,
) -> Figures:
    """Compute the figures of a batch, float32 (N,) each.

    raw_NLT: the window in millivolt, as the source gives it.
    x_NLT: the same, harmonized (N, 8, 2500). If the source lacks some of the eight leads, only those it has, in the
    order of LEADS.
    leads, rate: of raw_NLT; names as LEADS_12 has them.
    computed: those of the leads that were computed from other limb leads.
    """
    wander, mains, noise = _bands(x_NLT)
    unknown = np.full(len(x_NLT), np.nan, np.float32)
    low_NL, high_NL = raw_NLT.min(axis=-1), raw_NLT.max(axis=-1)
    given = [leads.index(lead) for lead in LEADS if lead in leads]
    flat_NL = constant_leads(low_NL[:, given], high_NL[:, given], limits.flat_millivolt)
    return Figures(
        flat_leads=flat_NL.sum(axis=1).astype(np.float32),
        saturation_share=saturation_share(raw_NLT, low_NL, high_NL),
        minimum=x_NLT.min(axis=(1, 2)).astype(np.float32),
        maximum=x_NLT.max(axis=(1, 2)).astype(np.float32),
        wander=wander,
        mains=mains if rate > 2 * max(MAINS_HZ) else unknown,
        noise=noise if rate > 2 * max(NOISE_HZ) else unknown,
        einthoven=unknown if computed else einthoven_residual(raw_NLT, leads),  # it would compare them with themselves
        heart_rate=heart_rate(x_NLT),
    )


def missing_share(x_LT: NDArray[Any]) -> float:
    """Return the share of samples that are NaN or infinite."""
    return 1.0 - np.count_nonzero(np.isfinite(x_LT)) / x_LT.size


def verdict(batch: Figures, row: int, limits: QualityLimits) -> tuple[DropReason, str] | None:
    """Return why a record is dropped, the gravest reason first, or None if it is kept. row: its place in the batch."""
    if batch.flat_leads[row] > limits.flat_leads:
        return DropReason.FLAT_LEAD, (
            f"{batch.flat_leads[row]:.0f} of {', '.join(LEADS)} are constant; flat_leads allows {limits.flat_leads}"
        )
    if (beyond := out_of_range(batch.minimum[row], batch.maximum[row], limits.amplitude)) is not None:
        return DropReason.OUT_OF_RANGE, beyond
    for name, (reason, unit) in MOST.items():
        value, limit = getattr(batch, name)[row], getattr(limits, name)
        if limit is not None and value > limit:
            return reason, f"{name} is {value:.4g} {unit}; {name} allows {limit:g}"
    rate, slowest, fastest = batch.heart_rate[row], limits.heart_rate_least, limits.heart_rate_most
    if slowest is not None and rate < slowest:
        return DropReason.HEART_RATE, f"{rate:.0f} beats a minute; heart_rate_least is {slowest:g}"
    if fastest is not None and rate > fastest:
        return DropReason.HEART_RATE, f"{rate:.0f} beats a minute; heart_rate_most is {fastest:g}"
    return None


def saturation_share(x_NLT: NDArray[Any], low_NL: NDArray[Any], high_NL: NDArray[Any]) -> NDArray[np.float32]:
    """Return the share of samples that stand still at an extreme, (N,), from (N, L, T) and each lead's extremes (N, L).

    A sample stands still if its predecessor has the same value. The worst lead counts; a constant one gives 1.
    """
    now_NLT = x_NLT[..., 1:]
    still_NLT = (now_NLT == low_NL[..., None]) | (now_NLT == high_NL[..., None])
    still_NLT &= now_NLT == x_NLT[..., :-1]
    counts_NL = still_NLT.sum(axis=-1, dtype=np.int32)  # several times as fast as np.count_nonzero along an axis
    return (counts_NL / max(1, now_NLT.shape[-1])).max(axis=1).astype(np.float32)


def einthoven_residual(x_NLT: NDArray[Any], leads: Sequence[str]) -> NDArray[np.float32]:
    """Return the deviation of the given derived limb leads from their formulas, (N, L, T) -> (N,), rms in millivolt.

    leads: names as LEADS_12 has them. NaN if leads I and II or all derived leads are absent.
    """
    given = [lead for lead in DERIVED if lead in leads]
    if not given or not {"I", "II"} <= set(leads):
        return np.full(len(x_NLT), np.nan, np.float32)
    expected_NLT = derived_leads(x_NLT[:, [leads.index("I"), leads.index("II")]])
    energies = []
    for lead in given:
        residual_NT = x_NLT[:, leads.index(lead)] - expected_NLT[:, DERIVED.index(lead)]
        energies.append(np.einsum("nt,nt->n", residual_NT, residual_NT))
    return np.sqrt(np.max(energies, axis=0) / x_NLT.shape[-1]).astype(np.float32)


def heart_rate(x_NLT: NDArray[Any]) -> NDArray[np.float32]:
    """Return beats per minute, (N, 8, 2500) at 250 Hz -> (N,); NaN with fewer than three beats.

    Steepness (a 20 ms difference, in which 50 Hz cancels) is summed over leads and smoothed over 100 ms; beats are its
    maxima within +-200 ms that exceed a third of the upper quartile of the maxima of each second.
    """
    step_NLT = x_NLT[..., 5:] - x_NLT[..., :-5]
    steep_NT = np.abs(step_NLT, out=step_NLT).sum(axis=1)
    energy_NT = uniform_filter1d(steep_NT, RATE // 10, axis=-1)
    energy_NT = energy_NT - np.median(energy_NT, axis=-1, keepdims=True)
    seconds = energy_NT.shape[-1] // RATE
    tops = energy_NT[:, : seconds * RATE].reshape(len(x_NLT), seconds, RATE).max(axis=-1)
    threshold_N1 = np.quantile(tops, 0.75, axis=-1, keepdims=True) / 3
    peaks_NT = energy_NT == maximum_filter1d(energy_NT, 2 * (RATE // 5) + 1, axis=-1)
    peaks_NT &= energy_NT > np.maximum(threshold_N1, 0)
    rates = np.full(len(x_NLT), np.nan, np.float32)
    for row, peaks in enumerate(peaks_NT):
        beats = np.flatnonzero(peaks)
        if len(beats) >= 3:
            rates[row] = 60 * RATE / np.median(np.diff(beats))
    return rates


def _bands(x_NLT: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return the rms of baseline wander, mains and high frequencies, (N, 8, 2500) -> (N,) each.

    They are from Hann periodograms.
    """
    centred_NLT = x_NLT - x_NLT.mean(axis=-1, keepdims=True)
    spectrum_NLF: Any = rfft(centred_NLT * _HANN, axis=-1)
    # One-sided power a bin, so that a sine of amplitude a has the power a^2 / 2 over its bins.
    power_NLF = np.abs(spectrum_NLF) ** 2 * (2 / (SAMPLES * float(np.sum(_HANN**2))))
    power_NF = power_NLF.mean(axis=1)

    def band(low: float, high: float) -> NDArray[Any]:
        return power_NF[:, (low <= _FREQUENCIES) & (high >= _FREQUENCIES)]

    def line(frequency: float) -> NDArray[Any]:
        inside = band(frequency - 0.5, frequency + 0.5)
        neighbours = np.concatenate([band(frequency - 3, frequency - 1), band(frequency + 1, frequency + 3)], axis=1)
        return np.maximum(0.0, inside.sum(axis=1) - inside.shape[1] * np.median(neighbours, axis=1))

    mains = np.maximum(*(line(frequency) for frequency in MAINS_HZ))
    return (
        np.sqrt(band(*WANDER_HZ).sum(axis=1)).astype(np.float32),
        np.sqrt(mains).astype(np.float32),
        np.sqrt(band(*NOISE_HZ).sum(axis=1)).astype(np.float32),
    )

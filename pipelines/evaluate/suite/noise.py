"""Synthetic noise of known spectrum and SNR added to ECGs, to test how robust an encoder is. Pure and seeded.

The three kinds are those of the MIT-BIH Noise Stress Test Database (Moody et al. 1984), generated, not recorded:

    baseline    wander of breathing and slow electrode drift, 0.1-0.5 Hz
    muscle      EMG, 20-120 Hz, in bursts
    electrode   motion of an electrode: single jolts of 1-10 Hz, which can look like beats

Noise arises at electrodes, so it is generated at nine of them and converted to leads like any potential: the noise of
the limb leads obeys Einthoven's law, and the noise of the arms is in every chest lead. Level 0 is the ECG as it is;
levels 1 and 2 are two steps of the database's scale, 12 and 0 dB. SNR: the ECG's power about each lead's mean divided
by the noise's, both averaged over the leads. An ECG's noise depends on its record id and the kind; levels differ in
amplitude only.
Shapes: N records, E = 9 electrodes, L = 8 leads, T samples, F frequencies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import LEADS
from pipelines.evaluate.features import Condition
from pipelines.evaluate.suite.names import NOISE_LEVELS, NOISES, NoiseKind
from pipelines.formats.shard import RATE

SNR_OF_LEVEL = dict(zip(NOISE_LEVELS, (12.0, 0.0), strict=True))
"""In dB."""

ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")

_VERSION = "1"  # to be raised if the same record id gives other noise


def _lead_matrix() -> NDArray[np.float64]:
    """Return the leads as sums of the electrodes' potentials, (L, E); chest leads against Wilson's central terminal."""
    rows = {"I": {"LA": 1.0, "RA": -1.0}, "II": {"LL": 1.0, "RA": -1.0}}
    rows |= {f"V{n}": {f"V{n}": 1.0, "RA": -1 / 3, "LA": -1 / 3, "LL": -1 / 3} for n in range(1, 7)}
    return np.array([[rows[lead].get(electrode, 0.0) for electrode in ELECTRODES] for lead in LEADS])


_LEADS_LE = _lead_matrix()


def condition(kind: NoiseKind, level: int) -> Condition:
    """Return the change of ECGs before features are computed. Raises ValueError if there is no such kind or level."""
    if kind not in NOISES or level not in SNR_OF_LEVEL:
        raise ValueError(
            f"noise {kind!r} of level {level}: use {', '.join(NOISES)}, level {' or '.join(map(str, SNR_OF_LEVEL))}"
        )

    def apply(signal_NLT: NDArray[np.int16], record_ids: Sequence[str]) -> NDArray[np.int16]:
        return noised(signal_NLT, record_ids, kind, SNR_OF_LEVEL[level])

    settings = {"kind": kind, "snr": SNR_OF_LEVEL[level], "version": _VERSION}
    return Condition(name=f"noise_{kind}_{level}", settings=settings, apply=apply)


def noised(signal_NLT: NDArray[np.int16], record_ids: Sequence[str], kind: NoiseKind, snr: float) -> NDArray[np.int16]:
    """Add noise of `snr` dB to int16 ECGs (N, 8, T) in microvolt at 250 Hz, clipped to int16.

    A flat ECG stays as it is, since its SNR is not defined.
    """
    noisy_NLT = np.empty_like(signal_NLT)
    for row, (signal_LT, record_id) in enumerate(zip(signal_NLT, record_ids, strict=True)):
        x_LT = signal_LT.astype(np.float64)
        noise_LT = lead_noise(kind, record_id, x_LT.shape[1])
        gain = np.sqrt(_power(x_LT) / _power(noise_LT) / 10 ** (snr / 10))
        noisy_NLT[row] = np.rint(x_LT + gain * noise_LT).clip(-32768, 32767)
    return noisy_NLT


def lead_noise(kind: NoiseKind, record_id: str, samples: int) -> NDArray[np.float64]:
    """Return a record's noise at the leads, (L, T) in arbitrary units.

    It needs 10 s or more, so that its lowest frequencies are in it.
    """
    seed = hashlib.sha256(f"{kind}:{record_id}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
    return _LEADS_LE @ _DRAW[kind](rng, samples)


def _power(x_LT: NDArray[np.float64]) -> float:
    """Return the variance of a lead, averaged over the leads."""
    return float(x_LT.var(axis=1).mean())


def _band(rng: np.random.Generator, samples: int, low: float, high: float) -> NDArray[np.float64]:
    """Return Gaussian noise of unit variance with a flat spectrum from `low` to `high` Hz and none outside, (E, T)."""
    frequency_F = np.fft.rfftfreq(samples, 1 / RATE)
    inside_F = (frequency_F >= low) & (frequency_F <= high)
    size = (2, len(ELECTRODES), int(inside_F.sum()))
    spectrum_EF = np.zeros((len(ELECTRODES), len(frequency_F)), np.complex128)
    real, imaginary = rng.standard_normal(size)
    spectrum_EF[:, inside_F] = real + 1j * imaginary
    x_ET = np.fft.irfft(spectrum_EF, samples)
    return x_ET / x_ET.std(axis=1, keepdims=True)


def _baseline(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Return slow wander, (E, T)."""
    return _band(rng, samples, 0.1, 0.5)


def _muscle(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Return EMG with a slow envelope that is independent at each electrode and never zero, (E, T)."""
    envelope_ET = 0.2 + np.abs(_band(rng, samples, 0.1, 1.0))
    # The envelope widens the band by its own 1 Hz.
    return envelope_ET * _band(rng, samples, 21.0, 119.0)


def _electrode(rng: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """Return two to five jolts, each of one electrode: half a second of 1-10 Hz in a Gaussian window, (E, T)."""
    x_ET = np.zeros((len(ELECTRODES), samples))
    carrier_ET = _band(rng, samples, 2.5, 8.5)
    t_T = np.arange(samples) / RATE
    for _ in range(int(rng.integers(2, 6))):
        electrode, centre = int(rng.integers(len(ELECTRODES))), rng.uniform(0, samples / RATE)
        x_ET[electrode] += rng.uniform(0.5, 1.5) * np.exp(-0.5 * ((t_T - centre) / 0.25) ** 2) * carrier_ET[electrode]
    return x_ET


_DRAW: dict[NoiseKind, Callable[[np.random.Generator, int], NDArray[np.float64]]] = {
    "baseline": _baseline,
    "muscle": _muscle,
    "electrode": _electrode,
}

"""Disturbances of an ECG, drawn at the nine electrodes, so that the leads obey Einthoven's and Goldberger's laws.

Shapes: E electrodes, T samples, F frequencies, K sine and cosine terms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The eight independent leads from the electrodes RA, LA, LL, V1..V6; the chest leads against Wilson's terminal.
ELECTRODES_TO_LEADS = np.zeros((8, 9))
ELECTRODES_TO_LEADS[0, [0, 1]] = -1.0, 1.0
ELECTRODES_TO_LEADS[1, [0, 2]] = -1.0, 1.0
ELECTRODES_TO_LEADS[2:, :3] = -1 / 3
ELECTRODES_TO_LEADS[2:, 3:] = np.eye(6)

# Mains hum above this share of the sampling rate is not recorded: the device's filter is assumed to end there.
_PASS = 0.45


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """The noise of one recording: root mean squares at one electrode, in millivolt."""

    wander_mv: float
    muscle_mv: float
    mains_mv: float
    mains_hz: float  # 50 or 60
    steps: int  # how many electrodes slipped


def draw_levels(rng: np.random.Generator, scale: float = 1.0) -> NoiseLevels:
    """Draw the amplitudes of one recording: log-normal, so that most are clean and a few are bad."""
    return NoiseLevels(
        wander_mv=scale * 0.022 * rng.lognormal(0, 0.7),
        muscle_mv=scale * 0.006 * rng.lognormal(0, 0.6),
        mains_mv=scale * 0.002 * rng.lognormal(0, 1.0),
        mains_hz=float(rng.choice((50.0, 60.0))),
        steps=int(rng.random() < 0.05 * scale),
    )


def draw_noise(
    rng: np.random.Generator, levels: NoiseLevels, *, breath_hz: float, rate: float, samples: int
) -> np.ndarray:
    """Draw noise (8, samples), millivolt: wander, muscle, mains and electrode steps.

    breath_hz: respiration, which wander follows.
    rate: samples per second.
    """
    time_T = np.arange(samples, dtype=np.float32) / np.float32(rate)
    electrodes_ET = _muscle(rng, levels, samples)
    electrodes_ET += _wander(rng, levels, breath_hz, time_T)
    if levels.mains_hz < _PASS * rate:
        pickup_E2 = (levels.mains_mv * rng.normal(0, 1.0, (9, 2))).astype(np.float32)
        angle_T = np.float32(2 * np.pi * levels.mains_hz) * time_T
        electrodes_ET += pickup_E2 @ np.stack([np.sin(angle_T), np.cos(angle_T)])
    for _ in range(levels.steps):
        at = rng.uniform(0.05, 0.95) * samples / rate
        recovery = rng.uniform(0.3, 2.0)  # seconds
        height = rng.normal(0, 0.6)
        since_T = np.maximum(time_T - at, 0)
        electrodes_ET[rng.integers(9)] += np.where(time_T >= at, height * np.exp(-since_T / recovery), 0)
    return ELECTRODES_TO_LEADS.astype(np.float32) @ electrodes_ET


def _wander(rng: np.random.Generator, levels: NoiseLevels, breath_hz: float, time_T: np.ndarray) -> np.ndarray:
    """Draw baseline wander (E, T): breathing and two other drifts, with a size and a phase at each electrode."""
    hertz_F = np.array([breath_hz, rng.uniform(0.03, 0.15), rng.uniform(0.3, 0.6)], dtype=np.float32)
    angle_FT = 2 * np.pi * hertz_F[:, None] * time_T
    basis_KT = np.concatenate([np.sin(angle_FT), np.cos(angle_FT)])
    weight_K = np.array([0.5, 0.8, 0.25] * 2)
    weight_EK = levels.wander_mv * weight_K * rng.normal(0, 1.0, (9, 6))
    return weight_EK.astype(np.float32) @ basis_KT


def _muscle(rng: np.random.Generator, levels: NoiseLevels, samples: int) -> np.ndarray:
    """Draw muscle noise (E, T): high-pass filtered white noise, stronger at some electrodes, with occasional bursts."""
    white_ET = rng.standard_normal((9, samples + 1), dtype=np.float32)
    noise_ET = white_ET[:, 1:] - np.float32(0.6) * white_ET[:, :-1]
    size_E = levels.muscle_mv / np.sqrt(1.36) * rng.lognormal(0, 0.4, 9)
    noise_ET *= size_E[:, None].astype(np.float32)
    if rng.random() < 0.15:
        centre, width = rng.uniform(0, samples), rng.uniform(0.05, 0.2) * samples
        swell_T = 1 + rng.uniform(1, 4) * np.exp(-0.5 * ((np.arange(samples) - centre) / width) ** 2)
        noise_ET *= swell_T.astype(np.float32)
    return noise_ET

"""RandAugment for ECGs: a few changes drawn at random, each of which leaves the diagnosis as it was.

Cubuk et al., arXiv 1909.13719; for ECGs with two operations and a probability of 0.5, as ST-MEM (Na et al., arXiv
2402.09450) fine-tunes and the published recipe after it. Largest magnitudes are ST-MEM's: 30 % of the recording's time,
30 % of its standard deviation. Two of its operations are left out: a flipped ECG is another diagnosis (electrodes
swapped), and single samples set to zero come from no device.
All are functions of an ECG, float32 (L, T) in millivolt, of a strength from 0 (no change) to 1, and of a generator;
they return a new array. Shapes: L leads, T samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.store import RATE

Ecg = NDArray[np.float32]
Operation = Callable[[Ecg, float, np.random.Generator], Ecg]

SHARE = 0.3
"""Largest share of the time, and largest amplitude in standard deviations of the ECG."""

WANDER_HZ = (0.1, 0.5)
"""Baseline wander follows breathing, 6 to 30 breaths a minute (Sörnmo and Laguna, Bioelectrical Signal Processing,
2005, section 7.1)."""

_SMALLEST_SCALE = 0.7


def shift(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Later or earlier by up to 30 % of the time; what enters is zero."""
    by = _part(x_LT, strength, rng) * int(rng.choice((-1, 1)))
    moved_LT = np.roll(x_LT, by, axis=1)
    moved_LT[:, slice(0, by) if by > 0 else slice(x_LT.shape[1] + by, None)] = 0.0
    return moved_LT


def time_mask(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Up to 30 % of the time is zero in all leads, in one piece."""
    masked_LT = x_LT.copy()
    masked_LT[:, _piece(x_LT, strength, rng)] = 0.0
    return masked_LT


def lead_mask(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """One lead, any, is zero: an electrode that came off. Below full strength it is damped instead."""
    masked_LT = x_LT.copy()
    masked_LT[rng.integers(len(x_LT))] *= np.float32(1 - strength)
    return masked_LT


def amplitude(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """All leads times one factor, from 0.7 to its inverse: voltages differ with the chest, not only with the heart."""
    largest = -np.log(_SMALLEST_SCALE) * strength
    return x_LT * np.float32(np.exp(rng.uniform(-largest, largest)))


def baseline_wander(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """A sine of a breath's frequency is added, in each lead with an amplitude of its own."""
    hertz, phase = rng.uniform(*WANDER_HZ), rng.uniform(0, 2 * np.pi)
    size_L = rng.uniform(-1, 1, len(x_LT)) * SHARE * strength * x_LT.std()
    wave_T = np.sin(2 * np.pi * hertz * np.arange(x_LT.shape[1]) / RATE + phase)
    return x_LT + (size_L[:, None] * wave_T).astype(np.float32)


def noise(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """White noise is added to up to 30 % of the time, in one piece: a muscle that tenses."""
    noisy_LT = x_LT.copy()
    here = _piece(x_LT, strength, rng)
    size = rng.uniform(0, SHARE * strength) * float(x_LT.std())
    noisy_LT[:, here] += np.float32(size) * rng.standard_normal(noisy_LT[:, here].shape, dtype=np.float32)
    return noisy_LT


OPERATIONS: dict[str, Operation] = {
    one.__name__: one for one in (shift, time_mask, lead_mask, amplitude, baseline_wander, noise)
}


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """operations: names that are drawn from. count: how many different ones are drawn for an ECG. probability: with
    which each of them is then done. strength: of all, from 0 to 1."""

    operations: tuple[str, ...] = tuple(OPERATIONS)
    count: int = 2
    probability: float = 0.5
    strength: float = 1.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.operations) - set(OPERATIONS))
        if unknown or len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations={self.operations}: use some of {', '.join(OPERATIONS)}, each once")
        if not 0 <= self.count <= len(self.operations):
            raise ValueError(f"count={self.count}: use 0 to {len(self.operations)}, the operations there are")
        for name in ("probability", "strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a number from 0 to 1")


def augmented(x_LT: Ecg, config: AugmentConfig, rng: np.random.Generator) -> Ecg:
    """The ECG after the operations that `rng` draws; the same array where none is done."""
    for name in rng.choice(config.operations, config.count, replace=False):
        if rng.random() < config.probability:
            x_LT = OPERATIONS[name](x_LT, config.strength, rng)
    return x_LT


def _part(x_LT: Ecg, strength: float, rng: np.random.Generator) -> int:
    """Samples: uniform up to 30 % of the time."""
    return int(rng.uniform(0, SHARE * strength) * x_LT.shape[1])


def _piece(x_LT: Ecg, strength: float, rng: np.random.Generator) -> slice:
    count = _part(x_LT, strength, rng)
    first = int(rng.integers(x_LT.shape[1] - count + 1))
    return slice(first, first + count)

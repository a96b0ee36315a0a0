"""RandAugment for ECGs, as ST-MEM and after it the published recipe use it in fine-tuning: random changes of an ECG.

Cubuk et al., arXiv 1909.13719; Na et al. (ST-MEM), arXiv 2402.09450, by its code and configs/downstream/st_mem.yaml:
two operations an ECG, each done with a probability of 0.5, at the largest magnitude. Operations and their names are
ST-MEM's, with three differences:
- `flip` is left out: an inverted ECG has another diagnosis.
- ECGs stay in millivolt, while ST-MEM standardises each; so an operation is given the ECG in its own standard
  deviations, and its result is scaled back to millivolt. No mean is subtracted: the band-pass before does that.
- `erase` only attenuates at less than full strength, so that strength 0 changes nothing; ST-MEM's has no magnitude.
An operation is a function of an ECG, float32 (L, T) in standard deviations, of a strength from 0 (no change) to 1
(ST-MEM's level 10), and of a generator; it returns a new array. Shapes: L leads, T samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ecg = NDArray[np.float32]
Operation = Callable[[Ecg, float, np.random.Generator], Ecg]

SHARE = 0.3
"""Largest share of the time, and largest amplitude in standard deviations of the ECG."""

WAVES = 2
"""Periods of the sine over the recording, at full strength: 0.2 Hz over ten seconds."""


def shift(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Move the ECG later or earlier by up to 30 % of the time, and fill the gap with zeros."""
    by = _part(x_LT, strength, rng) * int(rng.choice((-1, 1)))
    moved_LT = np.roll(x_LT, by, axis=1)
    moved_LT[:, slice(0, by) if by > 0 else slice(x_LT.shape[1] + by, None)] = 0.0
    return moved_LT


def cutout(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Set up to 30 % of the time, in one piece, to zero in all leads."""
    masked_LT = x_LT.copy()
    masked_LT[:, _piece(x_LT, strength, rng)] = 0.0
    return masked_LT


def drop(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Set up to 30 % of the samples, at random places, to zero in all leads."""
    masked_LT = x_LT.copy()
    samples = x_LT.shape[1]
    masked_LT[:, rng.choice(samples, _part(x_LT, strength, rng), replace=False)] = 0.0
    return masked_LT


def erase(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Set a random lead to zero, like an electrode that came off."""
    masked_LT = x_LT.copy()
    masked_LT[rng.integers(len(x_LT))] *= np.float32(1 - strength)
    return masked_LT


def sine(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Add the same slow sine to all leads; nothing of it is random."""
    return x_LT + _sine(x_LT.shape[1], strength)


def partial_sine(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Add the beginning of that sine to up to 30 % of the time, in one piece."""
    here = _piece(x_LT, strength, rng)
    changed_LT = x_LT.copy()
    changed_LT[:, here] += _sine(x_LT.shape[1], strength)[: here.stop - here.start]
    return changed_LT


def partial_white_noise(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Add white noise, independent in each lead, to up to 30 % of the time, in one piece."""
    here = _piece(x_LT, strength, rng)
    noisy_LT = x_LT.copy()
    noisy_LT[:, here] += np.float32(SHARE * strength) * rng.standard_normal(noisy_LT[:, here].shape, dtype=np.float32)
    return noisy_LT


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation for operation in (shift, cutout, drop, erase, sine, partial_sine, partial_white_noise)
}


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Settings of RandAugment."""

    operations: tuple[str, ...] = tuple(OPERATIONS)
    """Names of the operations to draw from."""
    count: int = 2
    """How many different ones are drawn for an ECG."""
    probability: float = 0.5
    """With which each of the drawn ones is done."""
    strength: float = 1.0
    """Of all operations, from 0 to 1."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.operations) - set(OPERATIONS))
        if unknown or len(set(self.operations)) < len(self.operations):
            raise ValueError(f"operations={self.operations}: use some of {', '.join(OPERATIONS)}, each once")
        if not 0 <= self.count <= len(self.operations):
            raise ValueError(f"count={self.count}: use 0 to {len(self.operations)}, the number of operations")
        for name in ("probability", "strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: use a number from 0 to 1")


def augmented(x_LT: Ecg, config: AugmentConfig, rng: np.random.Generator) -> Ecg:
    """Return an ECG, float32 (L, T) in millivolt, after the operations that `rng` draws.

    It is the same array if none is done or the ECG is flat.
    """
    drawn = rng.choice(config.operations, config.count, replace=False)
    done = [name for name in drawn if rng.random() < config.probability]
    size = x_LT.std()
    if not done or size == 0:
        return x_LT
    changed_LT = x_LT / size
    for name in done:
        changed_LT = OPERATIONS[name](changed_LT, config.strength, rng)
    return changed_LT * size


def _part(x_LT: Ecg, strength: float, rng: np.random.Generator) -> int:
    """Draw a number of samples, uniform up to 30 % of the time."""
    return int(rng.uniform(0, SHARE * strength) * x_LT.shape[1])


def _piece(x_LT: Ecg, strength: float, rng: np.random.Generator) -> slice:
    """Draw a piece of up to 30 % of the time."""
    count = _part(x_LT, strength, rng)
    first = int(rng.integers(x_LT.shape[1] - count))
    return slice(first, first + count)


def _sine(samples: int, strength: float) -> NDArray[np.float32]:
    """Return the sine, (T,) in standard deviations; a smaller strength makes it both lower and slower."""
    phase_T = 2 * np.pi * WAVES * strength * np.arange(samples) / samples
    return (SHARE * strength * np.sin(phase_T)).astype(np.float32)

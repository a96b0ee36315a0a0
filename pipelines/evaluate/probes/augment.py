"""RandAugment for ECGs, as ST-MEM fine-tunes with it and the published recipe after it: changes drawn at random.

Cubuk et al., arXiv 1909.13719; Na et al. (ST-MEM), arXiv 2402.09450, by its code and configs/downstream/st_mem.yaml:
two operations an ECG, each done with a probability of 0.5, at the largest magnitude. They are ST-MEM's under its names,
with three differences:
- `flip` is left out: an ECG upside down is another diagnosis.
- ECGs stay in millivolt where ST-MEM standardises each, so an operation is given the ECG in its own standard deviations
  and its result is put back into millivolt. No mean is taken off: the band-pass before has done that.
- `erase` is damped below full strength, so that strength 0 changes nothing; ST-MEM's has no magnitude.
All are functions of an ECG, float32 (L, T) in standard deviations, of a strength from 0 (no change) to 1, ST-MEM's
level 10, and of a generator; they return a new array. Shapes: L leads, T samples.
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
    """Later or earlier by up to 30 % of the time; what enters is zero."""
    by = _part(x_LT, strength, rng) * int(rng.choice((-1, 1)))
    moved_LT = np.roll(x_LT, by, axis=1)
    moved_LT[:, slice(0, by) if by > 0 else slice(x_LT.shape[1] + by, None)] = 0.0
    return moved_LT


def cutout(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Up to 30 % of the time is zero in all leads, in one piece."""
    masked_LT = x_LT.copy()
    masked_LT[:, _piece(x_LT, strength, rng)] = 0.0
    return masked_LT


def drop(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """Up to 30 % of the samples, here and there, are zero in all leads."""
    masked_LT = x_LT.copy()
    samples = x_LT.shape[1]
    masked_LT[:, rng.choice(samples, _part(x_LT, strength, rng), replace=False)] = 0.0
    return masked_LT


def erase(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """One lead, any, is zero: an electrode that came off."""
    masked_LT = x_LT.copy()
    masked_LT[rng.integers(len(x_LT))] *= np.float32(1 - strength)
    return masked_LT


def sine(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """The same slow sine is added to all leads; nothing of it is drawn."""
    return x_LT + _sine(x_LT.shape[1], strength)


def partial_sine(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """The beginning of that sine is added to up to 30 % of the time, in one piece."""
    here = _piece(x_LT, strength, rng)
    changed_LT = x_LT.copy()
    changed_LT[:, here] += _sine(x_LT.shape[1], strength)[: here.stop - here.start]
    return changed_LT


def partial_white_noise(x_LT: Ecg, strength: float, rng: np.random.Generator) -> Ecg:
    """White noise, each lead's its own, is added to up to 30 % of the time, in one piece."""
    here = _piece(x_LT, strength, rng)
    noisy_LT = x_LT.copy()
    noisy_LT[:, here] += np.float32(SHARE * strength) * rng.standard_normal(noisy_LT[:, here].shape, dtype=np.float32)
    return noisy_LT


OPERATIONS: dict[str, Operation] = {
    one.__name__: one for one in (shift, cutout, drop, erase, sine, partial_sine, partial_white_noise)
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
    """The ECG, millivolt, after the operations that `rng` draws; the same array where none is done, or it is flat."""
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
    """Samples: uniform up to 30 % of the time."""
    return int(rng.uniform(0, SHARE * strength) * x_LT.shape[1])


def _piece(x_LT: Ecg, strength: float, rng: np.random.Generator) -> slice:
    count = _part(x_LT, strength, rng)
    first = int(rng.integers(x_LT.shape[1] - count))
    return slice(first, first + count)


def _sine(samples: int, strength: float) -> NDArray[np.float32]:
    """(T,), in standard deviations: at a strength both lower and slower."""
    phase_T = 2 * np.pi * WAVES * strength * np.arange(samples) / samples
    return (SHARE * strength * np.sin(phase_T)).astype(np.float32)

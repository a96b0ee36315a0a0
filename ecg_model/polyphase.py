"""Resampling of tensors by a ratio of whole numbers, as a convolution: on any device, in batches, with gradient.

`signal.resample` is for recordings of any rate; this is for the few samples more or less that an encoder reads, such as
240 Hz for 250.

Shapes: B records, L leads, T samples.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_CROSSINGS = 10  # zeros of the sinc a side
_BETA = 5.0  # of the Kaiser window; both as scipy.signal.resample_poly has them


def resampled(x_BLT: Tensor, rate: int, target: int) -> Tensor:
    """Return ECGs of another rate, (B, L, T) -> (B, L, T * target // rate). Sample k lies at the time k / target.

    A Kaiser-windowed sinc at half the lower of both rates, whose weights sum to one at each output (the filter of
    `scipy.signal.resample_poly`). Beyond its ends a signal is continued by its last value.
    """
    if rate == target:
        return x_BLT
    up, down = target // math.gcd(rate, target), rate // math.gcd(rate, target)
    weights, reach = _filters(up, down)
    filters_U1K = torch.from_numpy(weights).to(x_BLT)[:, None]
    samples = x_BLT.shape[-1]
    behind = reach + (-samples) % down
    padded_N1T = F.pad(x_BLT.flatten(0, 1)[:, None], (reach, behind), mode="replicate")
    phases_NUQ = F.conv1d(padded_N1T, filters_U1K, stride=down)
    out_NT = phases_NUQ.mT.flatten(1)[:, : samples * up // down]
    return out_NT.unflatten(0, x_BLT.shape[:2])


@lru_cache(maxsize=8)
def _filters(up: int, down: int) -> tuple[np.ndarray, int]:
    """Return the weights of each of `up` outputs, float32 (up, K), over the inputs from `reach` before the first on."""
    cutoff = min(1.0, up / down)  # of half the input's rate
    half = _CROSSINGS / cutoff  # inputs that the filter reaches to each side
    reach = math.ceil(half)
    # Output r of a turn lies at the input r * down / up.
    distance_UK = np.arange(-reach, down + reach)[None] - (np.arange(up) * down / up)[:, None]
    inside_UK = np.clip(1.0 - (distance_UK / half) ** 2, 0.0, None)
    weights_UK = np.sinc(cutoff * distance_UK) * np.i0(_BETA * np.sqrt(inside_UK)) * (np.abs(distance_UK) <= half)
    return (weights_UK / weights_UK.sum(axis=1, keepdims=True)).astype(np.float32), reach

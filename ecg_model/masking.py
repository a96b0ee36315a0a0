"""Which columns are hidden: a pure function of the configuration, the seed and the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecg_model.config import MaskingConfig


def masked_columns(config: MaskingConfig, columns: int, *, seed: int, step: int) -> NDArray[np.bool_]:
    """bool (columns,): True where a column is hidden, in all leads alike. At least one is hidden and one is left.

    random: `int(columns * ratio)` columns, without order. block: `blocks` runs of `int(columns * block_ratio)`
    neighbours each at a uniform start, the last column within reach; runs may overlap.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step]))
    while True:
        mask_P = _random(config, columns, rng) if config.kind == "random" else _block(config, columns, rng)
        if mask_P.any() and not mask_P.all():
            return mask_P


def _random(config: MaskingConfig, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    mask_P = np.zeros(columns, dtype=bool)
    mask_P[rng.permutation(columns)[: int(columns * rng.uniform(*config.ratio))]] = True
    return mask_P


def _block(config: MaskingConfig, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    mask_P = np.zeros(columns, dtype=bool)
    for _ in range(config.blocks):
        length = int(columns * rng.uniform(*config.block_ratio))
        start = rng.integers(0, columns - length, endpoint=True)
        mask_P[start : start + length] = True
    return mask_P

"""Which columns are hidden: a pure function of the configuration, the seed and the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecg_model.config import MaskingConfig

DRAWS = 100
"""Tries for a mask that hides some columns and not all; the published settings need one."""


def masked_columns(config: MaskingConfig, columns: int, *, seed: int, step: int) -> NDArray[np.bool_]:
    """bool (columns,): True where a column is hidden, in all leads alike. At least one is hidden and one is left.

    random: `int(columns * ratio)` columns, without order. block: `blocks` runs of `int(columns * block_ratio)`
    neighbours each at a uniform start, the last column within reach; runs may overlap. Raises ValueError where the
    shares hide none or all of the columns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step]))
    draw = _random if config.kind == "random" else _block
    for _ in range(DRAWS):
        mask_P = draw(config, columns, rng)
        if mask_P.any() and not mask_P.all():
            return mask_P
    raise ValueError(f"masking={config} hides none or all of {columns} columns: change its shares, or use more patches")


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

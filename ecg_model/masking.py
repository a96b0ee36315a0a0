"""The columns hidden from the student: a pure function of the configuration, the seed and the step.

Shapes: B records, P columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecg_model.config import MaskingConfig

DRAWS = 100
"""Attempts to draw a mask that hides some columns and not all; the published settings need one."""


def masked_columns(config: MaskingConfig, columns: int, *, seed: int, step: int, records: int = 1) -> NDArray[np.bool_]:
    """Return bool (columns,): True for hidden columns, in all leads alike. At least one is hidden and one visible.

    random: `int(columns * ratio)` columns in any place. block: `blocks` runs of `int(columns * block_ratio)`
    neighbours, each at a uniform start up to the last column; runs may overlap. With `per_record` the result is
    (records, columns): a mask for each record, all hiding as many columns as the first. Raises ValueError if the shares
    hide none or all of the columns.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, step]))
    draw = _random if config.kind == "random" else _block
    for _ in range(DRAWS):
        mask_P = draw(config, columns, rng)
        if mask_P.any() and not mask_P.all():
            break
    else:
        raise ValueError(
            f"masking={config} hides none or all of {columns} columns: change its shares, or use more patches"
        )
    if not config.per_record:
        return mask_P
    count = int(mask_P.sum())
    if config.kind == "random":
        return np.stack([mask_P, *(_random_columns(count, columns, rng) for _ in range(records - 1))])
    return with_equal_counts(
        np.stack([mask_P, *(_block(config, columns, rng) for _ in range(records - 1))]), count, rng
    )


def with_equal_counts(mask_BP: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the masks (B, P), each changed so that it hides `count` columns.

    Runs of hidden columns grow or shrink at their ends, by one random column at a time, so that they stay runs.
    """
    mask_BP = mask_BP.copy()
    while len(wrong := np.flatnonzero(mask_BP.sum(axis=1) != count)):
        mask_WP = mask_BP[wrong]
        too_many_W1 = mask_WP.sum(axis=1, keepdims=True) > count
        # Ends of runs and their neighbours: columns with a neighbour in the other state.
        edge_WP = np.zeros_like(mask_WP)
        edge_WP[:, 1:] |= mask_WP[:, 1:] != mask_WP[:, :-1]
        edge_WP[:, :-1] |= mask_WP[:, 1:] != mask_WP[:, :-1]
        candidate_WP = mask_WP == too_many_W1
        # Among the columns that may change, prefer those at an edge, and among these take one at random.
        order_WP = rng.random(mask_WP.shape) + edge_WP + 2.0 * candidate_WP
        chosen_W = order_WP.argmax(axis=1)
        mask_BP[wrong, chosen_W] ^= True
    return mask_BP


def _random(config: MaskingConfig, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    order_P = rng.permutation(columns)
    mask_P = np.zeros(columns, dtype=bool)
    mask_P[order_P[: int(columns * rng.uniform(*config.ratio))]] = True
    return mask_P


def _random_columns(count: int, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    mask_P = np.zeros(columns, dtype=bool)
    mask_P[rng.permutation(columns)[:count]] = True
    return mask_P


def _block(config: MaskingConfig, columns: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    mask_P = np.zeros(columns, dtype=bool)
    for _ in range(config.blocks):
        length = int(columns * rng.uniform(*config.block_ratio))
        start = rng.integers(0, columns - length, endpoint=True)
        mask_P[start : start + length] = True
    return mask_P

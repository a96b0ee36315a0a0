"""Stochastic depth: the branches that a training step leaves out, drawn from seed and step like the masks.

Huang et al., "Deep networks with stochastic depth", arXiv 1603.09382; per record, as in vision transformers. A pure
function of the seed and the step: the same for any number of processes, on any device, and nothing has to be stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecg_model.config import EncoderConfig

_BRANCHES = 1  # separates these random numbers from those of the masks, which have the same seed and step


def drop_path_scale(config: EncoderConfig, records: int, *, seed: int, step: int) -> NDArray[np.float32] | None:
    """Return float32 (depth, 2, records): factors on the attention and the MLP branch of each block, for each record.

    0 if a branch is left out, else 1 over its chance to stay, so that the mean is 1. The chance to be left out rises
    linearly from 0 in the first block to `drop_path` in the last. Returns None if `drop_path` is 0.
    """
    if config.drop_path == 0.0:
        return None
    rng = np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=(_BRANCHES,)))
    keep_K = 1.0 - config.drop_path * np.arange(config.depth) / max(config.depth - 1, 1)
    stays_K2B = rng.random((config.depth, 2, records)) < keep_K[:, None, None]
    return (stays_K2B / keep_K[:, None, None]).astype(np.float32)

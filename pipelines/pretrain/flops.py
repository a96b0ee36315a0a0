"""What a training step costs in floating point operations, and what the machine can do of them."""

from __future__ import annotations

import functools
import statistics
import time

import torch

from ecg_model.config import JEPAConfig
from ecg_model.masking import masked_columns

_STEPS = 500  # whose masks are averaged over
_SIDE = {"cpu": 1024, "cuda": 8192}
_ROUNDS = 7


def flops_per_sample(config: JEPAConfig) -> float:
    """Of a training step, a multiply and an add counted as two: matrices and attention of student (forward and
    backward, at the mean share of visible columns), teacher (forward) and predictor (forward and backward)."""
    encoder, predictor = config.encoder, config.predictor
    visible = 1.0 - mean_mask_share(config)
    tokens = encoder.leads * encoder.patches

    def keys(columns: float) -> float:
        return encoder.leads * columns if encoder.attention == "dense" else columns + encoder.leads

    def block(dim: int, mlp_ratio: float, tokens: float, keys: float) -> float:
        return tokens * (2 * dim * dim * (4 + 2 * mlp_ratio) + 4 * keys * dim)

    seen = visible * tokens
    student = encoder.depth * block(encoder.dim, encoder.mlp_ratio, seen, keys(visible * encoder.patches))
    teacher = encoder.depth * block(encoder.dim, encoder.mlp_ratio, tokens, keys(encoder.patches))
    filled = predictor.depth * block(predictor.dim, predictor.mlp_ratio, tokens, encoder.patches)
    return 3 * (student + filled) + teacher


def mean_mask_share(config: JEPAConfig) -> float:
    """The share of the columns that masks hide, over many steps."""
    return _mean_mask_share(config)


@functools.cache
def _mean_mask_share(config: JEPAConfig) -> float:
    patches = config.encoder.patches
    return statistics.fmean(
        float(masked_columns(config.masking, patches, seed=0, step=step).mean()) for step in range(_STEPS)
    )


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that a large matrix product reaches on the device now: what a model's rate is held against."""
    side = _SIDE[device.type]
    a, b = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))  # draws from no generator
    seconds = []
    for _ in range(_ROUNDS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2.0 * side**3 / statistics.median(seconds)

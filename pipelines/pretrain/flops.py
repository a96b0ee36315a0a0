"""What a training step costs in floating point operations, and what the machine can do of them."""

from __future__ import annotations

import collections
import functools
import statistics
import time

import torch

from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.masking import masked_columns

_STEPS = 500  # whose masks are averaged over
_SIDE = {"cpu": 1024, "cuda": 8192}
_ROUNDS = 7


def flops_per_sample(config: JEPAConfig) -> float:
    """FLOPs of a training step for one record, the mean over the masks that are drawn (`step_flops`)."""
    counts = _visible_counts(config)
    return sum(step_flops(config, visible) * times for visible, times in counts.items()) / sum(counts.values())


def step_flops(config: JEPAConfig, visible: int) -> int:
    """FLOPs of a training step for one record of which `visible` columns are seen.

    All matrix products, a multiply and an add counted as two; nothing that a backward pass might compute again. A
    backward pass costs twice its forward, except at the patches, whose input needs no gradient.
    """
    encoder = config.encoder
    seen = encoder_flops(encoder, encoder.leads, visible)
    student = 3 * seen - _patch_flops(encoder, encoder.leads * visible)
    teacher = encoder_flops(encoder, encoder.leads, encoder.patches)
    return student + teacher + 3 * _predictor_flops(config.predictor, encoder, visible)


def encoder_flops(config: EncoderConfig, leads: int, columns: int) -> int:
    """FLOPs of the encoder's forward pass over a grid of tokens."""
    tokens = leads * columns
    # CroPA scores a token against its lead and against its column, itself in both.
    keys = tokens if config.attention == "dense" else columns + leads
    return _patch_flops(config, tokens) + config.depth * _block_flops(config, tokens, keys)


def _patch_flops(config: EncoderConfig, tokens: int) -> int:
    return 2 * tokens * config.patch_size * config.dim


def _predictor_flops(config: PredictorConfig, encoder: EncoderConfig, visible: int) -> int:
    tokens = encoder.leads * encoder.patches
    entered = 2 * encoder.leads * visible * encoder.dim * config.dim
    left = 2 * tokens * config.dim * encoder.dim
    return entered + config.depth * _block_flops(config, tokens, encoder.patches) + left


def _block_flops(config: EncoderConfig | PredictorConfig, tokens: int, keys: int) -> int:
    hidden = int(config.dim * config.mlp_ratio)
    weights = 4 * config.dim * config.dim + 2 * config.dim * hidden  # q, k, v, projection; the two of the MLP
    return tokens * (2 * weights + 4 * keys * config.dim)


@functools.cache
def _visible_counts(config: JEPAConfig) -> collections.Counter[int]:
    """How many of the first steps see so many columns."""
    patches = config.encoder.patches
    masks = (masked_columns(config.masking, patches, seed=0, step=step) for step in range(_STEPS))
    # With a mask for each record all of them hide as many as the first.
    return collections.Counter(patches - int(mask.sum(axis=-1).flat[0]) for mask in masks)


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that a large matrix product reaches on the device now: what a model's rate is held against."""
    side = _SIDE[device.type]
    # A generator of its own: a run's draws stay as they are. Equal numbers would draw less power, and go too fast.
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=generator).to(dtype) for _ in range(2))
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

"""FLOPs of a training step, and the FLOP/s that the machine reaches."""

from __future__ import annotations

import collections
import functools
import statistics
import time

import torch

from ecg_model.config import EncoderConfig, JEPAConfig, PredictorConfig
from ecg_model.masking import masked_columns

_STEPS = 500  # the masks of so many steps are averaged
_SIDE = {"cpu": 1024, "cuda": 8192}  # rows and columns of the measured matrices
_ROUNDS = 7  # products, of which the median counts


def jepa_flops(config: JEPAConfig) -> float:
    """Return the FLOPs of a training step for one record, as `step_flops`, the mean over the masks that are drawn."""
    counts = _visible_counts(config)
    return sum(step_flops(config, visible) * times for visible, times in counts.items()) / sum(counts.values())


def step_flops(config: JEPAConfig, visible: int) -> int:
    """Return the FLOPs of a training step for one record with `visible` columns.

    All matrix products count, a multiply and an add as two; recomputation in the backward pass does not. A backward
    pass costs twice its forward, except for the patches, whose input needs no gradient.
    """
    encoder, predictor = config.transformers
    student_forward = encoder_flops(encoder, encoder.leads, visible)
    student = 3 * student_forward - _patch_flops(encoder, encoder.leads * visible)
    teacher = encoder_flops(encoder, encoder.leads, encoder.patches)
    return student + teacher + 3 * _predictor_flops(predictor, encoder, visible)


def encoder_flops(config: EncoderConfig, leads: int, columns: int) -> int:
    """Return the FLOPs of the encoder's forward pass over a grid of tokens."""
    tokens = leads * columns
    # CroPA scores a token against its lead and against its column, and against itself in both.
    keys = tokens if config.attention == "dense" else columns + leads
    return _patch_flops(config, tokens) + config.depth * _block_flops(config, tokens, keys)


def _patch_flops(config: EncoderConfig, tokens: int) -> int:
    return 2 * tokens * config.patch_size * config.dim


def _predictor_flops(config: PredictorConfig, encoder: EncoderConfig, visible: int) -> int:
    tokens = encoder.leads * encoder.patches
    embed = 2 * encoder.leads * visible * encoder.dim * config.dim
    project = 2 * tokens * config.dim * encoder.dim
    return embed + config.depth * _block_flops(config, tokens, encoder.patches) + project


def _block_flops(config: EncoderConfig | PredictorConfig, tokens: int, keys: int) -> int:
    hidden = int(config.dim * config.mlp_ratio)
    weights = 4 * config.dim * config.dim + 2 * config.dim * hidden  # q, k, v, projection; the two of the MLP
    return tokens * (2 * weights + 4 * keys * config.dim)


@functools.cache
def _visible_counts(config: JEPAConfig) -> collections.Counter[int]:
    """Count the first _STEPS steps by their number of visible columns."""
    patches = config.transformers[0].patches
    masks = (masked_columns(config.masking, patches, seed=0, step=step) for step in range(_STEPS))
    # With a mask for each record, all masks of a step hide as many columns as the first.
    return collections.Counter(patches - int(mask.sum(axis=-1).flat[0]) for mask in masks)


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product on the device, the reference for a model's utilisation."""
    side = _SIDE[device.type]
    # A separate generator leaves the run's random numbers as they are. Random values, because a product of equal
    # numbers needs less power and would be too fast.
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

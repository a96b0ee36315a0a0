"""FLOPs of S4 encoders and of the objectives on them, as `flops` counts those of transformers.

An FFT of n points counts 2.5 n log2 n (a real transform), the product of spectra 6 a frequency.
"""

from __future__ import annotations

import math

from ecg_model.config import CPCConfig, JEPAConfig, S4EncoderConfig, S4PredictorConfig


def s4_encoder_flops(config: S4EncoderConfig) -> float:
    """Return the FLOPs of a forward pass over a window of training."""
    return _stem_flops(config) + config.depth * _block_flops(config)


def cpc_flops(config: CPCConfig) -> float:
    """Return the FLOPs of a training step for one window. A backward pass costs twice its forward."""
    encoder = config.encoder
    head = 2 * encoder.tokens * encoder.dim * encoder.stem_dim
    scores = 2 * (encoder.tokens - config.horizon) * encoder.tokens * encoder.stem_dim
    return 3 * (s4_encoder_flops(encoder) + head + scores) - _first_convolution(encoder)


def s4_jepa_flops(config: JEPAConfig) -> float:
    """Return the FLOPs of a training step for one window: student and predictor with gradient, teacher without."""
    encoder, predictor = config.encoder, config.predictor
    assert isinstance(encoder, S4EncoderConfig)
    assert isinstance(predictor, S4PredictorConfig)
    blocks = predictor.depth * _block_flops(encoder)
    project = 2 * encoder.tokens * encoder.dim * encoder.dim
    forward = s4_encoder_flops(encoder)
    return 3 * (forward + blocks + project) - _first_convolution(encoder) + forward


def _first_convolution(config: S4EncoderConfig) -> float:
    """FLOPs of the convolution whose input needs no gradient."""
    return 2 * config.tokens * config.leads * config.stem_kernel * config.stem_dim


def _stem_flops(config: S4EncoderConfig) -> float:
    others = (config.stem_depth - 1) * 2 * config.tokens * config.stem_dim**2
    widen = 0 if config.stem_dim == config.dim else 2 * config.tokens * config.stem_dim * config.dim
    return _first_convolution(config) + others + widen


def _block_flops(config: S4EncoderConfig) -> float:
    """FLOPs of an S4 block. Its kernels are the same for all records of a batch and do not count."""
    points = 2 * config.tokens
    convolution = 2 * 2.5 * points * math.log2(points) + 6 * (points // 2 + 1)
    linear = 2 * config.tokens * config.dim * 2 * config.dim
    return config.dim * convolution + linear

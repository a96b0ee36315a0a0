"""The FLOPs that are reported against those that torch counts while the network runs."""

import dataclasses
import math

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecg_model.config import (
    CPCConfig,
    EncoderConfig,
    JEPAConfig,
    MaskingConfig,
    PredictorConfig,
    S4EncoderConfig,
    S4PredictorConfig,
)
from ecg_model.encoder import Encoder
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from ecg_model.s4_encoder import S4Encoder
from pipelines.pretrain.flops import encoder_flops, jepa_flops, matrix_rate, step_flops
from pipelines.pretrain.flops_s4 import s4_encoder_flops
from pipelines.pretrain.objectives import objective_of
from pipelines.pretrain.recipes import Recipe

SMALL = JEPAConfig(
    encoder=EncoderConfig(dim=16, depth=3, heads=2, patches=10, patch_size=5, mlp_ratio=2.5),
    predictor=PredictorConfig(dim=8, depth=2, heads=2),
)
CONFIGS = [
    SMALL,
    dataclasses.replace(SMALL, encoder=dataclasses.replace(SMALL.encoder, attention="dense")),
    dataclasses.replace(SMALL, encoder=dataclasses.replace(SMALL.encoder, leads=12)),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("visible", [1, 4, 9])
def test_a_step_costs_what_torch_counts(config, visible):
    records = 2
    model = JEPA(config).train()
    x_BLT = torch.randn(records, config.encoder.leads, config.encoder.samples)
    columns = split_columns(torch.arange(config.encoder.patches) >= visible)
    # Fused attention computes its scores again in the backward pass; those products are not counted here.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x_BLT, *columns).backward()
    assert counter.get_total_flops() == records * step_flops(config, visible)


@pytest.mark.parametrize("leads", [1, 3, 8])
@pytest.mark.parametrize("columns", [2, 10])
def test_an_embedding_costs_what_torch_counts(leads, columns):
    encoder = Encoder(SMALL.encoder).eval()
    x_BLT = torch.randn(1, leads, columns * SMALL.encoder.patch_size)
    with FlopCounterMode(display=False) as counter:
        encoder.embed(x_BLT, leads=range(leads))
    assert counter.get_total_flops() == encoder_flops(SMALL.encoder, leads, columns)


S4 = S4EncoderConfig(
    leads=8, rate=250, samples=100, token_samples=5, stem_kernel=5, stem_dim=6, stem_depth=3, dim=8, depth=2, state=4
)


def convolutions(config: S4EncoderConfig, blocks: int) -> float:
    """FLOPs of the FFTs of so many blocks, and of their products, which torch does not count."""
    points = 2 * config.tokens
    return blocks * config.dim * (2 * 2.5 * points * math.log2(points) + 6 * (points // 2 + 1))


def kernels(config: S4EncoderConfig, blocks: int) -> int:
    """FLOPs of the kernels of so many blocks, once a batch, which do not count."""
    return blocks * (1 if config.causal else 2) * 2 * config.dim * config.state * config.tokens


@pytest.mark.parametrize("changes", [{}, {"dim": 6}, {"causal": False}, {"leads": 12, "rate": 240, "samples": 120}])
def test_an_s4_encoder_costs_what_torch_counts_and_its_convolutions(changes):
    config, records = dataclasses.replace(S4, **changes), 3
    encoder = S4Encoder(config).eval()
    x_BCT = torch.randn(records, config.leads, config.samples)
    encoder.network(x_BCT)
    with FlopCounterMode(display=False) as counter:
        encoder.network(x_BCT)
    counted = counter.get_total_flops() - kernels(config, config.depth)
    assert counted + records * convolutions(config, config.depth) == pytest.approx(records * s4_encoder_flops(config))


def s4_step(config):
    """FLOPs that torch counts of a training step of three windows, and the records."""
    records = 3
    objective = objective_of(Recipe(name="counted", **{"jepa": None, **config}))
    encoder = objective.encoder.config
    x_BLT = objective.read(torch.randn(records, 8, encoder.window))
    draw = objective.draw(records, seed=0, step=0)
    objective.model.train()(x_BLT, *draw.arguments)  # computes what is constant
    with FlopCounterMode(display=False) as counter:
        objective.model(x_BLT, *draw.arguments).backward()
    return counter.get_total_flops(), records, objective


def test_a_step_of_cpc_costs_what_torch_counts_and_its_convolutions():
    config = CPCConfig(encoder=S4, horizon=3, negatives=5)
    counted, records, objective = s4_step({"cpc": config})
    counted -= 2 * kernels(S4, S4.depth)  # the basis has no gradient
    expected = objective.flops_per_sample() - 3 * convolutions(S4, S4.depth)
    assert counted == pytest.approx(records * expected)


def test_a_step_of_jepa_on_s4_costs_what_torch_counts_and_its_convolutions():
    encoder = dataclasses.replace(S4, causal=False)
    config = JEPAConfig(
        encoder=encoder, predictor=S4PredictorConfig(state=4), masking=MaskingConfig(block_ratio=(0.15, 0.2))
    )
    counted, records, objective = s4_step({"jepa": config})
    counted -= 2 * kernels(encoder, encoder.depth + 1) + kernels(encoder, encoder.depth)
    expected = objective.flops_per_sample() - 3 * convolutions(encoder, encoder.depth + 1)
    expected -= convolutions(encoder, encoder.depth)
    assert counted == pytest.approx(records * expected)


@pytest.mark.parametrize("per_record", [False, True])
def test_a_sample_costs_the_mean_over_the_masks(per_record):
    masking = MaskingConfig(blocks=2, block_ratio=(0.2, 0.5), per_record=per_record)
    config = dataclasses.replace(SMALL, masking=masking)
    visible = [10 - int(masked_columns(masking, 10, seed=0, step=step).sum(-1).flat[0]) for step in range(500)]
    assert len(set(visible)) > 2
    wanted = sum(step_flops(config, count) for count in visible) / 500
    assert jepa_flops(config) == pytest.approx(wanted, rel=1e-12)


def test_the_rate_of_a_matrix_product_is_positive_and_leaves_the_generator_alone():
    before = torch.get_rng_state()
    assert matrix_rate(torch.device("cpu"), torch.float32) > 1e8
    assert torch.equal(torch.get_rng_state(), before)

"""The FLOPs that are reported against those that torch counts while the network runs."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ecg_model.config import EncoderConfig, JEPAConfig, MaskingConfig, PredictorConfig
from ecg_model.encoder import Encoder
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from pipelines.pretrain.flops import encoder_flops, jepa_flops, matrix_rate, step_flops

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

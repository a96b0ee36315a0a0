"""An ECG longer than an encoder's window is embedded by its windows."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ecg_model.config import AnyEncoderConfig, EncoderConfig, S4EncoderConfig
from ecg_model.ecg_encoder import windows
from ecg_model.encoder_file import random_encoder
from ecg_model.s4_encoder import S4Encoder

S4 = S4EncoderConfig(
    leads=8, rate=250, samples=625, token_samples=25, stem_kernel=25, stem_dim=6, dim=8, depth=1, state=4
)
CONFIGS: dict[str, AnyEncoderConfig] = {
    "patches, 4 windows of 2.4 s and a rest": EncoderConfig(dim=16, depth=1, heads=2, patches=12),
    "patches, 12 leads": EncoderConfig(dim=16, depth=1, heads=2, patches=25, leads=12),
    "s4": S4,
    "s4, both directions, 12 leads": dataclasses.replace(S4, causal=False, leads=12),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_embedding_is_the_mean_of_the_windows_embeddings(name: str) -> None:
    config = CONFIGS[name]
    encoder, x_BLT = random_encoder(config, 0), torch.randn(3, 8, 2500)
    count = 2500 // config.window
    with torch.no_grad():
        each_BWD = torch.stack(
            [encoder.embed(x_BLT[..., at * config.window : (at + 1) * config.window]) for at in range(count)], dim=1
        )
        torch.testing.assert_close(encoder.embed(x_BLT), each_BWD.mean(dim=1), atol=1e-5, rtol=1e-5)
        rest = count * config.window
        assert torch.equal(encoder.embed(x_BLT), encoder.embed(x_BLT[..., :rest])), "the rest is not read"
        assert encoder.tokens(x_BLT).shape[1] % config.columns(2500) == 0


def test_an_ecg_is_resampled_before_it_is_cut() -> None:
    """So that no window has an edge inside the ECG."""
    config = dataclasses.replace(S4, rate=240, samples=600, token_samples=24)
    encoder, x_BLT = random_encoder(config, 0), torch.randn(2, 8, 2500)
    assert isinstance(encoder, S4Encoder)
    with torch.no_grad():
        read_BCT = encoder.read(x_BLT)
        assert read_BCT.shape == (2, 8, 2400)
        each_BWD = encoder.network(windows(read_BCT, 600)).mean(dim=1).unflatten(0, (2, 4))
        torch.testing.assert_close(encoder.embed(x_BLT), each_BWD.mean(dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_tokens_of_a_row_are_in_the_order_of_time(name: str) -> None:
    config = CONFIGS[name]
    encoder, x_BLT = random_encoder(config, 0), torch.randn(1, 8, 2500)
    changed_BLT = x_BLT.clone()
    changed_BLT[..., config.window : 2 * config.window] += 1.0
    with torch.no_grad():
        moved_N = (encoder.tokens(x_BLT) - encoder.tokens(changed_BLT)).abs().amax(dim=(0, 2)) > 1e-6
    columns, each = config.columns(2500), config.columns(config.window)
    for row_P in moved_N.unflatten(0, (-1, columns)):
        assert row_P.nonzero().min() >= each
        assert row_P.nonzero().max() < 2 * each
        assert row_P.any()

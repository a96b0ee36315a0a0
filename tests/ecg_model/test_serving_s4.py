"""An encoder of short windows and mixed leads is served as one on patches is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ecg_model.config import AnyEncoderConfig, EncoderConfig, S4EncoderConfig
from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.s4_encoder import S4Encoder
from ecg_model.serving.embed import embed, judged_embeddings
from ecg_model.signal import prepare
from pipelines.release.packaging import example_ecg

S4 = S4EncoderConfig(
    leads=8, rate=250, samples=625, token_samples=25, stem_dim=8, stem_depth=2, dim=12, depth=1, input_scale=5.0
)
PUBLISHED = S4EncoderConfig(stem_dim=8, stem_depth=2, dim=12, depth=1)
"""The published rate, leads, window and tokens, in a narrow network."""
SHORT = EncoderConfig(dim=16, depth=1, heads=2, patches=10, input_scale=5.0, patch_init_scale=7.0)
RATE = 100.0


@pytest.mark.parametrize("config", [S4, PUBLISHED, SHORT], ids=["s4", "published", "patches"])
def test_ecgs_of_any_leads_and_length_are_read_in_windows(config: AnyEncoderConfig) -> None:
    encoder, ecg = random_encoder(config, 0), example_ecg()
    ten = embed(encoder, ecg, sampling_rate=RATE)
    prepared = torch.from_numpy(prepare(ecg, leads=LEADS_12, rate=RATE))
    with torch.inference_mode():
        if isinstance(encoder, S4Encoder):  # resampled as a whole, and then cut
            parts = [encoder.network(x_BCT) for x_BCT in encoder.read(prepared).split(encoder.config.samples, dim=-1)]
        else:
            parts = [encoder.tokens(x_BLT) for x_BLT in prepared.split(config.window, dim=-1)]
    of_windows = torch.cat(parts, dim=1).mean(dim=1)
    np.testing.assert_allclose(ten, of_windows, atol=1e-5)
    eight = ecg[:, [LEADS_12.index(lead) for lead in LEADS]]
    np.testing.assert_allclose(embed(encoder, eight, sampling_rate=RATE), ten, atol=1e-5)
    long = embed(encoder, np.concatenate([ecg, 0.5 * ecg, ecg], axis=2), sampling_rate=RATE)
    assert (long.shape, np.isfinite(long).all()) == ((1, config.dim), True)
    assert np.abs(long - ten).max() > 1e-3, "the second ten seconds count, too"
    short = embed(encoder, ecg[..., :310], sampling_rate=RATE)
    assert np.isfinite(short).all()


@pytest.mark.parametrize("config", [S4, PUBLISHED], ids=["s4", "published"])
def test_called_as_a_module_it_reads_and_scales_its_input(config: S4EncoderConfig) -> None:
    encoder = random_encoder(config, 0)
    x_BLT = torch.from_numpy(prepare(example_ecg(), leads=LEADS_12, rate=RATE))
    with torch.inference_mode():
        tokens_BND = encoder(x_BLT)
        assert torch.equal(tokens_BND, encoder.tokens(x_BLT))
        assert tokens_BND.shape == (1, config.columns(2500), 12)
        assert torch.equal(tokens_BND.mean(dim=1), encoder.embed(x_BLT))


@pytest.mark.parametrize(
    "config",
    [
        replace(S4, samples=1250, token_samples=1250),
        EncoderConfig(dim=16, depth=1, heads=2, patches=2, patch_size=1250),
    ],
    ids=["s4", "patches"],
)
def test_an_ecg_shorter_than_a_token_is_refused_alone(config: AnyEncoderConfig) -> None:
    encoder, both = random_encoder(config, 0), np.concatenate([example_ecg()] * 2)
    both[0, :, 450:] = np.nan  # what was recorded of it is short
    embeddings, reasons = judged_embeddings(encoder, both, sampling_rate=RATE)
    assert reasons == ["too short: 4.50 s are less than this encoder's token has", None]
    assert np.isnan(embeddings).all(axis=1).tolist() == [True, False]


def test_the_length_that_weights_belong_to_is_the_files_word(tmp_path) -> None:
    """Weights of another length have the same shapes, so the configuration beside them decides."""
    encoder = random_encoder(S4, 0)
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert loaded.config == S4
    other = random_encoder(replace(S4, samples=1250), 0)
    other.load_state_dict(encoder.state_dict())
    ecg = example_ecg()
    own = embed(encoder, ecg, sampling_rate=RATE)
    assert np.array_equal(embed(loaded, ecg, sampling_rate=RATE), own)
    assert not np.allclose(embed(other, ecg, sampling_rate=RATE), own), "as another length, they are another network"

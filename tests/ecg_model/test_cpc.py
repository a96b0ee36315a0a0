"""Contrastive predictive coding and its encoder."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecg_model.config import CPCConfig, S4EncoderConfig
from ecg_model.cpc import CPC, chance, contrast, negative_tokens
from ecg_model.s4_encoder import S4Encoder, Stream, tied_dropout
from ecg_model.settings import from_dict, to_dict

SMALL = S4EncoderConfig(leads=8, rate=250, samples=60, stem_dim=8, dim=8, depth=2, state=4)


def encoder_of(config: S4EncoderConfig = SMALL) -> S4Encoder:
    torch.manual_seed(0)
    encoder = S4Encoder(config)
    encoder.network(torch.randn(16, config.leads, config.samples))  # so that running statistics are not trivial
    return encoder.eval()


def test_the_published_encoder_has_the_published_size() -> None:
    model = CPC(CPCConfig())
    trained = {name: sum(p.numel() for p in part.parameters()) for name, part in model.encoder.named_children()}
    assert trained == {"stem": 808_960, "widen": 0, "blocks": 2_123_776}
    assert sum(p.numel() for p in model.head.parameters()) == 262_144
    assert model.encoder.config.tokens == 300


@pytest.mark.parametrize("samples", [2, 14, 60, 62, 300])
def test_a_stream_of_tokens_is_the_encoder(samples: int) -> None:
    encoder, x_BCT = encoder_of(), torch.randn(2, 8, samples)
    stream = Stream(encoder, records=2)
    streamed_BLD = torch.stack([stream(x_BCT[..., at : at + 2]) for at in range(0, samples, 2)], dim=1)
    with torch.no_grad():
        whole_BLD = encoder.network(x_BCT)
    assert whole_BLD.shape == (2, samples // 2, 8)
    assert (streamed_BLD - whole_BLD).abs().max() <= 1e-4


def test_a_token_sees_no_later_sample() -> None:
    encoder, x_BCT = encoder_of(), torch.randn(1, 8, 60)
    changed_BCT = x_BCT.clone()
    changed_BCT[..., 40:] += 1.0
    with torch.no_grad():
        same_L = (encoder.network(x_BCT) - encoder.network(changed_BCT)).abs().amax(dim=(0, 2)) <= 1e-5
    assert same_L.tolist() == [True] * 20 + [False] * 10


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 3, 60), "3 leads: this encoder reads 8"), ((1, 8, 61), "61 samples: .* a token of 2")]
)
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    encoder = encoder_of()
    with pytest.raises(ValueError, match=message):
        encoder.network(torch.zeros(shape))


def test_a_stream_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"training mode.*encoder\.eval\(\)"):
        Stream(encoder_of().train(), records=1)
    with pytest.raises(ValueError, match="stem_kernel=5: a token of 2 samples would see later ones"):
        Stream(encoder_of(replace(SMALL, stem_kernel=5)), records=1)
    with pytest.raises(ValueError, match="give 2 samples of each lead and record"):
        Stream(encoder_of(), records=1)(torch.zeros(1, 8, 3))


def test_dropout_is_tied_over_tokens_and_a_function_of_seed_and_step() -> None:
    drop_K2BD = tied_dropout(SMALL, 500, seed=1, step=2)
    assert drop_K2BD is not None
    assert drop_K2BD.shape == (2, 2, 500, 8)
    assert set(np.unique(drop_K2BD)) == {np.float32(0), np.float32(1 / 0.8)}
    assert drop_K2BD.mean() == pytest.approx(1.0, abs=0.02)
    assert np.array_equal(drop_K2BD, tied_dropout(SMALL, 500, seed=1, step=2))
    assert not np.array_equal(drop_K2BD, tied_dropout(SMALL, 500, seed=1, step=3))
    block = encoder_of().blocks[0]
    drop_2BD = torch.ones(2, 1, 8)
    drop_2BD[1, 0, 3] = 0.0
    y_BLD = block.gated(torch.randn(1, 30, 8), drop_2BD)
    assert ((y_BLD == 0).all(dim=1)[0]).tolist() == [channel == 3 for channel in range(8)]


@settings(max_examples=20, deadline=None)
@given(
    records=st.integers(1, 4),
    tokens=st.integers(2, 20),
    horizon=st.integers(1, 19),
    count=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_the_loss_is_that_of_the_candidates(records: int, tokens: int, horizon: int, count: int, seed: int) -> None:
    horizon = min(horizon, tokens - 1)
    torch.manual_seed(seed)
    predicted_BLD, z_BLD = torch.randn(2, records, tokens, 5)
    negatives_BMJ = torch.from_numpy(negative_tokens(records, tokens, horizon=horizon, count=count, seed=seed, step=3))
    loss, accuracy = contrast(predicted_BLD, z_BLD, negatives_BMJ, horizon)
    expected, hits = by_candidates(predicted_BLD, z_BLD, negatives_BMJ, horizon)
    assert loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert accuracy.item() == pytest.approx(hits, abs=1e-6)


def by_candidates(predicted_BLD: Tensor, z_BLD: Tensor, negatives_BMJ: Tensor, horizon: int) -> tuple[float, float]:
    """One position after another, each with its own candidates."""
    total, hits = 0.0, 0
    for record, negatives_MJ in enumerate(negatives_BMJ.tolist()):
        for at, negatives_J in enumerate(negatives_MJ):
            score_J = z_BLD[record, [at + horizon, *negatives_J]] @ predicted_BLD[record, at]
            total -= F.log_softmax(score_J.double(), dim=0)[0].item()
            hits += int(score_J.argmax() == 0)
    return total / len(z_BLD), hits / negatives_BMJ[..., 0].numel()


def test_scores_that_say_nothing_have_the_loss_of_chance() -> None:
    negatives_BMJ = torch.from_numpy(negative_tokens(2, 300, horizon=14, count=128, seed=0, step=0))
    loss, _ = contrast(torch.zeros(2, 300, 4), torch.randn(2, 300, 4), negatives_BMJ, 14)
    assert loss.item() / 286 == pytest.approx(chance(128), rel=1e-6)
    assert chance(128) == pytest.approx(math.log(129))


@settings(max_examples=30, deadline=None)
@given(tokens=st.integers(2, 30), horizon=st.integers(1, 29), seed=st.integers(0, 99))
def test_negatives_are_any_other_token(tokens: int, horizon: int, seed: int) -> None:
    horizon = min(horizon, tokens - 1)
    drawn_BMJ = negative_tokens(2, tokens, horizon=horizon, count=400, seed=seed, step=0)
    assert drawn_BMJ.shape == (2, tokens - horizon, 400)
    for row, drawn_MJ in enumerate(drawn_BMJ.swapaxes(0, 1)):
        assert set(drawn_MJ[0]) | set(drawn_MJ[1]) == set(range(tokens)) - {row + horizon}


def test_negatives_are_uniform_and_a_function_of_seed_and_step() -> None:
    drawn_J = negative_tokens(1, 11, horizon=10, count=100_000, seed=5, step=7)[0, 0]
    assert np.bincount(drawn_J, minlength=11).tolist() == pytest.approx([10_000] * 10 + [0], abs=400)
    again_J = negative_tokens(1, 11, horizon=10, count=100_000, seed=5, step=7)[0, 0]
    assert np.array_equal(drawn_J, again_J)
    assert not np.array_equal(drawn_J, negative_tokens(1, 11, horizon=10, count=100_000, seed=5, step=8)[0, 0])
    with pytest.raises(ValueError, match="10 tokens: at horizon=10 none can be predicted"):
        negative_tokens(1, 10, horizon=10, count=1, seed=0, step=0)


def test_it_learns_to_tell_a_token_from_others() -> None:
    torch.manual_seed(0)
    model = CPC(CPCConfig(encoder=SMALL, horizon=2, negatives=16)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=1e-3)
    time_T = torch.arange(60) / 60
    phase_B = torch.rand(32, generator=torch.Generator().manual_seed(1))
    x_BCT = torch.sin(
        2 * math.pi * (3 * time_T[None, None] + phase_B[:, None, None] + torch.arange(8)[None, :, None] / 7)
    )
    accuracies = []
    for step in range(60):
        negatives_BMJ = torch.from_numpy(negative_tokens(32, 30, horizon=2, count=16, seed=0, step=step))
        loss, accuracy = model.judged(model.encoder.encode(x_BCT), negatives_BMJ)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        accuracies.append(accuracy.item())
    assert accuracies[-1] > 3 * accuracies[0] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 601}, r"samples=601: use a multiple of token_samples=2"),
        ({"state": 7}, "state=7: use an even number"),
        ({"stem_kernel": 4}, "stem_kernel=4: use an odd number"),
        ({"dropout": 1.0}, "dropout=1.0: use a share"),
        ({"depth": 0}, "depth=0: use at least 1"),
        ({"samples": 24}, "horizon=14: use less than the 12 tokens of a window"),
        (
            {"samples": 602},
            "samples=602: use a multiple of 24, so that a window is a whole number",
        ),
        ({"causal": False}, "causal=False: use a causal encoder"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(CPCConfig, {"encoder": to_dict(S4EncoderConfig()) | changes})

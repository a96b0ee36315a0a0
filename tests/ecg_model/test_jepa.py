"""Encoder, predictor, masks, objective and files of the network."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ecg_model import signal
from ecg_model.attention import dense_cropa
from ecg_model.blocks import Block
from ecg_model.config import EncoderConfig, JEPAConfig, MaskingConfig, PredictorConfig
from ecg_model.encoder import Encoder, take_columns
from ecg_model.encoder_file import FORMAT, load_encoder, random_encoder, save_encoder
from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns, with_equal_counts
from ecg_model.settings import digest, from_dict, to_dict
from ecg_model.stochastic_depth import drop_path_scale

TINY = JEPAConfig(
    encoder=EncoderConfig(dim=16, depth=2, heads=2, patches=10, patch_size=5),
    predictor=PredictorConfig(dim=8, depth=2, heads=2),
)


def ecgs(batch: int = 3, config: EncoderConfig = TINY.encoder) -> torch.Tensor:
    return torch.randn(batch, config.leads, config.samples, generator=torch.Generator().manual_seed(0))


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_parameter_counts_at_paper_size():
    model = JEPA(JEPAConfig())
    assert parameters(model.student) == 85_067_520
    assert model.student.positions_LPD.numel() == 307_200
    assert parameters(model.predictor) == 11_232_000
    assert parameters(model.teacher) == 0


def test_reduced_leads_keep_their_positions():
    encoder, x_BLT = random_encoder(TINY.encoder, 0), ecgs()
    order = [6, 1, 2]
    tokens = encoder(x_BLT[:, [1, 2, 6]], leads=[1, 2, 6]).unflatten(1, (3, 10))
    reordered = encoder(x_BLT[:, order], leads=order).unflatten(1, (3, 10))
    torch.testing.assert_close(reordered, tokens[:, [2, 0, 1]])
    alone = encoder.embed(x_BLT[:, [1]], leads=[1])
    assert not torch.allclose(alone, encoder.embed(x_BLT[:, [1]], leads=[4])), "a lead's place is part of its tokens"
    torch.testing.assert_close(encoder(x_BLT, leads=range(8)), encoder(x_BLT))


@settings(deadline=None, max_examples=25)
@given(
    leads=st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True),
    visible=st.sets(st.integers(0, 9), min_size=1),
)
def test_any_leads_and_columns_equal_the_encoder_of_dense_scores(leads, visible):
    encoder, x_BLT = random_encoder(TINY.encoder, 0), ecgs(2)[:, leads]
    columns = torch.tensor(sorted(visible))
    result = encoder(x_BLT, columns, leads)
    assert result.shape == (2, len(leads) * len(visible), 16)
    for block in encoder.blocks:
        assert isinstance(block, Block)
        block.attend = dense_cropa
    torch.testing.assert_close(result, encoder(x_BLT, columns, leads))


def test_input_and_patch_scales_multiply_what_they_say():
    plain = random_encoder(TINY.encoder, 0)
    louder = random_encoder(dataclasses.replace(TINY.encoder, input_scale=5.0), 0)
    torch.testing.assert_close(louder(ecgs()), plain(5.0 * ecgs()))
    wider = random_encoder(dataclasses.replace(TINY.encoder, patch_init_scale=7.0), 0)
    torch.testing.assert_close(wider.patch.weight, 7.0 * plain.patch.weight)


def test_records_do_not_see_each_other():
    encoder, x_BLT = random_encoder(TINY.encoder, 0), ecgs(4)
    torch.testing.assert_close(encoder.embed(x_BLT)[2], encoder.embed(x_BLT[2:3])[0])


def test_own_columns_of_each_record_equal_the_common_ones():
    model, x_BLT = JEPA(TINY).eval(), ecgs()
    visible, masked = split_columns(torch.tensor([False] * 4 + [True] * 5 + [False]))
    common = model(x_BLT, visible, masked)
    own = model(x_BLT, visible.expand(3, -1), masked.expand(3, -1))
    torch.testing.assert_close(common, own)
    masks = torch.from_numpy(masked_columns(MaskingConfig(per_record=True), 10, seed=0, step=0, records=3))
    alone = [model(x_BLT[[row]], *split_columns(masks[row])) for row in range(3)]
    torch.testing.assert_close(model(x_BLT, *split_columns(masks)), torch.stack(alone).mean())


def test_the_student_never_sees_a_masked_column():
    model, x_BLT = JEPA(TINY).eval(), ecgs()
    visible, masked = split_columns(torch.arange(10) >= 6)
    changed = x_BLT.clone()
    changed[:, :, 30:] += 5.0
    torch.testing.assert_close(model.predict(x_BLT, visible, masked), model.predict(changed, visible, masked))
    assert not torch.allclose(model.targets(x_BLT), model.targets(changed))


@pytest.mark.parametrize(
    ("shape", "leads", "named"),
    [
        ((2, 7, 50), None, "8 leads"),
        ((2, 8, 51), None, "51 samples"),
        ((2, 8, 55), None, "at most 50"),
        ((2, 2, 50), [1, 1], "leads="),
    ],
)
def test_ecgs_of_another_shape_are_refused(shape, leads, named):
    with pytest.raises(ValueError, match=named):
        random_encoder(TINY.encoder, 0)(torch.zeros(shape), leads=leads)


def test_the_teacher_follows_the_student_and_never_trains():
    model = JEPA(TINY).train()
    assert not model.teacher.training
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in model.teacher.parameters()]
    model.ema_update_(0.9)
    for old, teacher, student in zip(before, model.teacher.parameters(), model.student.parameters(), strict=True):
        torch.testing.assert_close(teacher, 0.9 * old + 0.1 * student.detach())
    model.ema_update_(1.0)
    assert all(not p.requires_grad for p in model.teacher.parameters())


def test_stochastic_depth_leaves_out_whole_branches_and_keeps_the_mean():
    config = EncoderConfig(dim=8, depth=3, heads=2, patches=2, patch_size=5, drop_path=0.5)
    scale_K2B = drop_path_scale(config, 4000, seed=3, step=8)
    assert scale_K2B is not None
    assert np.array_equal(scale_K2B, drop_path_scale(config, 4000, seed=3, step=8))  # pyright: ignore[reportArgumentType]
    assert not np.array_equal(scale_K2B, drop_path_scale(config, 4000, seed=3, step=9))  # pyright: ignore[reportArgumentType]
    assert [sorted(set(block.ravel())) for block in scale_K2B] == [[1.0], [0.0, np.float32(1 / 0.75)], [0.0, 2.0]]
    np.testing.assert_allclose(scale_K2B.mean(axis=2), 1.0, atol=0.1)
    assert drop_path_scale(dataclasses.replace(config, drop_path=0.0), 4, seed=3, step=8) is None


def test_a_branch_that_is_left_out_does_nothing_and_one_that_stays_is_scaled():
    block = random_encoder(TINY.encoder, 0).blocks[0]
    assert isinstance(block, Block)
    x_BLPD = torch.randn(3, 8, 10, 16, generator=torch.Generator().manual_seed(1))
    result = block(x_BLPD, torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 1.0]]))
    torch.testing.assert_close(result[0], x_BLPD[0])
    torch.testing.assert_close(result[1], x_BLPD[1] + 2.0 * block._attention(block.norm1(x_BLPD[1:2]))[0])
    torch.testing.assert_close(result[2], block(x_BLPD)[2])


def test_twelve_leads_follow_from_the_eight():
    config = dataclasses.replace(TINY.encoder, leads=12)
    encoder, x_BLT = random_encoder(config, 0), ecgs()
    limb = signal.derived_leads(x_BLT[:, :2].numpy())
    all_BLT = torch.cat([x_BLT, torch.from_numpy(limb)], dim=1)
    torch.testing.assert_close(encoder(x_BLT), encoder(all_BLT))
    assert encoder(x_BLT).shape == (3, 12 * 10, 16)
    torch.testing.assert_close(
        encoder(x_BLT[:, [6, 1, 0]], leads=[6, 1, 0]),
        encoder(all_BLT[:, [6, 1, 0, 8, 9, 10, 11]], leads=[6, 1, 0, 8, 9, 10, 11]),
    )
    assert encoder(x_BLT[:, [1]], leads=[1]).shape == (3, 10, 16), "one limb lead gives no other"
    model = JEPA(dataclasses.replace(TINY, encoder=config))
    columns = split_columns(torch.arange(10) >= 6)
    assert model.predict(x_BLT, *columns).shape == (3, 12, 10, 16)
    torch.testing.assert_close(model(x_BLT, *columns), model(all_BLT, *columns))


def test_loss_learns_on_a_fixed_batch():
    torch.manual_seed(0)
    model, x_BLT = JEPA(TINY).train(), ecgs(8)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    columns = split_columns(torch.arange(10) >= 5)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model(x_BLT, *columns)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), step=st.integers(0, 10**6), kind=st.sampled_from(["block", "random"]))
def test_masks_are_a_function_of_seed_and_step(seed, step, kind):
    config = MaskingConfig(kind=kind)
    mask = masked_columns(config, 50, seed=seed, step=step)
    assert np.array_equal(mask, masked_columns(config, 50, seed=seed, step=step))
    assert 0 < mask.sum() < 50
    if kind == "random":
        assert 30 <= mask.sum() <= 35


def test_blocks_hide_what_the_paper_hides_and_reach_every_column():
    masks = np.stack([masked_columns(MaskingConfig(), 50, seed=1, step=step) for step in range(4000)])
    assert abs(masks.mean() - 0.548) < 0.01
    share = masks.mean(axis=0)
    assert share.min() > 0, "the released code never hides the last column"
    assert abs(share[0] - share[-1]) < 0.03


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["block", "random"]), records=st.integers(1, 70))
def test_masks_of_each_record_hide_equally_many(seed, kind, records):
    config = MaskingConfig(kind=kind, per_record=True)
    masks = masked_columns(config, 50, seed=seed, step=3, records=records)
    assert masks.shape == (records, 50)
    common = masked_columns(dataclasses.replace(config, per_record=False), 50, seed=seed, step=3, records=records)
    assert np.array_equal(masks[0], common), "the first is the batch's own, so the share hidden is as published"
    assert (masks.sum(axis=1) == common.sum()).all()
    if records > 10:
        assert len(np.unique(masks, axis=0)) > records // 2
    if kind == "block":
        assert (np.diff(masks, axis=1).sum(axis=1) <= 2 * config.blocks).all(), "runs stay runs"


@settings(deadline=None, max_examples=50)
@given(mask=st.lists(st.booleans(), min_size=2, max_size=20), share=st.floats(0.05, 0.95))
def test_counts_are_reached_from_any_mask(mask, share):
    count = int(len(mask) * share)
    result = with_equal_counts(np.array([mask, mask]), count, np.random.default_rng(0))
    assert (result.sum(axis=1) == count).all()
    if count <= sum(mask):
        assert (result <= np.array(mask)).all(), "none is added where some are taken away"


@pytest.mark.parametrize(
    ("config", "columns"),
    [(MaskingConfig(kind="random", ratio=(0.01, 0.05)), 10), (MaskingConfig(), 3), (MaskingConfig(), 1)],
)
def test_shares_that_hide_nothing_are_refused(config, columns):
    with pytest.raises(ValueError, match=f"of {columns} columns: change its shares"):
        masked_columns(config, columns, seed=0, step=0)


def test_blocks_longer_than_the_columns_together_still_leave_one():
    config = MaskingConfig(blocks=12, block_ratio=(0.2, 0.3))
    assert all(0 < masked_columns(config, 10, seed=2, step=step).sum() < 10 for step in range(200))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"encoder": {"dim": "768"}}, "dim='768': use a value of type int"),
        ({"encoder": {"depth": True}}, "depth=True: use a value of type int"),
        ({"encoder": {"attention": 1}}, "attention=1"),
        ({"encoder": []}, r"EncoderConfig made from \[\]"),
        ({"encoder": {"input_scale": float("inf")}}, "input_scale=inf"),
        ({"predictor": {"mlp_ratio": 0.001}}, "mlp_ratio=0.001"),
        ({"masking": {"ratio": [0.5]}}, r"ratio=\[0.5\]"),
        ({"masking": {"ratio": [0.7, 0.6]}}, "the lower first"),
    ],
)
def test_values_of_another_kind_are_refused_by_name(values, named):
    with pytest.raises(ValueError, match=named):
        from_dict(JEPAConfig, values)


def test_configs_round_trip_and_name_what_is_wrong():
    assert from_dict(JEPAConfig, json.loads(json.dumps(to_dict(TINY)))) == TINY
    assert digest(TINY) == digest(from_dict(JEPAConfig, to_dict(TINY))) != digest(JEPAConfig())
    with pytest.raises(ValueError, match="dim=10: use a multiple of heads=4"):
        EncoderConfig(dim=10, heads=4)
    with pytest.raises(ValueError, match="no field 'width'"):
        from_dict(EncoderConfig, {"width": 3})
    with pytest.raises(ValueError, match="kind='blocks'"):
        MaskingConfig(kind="blocks")  # pyright: ignore[reportArgumentType]


def test_an_encoder_file_gives_the_encoder_back(tmp_path):
    encoder = random_encoder(TINY.encoder, 7)
    save_encoder(tmp_path / "e.safetensors", encoder)
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert loaded.config == TINY.encoder
    assert not loaded.training
    torch.testing.assert_close(loaded.embed(ecgs()), encoder.embed(ecgs()), rtol=0, atol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_random_encoders_are_their_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (random_encoder(TINY.encoder, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first.patch.weight, again.patch.weight)
    assert not torch.equal(first.patch.weight, other.patch.weight)


def test_files_that_are_no_encoder_are_refused(tmp_path):
    path = tmp_path / "e.safetensors"
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(ValueError, match="not a safetensors file"):
        load_encoder(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="format None"):
        load_encoder(path)
    save_encoder(path, Encoder(TINY.encoder))
    weights = load_file(path)
    weights["patch.bias"] = torch.zeros(3)
    about = {"format": "ecg-foundry encoder 1", "config": to_dict(TINY.encoder)}
    save_file(weights, path, metadata={"encoder": json.dumps(about)})
    with pytest.raises(ValueError, match=r"'patch.bias' has shape \(3,\), the configuration asks for \(16,\)"):
        load_encoder(path)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ("{", "unreadable metadata"),
        ("[]", "format None"),
        (json.dumps({"format": FORMAT, "config": {"dim": "16"}}), "e.safetensors: dim='16'"),
        (json.dumps({"format": FORMAT, "config": 7}), "made from 7"),
        (json.dumps({"format": FORMAT, "config": {"dim": 2**22}}), "dim=4194304: an encoder has at most 16384"),
        (json.dumps({"format": FORMAT, "config": {"dim": 2**14}}), "weight 'a' has shape"),  # and no memory is taken
    ],
)
def test_metadata_of_another_hand_is_refused(tmp_path, metadata, named):
    save_file({"a": torch.zeros(1)}, tmp_path / "e.safetensors", metadata={"encoder": metadata})
    with pytest.raises(ValueError, match=named):
        load_encoder(tmp_path / "e.safetensors")


def test_take_columns_of_all_records_or_of_each():
    x = torch.arange(2 * 1 * 4 * 1).view(2, 1, 4, 1)
    assert take_columns(x, torch.tensor([1, 3])).flatten().tolist() == [1, 3, 5, 7]
    assert take_columns(x, torch.tensor([[0, 1], [2, 3]])).flatten().tolist() == [0, 1, 6, 7]

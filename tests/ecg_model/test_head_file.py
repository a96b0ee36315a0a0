"""A head's file says its kind; heads of earlier commits stay as they were; what is no head is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder
from ecg_model.serving.classify import FORMAT, CalibratedHead, classify
from tests.ecg_model.test_encoder_file import rewritten

rng = np.random.default_rng(0)
HEAD = CalibratedHead(
    labels=("AF", "normal", "other"),
    weight_CD=rng.normal(size=(3, 32)),
    bias_C=rng.normal(size=3),
    slope_C=np.full(3, 0.5),
    intercept_C=np.zeros(3),
)
POOLED = replace(HEAD, weight_CD=rng.normal(size=(3, 64)), query_HD=rng.normal(size=(2, 32)))
KINDS = {
    "mean": HEAD,
    "exclusive": replace(HEAD, exclusive=True),
    "attention": POOLED,
    "fine-tuned": replace(HEAD, band_passed=True),
    "all": replace(POOLED, exclusive=True, band_passed=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_written_and_read(tmp_path: Path, kind: str) -> None:
    head, path = KINDS[kind], tmp_path / "head.safetensors"
    path.write_bytes(head.to_bytes())
    assert head.to_bytes() == path.read_bytes(), "the same head gives the same bytes"
    loaded = CalibratedHead.load(path)
    assert (loaded.labels, loaded.exclusive, loaded.band_passed) == (head.labels, head.exclusive, head.band_passed)
    assert loaded.to_bytes() == head.to_bytes()
    encoder = random_encoder(EncoderConfig(dim=32, depth=1, heads=2, input_scale=5.0, patch_init_scale=7.0), 0)
    x_BLT = np.cumsum(rng.normal(0, 0.02, (3, 8, 3000)), axis=2)  # 12 s
    probability_BC = classify(encoder, loaded, x_BLT, sampling_rate=250.0)
    np.testing.assert_array_equal(probability_BC, classify(encoder, head, x_BLT, sampling_rate=250.0))
    assert ((probability_BC > 0) & (probability_BC < 1)).all()
    assert np.ptp(probability_BC, axis=0).min() > 0, "it depends on the ECG"
    sums = probability_BC.sum(axis=1)
    assert head.exclusive == bool(np.allclose(sums, 1.0, atol=1e-12))
    two_seconds_BC = classify(encoder, head, x_BLT[..., :500], sampling_rate=250.0)
    assert np.isfinite(two_seconds_BC).all()


def test_a_head_of_earlier_commits_keeps_its_form(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    tensors = {name: np.zeros((2, 4) if name == "weight" else 2) for name in ("weight", "bias", "slope", "intercept")}
    path.write_bytes(save(tensors, metadata={"labels": '["a", "b"]'}))
    head = CalibratedHead.load(path)
    assert (head.labels, head.exclusive, head.query_HD, head.band_passed) == (("a", "b"), False, None, False)
    assert head.to_bytes() == path.read_bytes()


def test_a_record_that_is_not_fit_has_no_softmax_either() -> None:
    encoder = random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0)
    x_BLT = np.cumsum(rng.normal(0, 0.02, (2, 8, 2500)), axis=2)
    x_BLT[1, 3] = 0.2
    probability_BC = classify(encoder, KINDS["all"], x_BLT, sampling_rate=250.0)
    assert np.isnan(probability_BC).all(axis=1).tolist() == [False, True]


def test_labels_that_exclude_each_other_keep_their_order() -> None:
    feature_BD = rng.normal(size=(50, 32))
    one, other = (KINDS[kind].probabilities(feature_BD).argmax(axis=1) for kind in ("mean", "exclusive"))
    np.testing.assert_array_equal(one, other)


def about(**changes: object) -> str:
    plain = {"format": FORMAT, "labels": ["a", "b"], "exclusive": True, "input": "whole", "pool": "mean"}
    return json.dumps({**plain, **changes})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (about(format="ecg-foundry head 3"), "has format 'ecg-foundry head 3', not 'ecg-foundry head 2': update"),
        (about(input="0.5-100 Hz"), "has input '0.5-100 Hz', which this code does not know: update it"),
        (about(input=["whole"]), "has input \\['whole'\\], which this code does not know"),
        (about(pool="max"), "has pool 'max', which this code does not know: update it"),
        (about(pool="attention"), "is no calibrated head: it holds bias, intercept, slope, weight"),
        (about(exclusive="yes"), "has exclusive 'yes', which this code does not know: update it"),
        (about(labels={"a": 1}), "labels that are not a list of names"),
        (about(labels=["a"]), "a head of 1 labels has weights of shape \\(2, 4\\): pull the model again"),
        ("[" * 100_000, "unreadable metadata"),
        ("[]", "is no calibrated head"),
        ("null", "is no calibrated head"),
    ],
)
def test_metadata_of_another_head_is_refused(tmp_path: Path, metadata: str, message: str) -> None:
    path = tmp_path / "head.safetensors"
    tensors = {name: np.zeros((2, 4) if name == "weight" else 2) for name in ("weight", "bias", "slope", "intercept")}
    path.write_bytes(save(tensors, metadata={"head": about()}))
    assert CalibratedHead.load(path).exclusive
    rewritten(path, metadata, "head")
    with pytest.raises(ValueError, match=message):
        CalibratedHead.load(path)


def test_metadata_beside_it_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    tensors = {name: np.zeros((2, 2) if name == "weight" else 2) for name in ("weight", "bias", "slope", "intercept")}
    path.write_bytes(save(tensors, metadata={"labels": '["a", "b"]', "link": "softmax"}))
    with pytest.raises(ValueError, match="has metadata link, which this code does not know: update it"):
        CalibratedHead.load(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bias", np.zeros(10_001), r"'bias' has shape \(10001,\): a head has at most \(10000,\)"),
        ("weight", np.zeros(2), r"'weight' has shape \(2,\): a head has at most"),
        ("query", np.zeros((300, 4)), r"'query' has shape \(300, 4\): a head has at most \(256, 16384\)"),
        ("query", np.zeros((2, 3)), r"weights of shape \(2, 4\) has a query of shape \(2, 3\)"),
        ("slope", np.array([1.0, np.nan]), "has numbers in 'slope' that are not finite"),
    ],
)
def test_tensors_of_no_head_are_refused(tmp_path: Path, name: str, value: np.ndarray, message: str) -> None:
    path = tmp_path / "head.safetensors"
    tensors = {name: np.zeros((2, 4) if name == "weight" else 2) for name in ("weight", "bias", "slope", "intercept")}
    pool = "attention" if name == "query" else "mean"
    path.write_bytes(save(tensors | {name: value}, metadata={"head": about(pool=pool)}))
    with pytest.raises(ValueError, match=message):
        CalibratedHead.load(path)


def test_one_key_holds_the_metadata(tmp_path: Path) -> None:
    """safetensors writes several in random order, and a product's digest is that of its bytes."""
    for head in KINDS.values():
        (tmp_path / "head").write_bytes(head.to_bytes())
        with safe_open(tmp_path / "head", framework="numpy") as file:
            assert len(file.metadata()) == 1

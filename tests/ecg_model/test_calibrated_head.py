"""The head of a classifier: probabilities of labels that go together, and of labels that exclude each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from ecg_model.serving.classify import CalibratedHead

rng = np.random.default_rng(0)
HEAD = CalibratedHead(
    labels=("AF", "normal", "other"),
    weight_CD=rng.normal(size=(3, 4)),
    bias_C=rng.normal(size=3),
    slope_C=np.full(3, 0.5),
    intercept_C=np.zeros(3),
)
EMBEDDING = rng.normal(size=(5, 4)).astype(np.float32)


def test_labels_that_exclude_each_other_sum_to_one_and_keep_their_order(tmp_path: Path) -> None:
    exclusive = replace(HEAD, exclusive=True)
    (tmp_path / "head").write_bytes(exclusive.to_bytes())
    loaded = CalibratedHead.load(tmp_path / "head")
    assert loaded.exclusive
    probability = loaded.probabilities(EMBEDDING)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    np.testing.assert_array_equal(probability.argmax(axis=1), HEAD.probabilities(EMBEDDING).argmax(axis=1))
    np.testing.assert_array_equal(probability, exclusive.probabilities(EMBEDDING))


def test_a_head_of_earlier_commits_is_read_and_written_as_before(tmp_path: Path) -> None:
    (tmp_path / "head").write_bytes(HEAD.to_bytes())
    with safe_open(tmp_path / "head", framework="numpy") as file:
        assert list(file.metadata()) == ["labels"]
    assert not CalibratedHead.load(tmp_path / "head").exclusive
    assert (HEAD.probabilities(EMBEDDING).sum(axis=1) != 1).all()


def test_a_link_of_newer_code_is_refused(tmp_path: Path) -> None:
    tensors = {name: np.zeros((2, 2) if name == "weight" else 2) for name in ("weight", "bias", "slope", "intercept")}
    (tmp_path / "head").write_bytes(save(tensors, metadata={"labels": '["a", "b"]', "link": "probit"}))
    with pytest.raises(ValueError, match="has the link 'probit', which this code does not know: update it"):
        CalibratedHead.load(tmp_path / "head")

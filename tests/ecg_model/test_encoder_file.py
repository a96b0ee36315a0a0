"""An encoder's file that asks for more than it holds is refused before any memory is taken."""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ecg_model.config import EncoderConfig, S4EncoderConfig
from ecg_model.encoder_file import FORMAT, encoder_bytes, load_encoder, random_encoder, save_encoder
from ecg_model.serving.classify import CalibratedHead

S4 = S4EncoderConfig(leads=8, rate=250, samples=50, stem_dim=4, stem_depth=2, dim=6, depth=1, state=4)


def rewritten(path: Path, metadata: str, key: str = "encoder") -> None:
    """Exchange the metadata in a safetensors file."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"][key] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("patches", 3_000_000), ("patches", 10**12), ("depth", 30_000), ("leads", 10**9), ("dim", 10**8)),
        *(("patch_size", 10**18), ("mlp_ratio", 1e300), ("input_scale", 10**400)),
    ],
)
def test_a_size_beyond_every_encoder_is_refused_at_once(tmp_path: Path, field: str, value: int) -> None:
    path = tmp_path / "encoder.safetensors"
    config = EncoderConfig(dim=32, depth=1, heads=2)
    save_encoder(path, random_encoder(config, 0))
    assert load_encoder(path).config == config
    metadata = stored_metadata(path)
    metadata["config"][field] = value
    rewritten(path, json.dumps(metadata))
    with pytest.raises(ValueError, match=re.escape(f"{field}={value}: an encoder has at most")):
        load_encoder(path)


def stored_metadata(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        size = struct.unpack("<Q", stream.read(8))[0]
        return json.loads(json.loads(stream.read(size))["__metadata__"]["encoder"])


def test_an_s4_encoder_comes_back_to_the_bit_with_its_statistics(tmp_path: Path) -> None:
    encoder = random_encoder(S4, 0).train()
    x_BLT = torch.randn(3, 8, 50)
    encoder.embed(x_BLT + 1.0)
    save_encoder(tmp_path / "encoder.safetensors", encoder.eval())
    again = load_encoder(tmp_path / "encoder.safetensors")
    assert again.config == S4
    assert not again.training
    expected = encoder.state_dict()
    assert expected.keys() == again.state_dict().keys()
    for name, value in again.state_dict().items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name
    counts = [value for name, value in expected.items() if name.endswith("num_batches_tracked")]
    assert [int(value) for value in counts] == [1, 1]
    assert encoder_bytes(again) == encoder_bytes(encoder)
    for length in (50, 20, 100):
        assert torch.equal(again.embed(x_BLT[..., :length]), encoder.embed(x_BLT[..., :length]))


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        *((name, 2**40, "an encoder has at most") for name in ("samples", "stem_dim", "stem_depth", "dim", "depth")),
        *((name, 2**40 + 1, "an encoder has at most") for name in ("stem_kernel",)),
        ("state", 2**40, "an encoder has at most"),
        ("input_scale", 1e300, "an encoder has at most"),
        ("samples", 1 << 20, "its sizes ask for"),
        ("leads", 10**9, "use 8 or 12"),
        ("rate", 10**9, "use 50 to 1000"),
        ("stem_kernel", -3, "use an odd number"),
        ("token_samples", 0, "use at least 1"),
        ("network", ["s4"], "use 's4', or leave it out"),
        ("network", "lstm", "use 's4', or leave it out"),
        ("depth", 2, "the configuration asks for"),
    ],
)
def test_an_s4_encoder_that_is_too_large_or_none_is_refused(
    tmp_path: Path, field: str, value: object, complaint: str
) -> None:
    path = tmp_path / "encoder.safetensors"
    wide = dataclasses.replace(S4, dim=128, stem_dim=128) if complaint.startswith("its sizes") else S4
    save_encoder(path, random_encoder(wide, 0))
    metadata = stored_metadata(path)
    metadata["config"][field] = value
    rewritten(path, json.dumps(metadata))
    with pytest.raises(ValueError, match=complaint):
        load_encoder(path)


def test_weights_of_whole_numbers_are_read_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, random_encoder(S4, 0))
    with safe_open(str(path), framework="pt") as stored:
        metadata, names = stored.metadata(), list(stored.keys())
        weights = {name: stored.get_tensor(name) for name in names}
    save_file({name: value.to(torch.int32) for name, value in weights.items()}, path, metadata)
    for name, value in load_encoder(path).state_dict().items():
        assert value.dtype == weights[name].dtype


def test_positions_that_no_weight_bounds_are_refused_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, random_encoder(EncoderConfig(dim=512, depth=1, heads=1, patch_size=1, mlp_ratio=1 / 512), 0))
    rewritten(path, json.dumps({"format": FORMAT, "config": {"dim": 512, "leads": 64, "patches": 4096}}))
    with pytest.raises(ValueError, match="its sizes ask for 134,217,728 numbers that no weight holds"):
        load_encoder(path)


def test_weights_that_are_too_many_are_refused_unread(tmp_path: Path) -> None:
    """A file of 64 GB on paper: what it holds beside an encoder's weights is not read."""
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0))
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    header["more"] = {"dtype": "F32", "shape": [1 << 34], "data_offsets": [len(data), len(data) + (1 << 36)]}
    text = json.dumps(header).encode()
    path.write_bytes(header_of(len(text), text, data))
    with path.open("r+b") as stream:
        stream.truncate(8 + len(text) + len(data) + (1 << 36))
    with pytest.raises(ValueError, match=r"weight 'more' has shape \(17179869184,\)"):
        load_encoder(path)


def test_metadata_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0))
    rewritten(path, "[" * 100_000)
    with pytest.raises(ValueError, match="unreadable metadata"):
        load_encoder(path)


def head_file(path: Path) -> Path:
    head = CalibratedHead(
        labels=("a", "b"), weight_CD=np.ones((2, 3)), bias_C=np.ones(2), slope_C=np.ones(2), intercept_C=np.ones(2)
    )
    path.write_bytes(head.to_bytes())
    return path


@pytest.mark.parametrize("labels", ["[" * 100_000, "{}", "[1, 2]", "no"])
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: str) -> None:
    path = head_file(tmp_path / "head.safetensors")
    rewritten(path, labels, "labels")
    with pytest.raises(ValueError, match="labels"):
        CalibratedHead.load(path)


def header_of(length: int, text: bytes = b"{}", data: bytes = b"") -> bytes:
    return struct.pack("<Q", length) + text + data


TENSORS = {
    "no header": b"",
    "a header of 2^60 bytes": header_of(1 << 60),
    "a header that ends behind the file": header_of(1000),
    "a shape of 2^62": json.dumps({"a": {"dtype": "F32", "shape": [1 << 62, 8], "data_offsets": [0, 16]}}),
    "a gap": json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [100, 116]}}),
    "two in one place": json.dumps(
        {name: {"dtype": "F32", "shape": [4], "data_offsets": [at, at + 16]} for name, at in (("a", 0), ("b", 8))}
    ),
}


@pytest.mark.parametrize("case", TENSORS)
@pytest.mark.parametrize("load", [load_encoder, CalibratedHead.load])
def test_tensors_that_are_not_as_they_say_are_refused(
    tmp_path: Path, case: str, load: Callable[[Path], object]
) -> None:
    content, path = TENSORS[case], tmp_path / "a.safetensors"
    path.write_bytes(content if isinstance(content, bytes) else header_of(len(content), content.encode(), b"\0" * 200))
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load(path)

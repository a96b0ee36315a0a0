"""An encoder's file that asks for more than it holds is refused before any memory is taken."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import FORMAT, load_encoder, random_encoder, save_encoder
from ecg_model.serving.classify import CalibratedHead


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
    with path.open("rb") as stream:
        size = struct.unpack("<Q", stream.read(8))[0]
        metadata = json.loads(json.loads(stream.read(size))["__metadata__"]["encoder"])
    metadata["config"][field] = value
    rewritten(path, json.dumps(metadata))
    with pytest.raises(ValueError, match=re.escape(f"{field}={value}: an encoder has at most")):
        load_encoder(path)


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

"""An encoder's file that asks for more than it holds is refused before any memory is taken."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder import load_encoder, random_encoder, save_encoder


def rewritten(path: Path, metadata: str) -> None:
    """Exchange the metadata in a safetensors file."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["encoder"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


@pytest.mark.parametrize(
    ("field", "value"),
    [("patches", 3_000_000), ("patches", 10**12), ("depth", 30_000), ("leads", 10**9), ("dim", 10**8)],
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
    with pytest.raises(ValueError, match=rf"{field}={value}: an encoder has at most"):
        load_encoder(path)


def test_metadata_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0))
    rewritten(path, "[" * 100_000)
    with pytest.raises(ValueError, match="unreadable metadata"):
        load_encoder(path)

"""The author's released file as an encoder of the workspace: read as data, checked, and written in our own format.

The file is a pickle, `{"encoder": state dict, "epoch": int}`, and may come from anyone. torch reads it with
`weights_only=True`, which builds tensors and containers and runs nothing that the file names. Before that its size is
held against the network's, and so is what a zip in it would unpack to.
"""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ecg_model.blocks import positions_2d
from ecg_model.config import EncoderConfig, to_dict
from ecg_model.encoder import Encoder, save_encoder
from ecg_model.reference import from_published
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.encoders.names import ENCODER_FILE, REFERENCE

PUBLISHED = {"61334869": "published multi-block"}
"""How the sha256 of a file that the author released begins, and which one that is."""

_AROUND = 2**20  # bytes of names, sizes and padding that may lie around the weights; 52,525 in the published file
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class Released:
    """What a released file holds."""

    encoder: Encoder
    epoch: int


def materialize_reference(workspace: Workspace, file: Path, config: EncoderConfig | None = None) -> Product:
    """The product `reference`: encoder.safetensors, made once of the released file with this sha256.

    config: the network's sizes, the paper's where it is None. Facts: `file` (its name), `sha256`, `published` (which of
    the author's files it is, None where it is none that we know), `epoch`, `weights` (how many). Raises ValueError for
    any other file, in one line, and leaves nothing behind.
    """
    config = config or EncoderConfig()
    _require_size(file, config)
    with file.open("rb") as stream:  # one opening: what is read is what was hashed
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()

        def make(folder: Path) -> dict[str, Any]:
            stream.seek(0)
            released = read_released(stream, config)
            save_encoder(folder / ENCODER_FILE, released.encoder)
            return {
                "file": file.name,
                "sha256": sha256,
                "published": PUBLISHED.get(sha256[:8]),
                "epoch": released.epoch,
                "weights": sum(value.numel() for value in released.encoder.parameters()),
            }

        return workspace.build(
            REFERENCE.product,
            version=versions.REFERENCE,
            config={"network": to_dict(config)},
            inputs={"file": sha256},
            make=make,
        )


def read_released(stream: BinaryIO, config: EncoderConfig) -> Released:
    """What is in an opened released file, zipped or in torch's older format; on the CPU, in eval mode.

    Raises ValueError for a file of another structure and for weights that do not fit `config`.
    """
    name = Path(stream.name).name
    _require_plain_zip(stream, name, _largest(config))
    state, epoch = _take_apart(_load(stream, name), name)
    with torch.device("meta"):  # no time for initial weights that are overwritten
        encoder = Encoder(config)
    encoder.to_empty(device="cpu")
    encoder.positions_LPD = positions_2d(config.leads, config.patches, config.dim)
    try:
        encoder.load_state_dict(from_published(state, encoder))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Released(encoder=encoder.eval(), epoch=epoch)


def _largest(config: EncoderConfig) -> int:
    """Bytes that a file with this network's weights and positions can have."""
    with torch.device("meta"):
        encoder = Encoder(config)
    return 4 * sum(value.numel() for value in (*encoder.parameters(), *encoder.buffers())) + _AROUND


def _require_size(file: Path, config: EncoderConfig) -> None:
    if not file.is_file():
        raise ValueError(f"{file} is no file: give the author's .pth")
    size, largest = file.stat().st_size, _largest(config)
    if size > largest:
        raise ValueError(
            f"{file.name} has {size:,} bytes, the published encoder of these sizes at most {largest:,}: "
            "give the author's .pth"
        )


def _require_plain_zip(stream: BinaryIO, name: str, largest: int) -> None:
    """torch stores its zips uncompressed, but would unpack a compressed one, to whatever size that has."""
    zipped = stream.read(len(_ZIP)) == _ZIP
    stream.seek(0)
    if not zipped:
        return
    try:
        with zipfile.ZipFile(stream) as found:
            members = found.infolist()
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ValueError(f"{name} is a damaged zip ({error}): fetch the author's .pth again") from error
    packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed or sum(member.file_size for member in members) > largest:
        raise ValueError(f"{name} is a zip that would unpack to more than it is: give the author's .pth as it came")
    stream.seek(0)


def _load(stream: BinaryIO, name: str) -> Any:
    """What torch reads from it without running anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice is how to trust such a file
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # a made-up pickle can have its reader fail in any way
        asked = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        wants = f": it asks for {asked[1]!r}, which is no weight and was not run" if asked else ""
        raise ValueError(f"{name} is not a file of weights{wants}: give the author's .pth") from error


def _take_apart(found: Any, name: str) -> tuple[dict[str, Tensor], int]:
    """The state dict and the epoch. dict's own methods and Tensor's own are called: a pickle may set attributes of the
    same names on what it builds."""
    if not isinstance(found, dict) or set(dict.keys(found)) != {"encoder", "epoch"}:
        raise ValueError(f"{name} does not hold 'encoder' and 'epoch' alone: give the author's .pth as it came")
    state, epoch = dict.__getitem__(found, "encoder"), dict.__getitem__(found, "epoch")
    if type(epoch) is not int or epoch < 0:
        raise ValueError(f"{name} has an epoch that is no count: give the author's .pth as it came")
    if not isinstance(state, dict):
        raise ValueError(f"{name} has an 'encoder' that is no state dict: give the author's .pth as it came")
    weights: dict[str, Tensor] = {}
    for key, value in dict.items(state):
        if type(key) is not str or type(value) not in (Tensor, nn.Parameter):
            raise ValueError(f"{name} has entries of 'encoder' that are no named weights: give the author's .pth")
        weights[key] = Tensor.detach(value)
    return weights, epoch

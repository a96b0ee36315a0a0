"""Import the author's released weights: read the file as data, check it, and write it in this project's format.

The file is a pickle, `{"encoder": state dict, "epoch": int}`, and may come from an untrusted source. torch reads it
with `weights_only=True`, which builds tensors and containers and runs nothing that the file names. Before that, its
size and the unpacked size of a zip are compared with the network's size.
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
from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import save_encoder
from ecg_model.reference import from_published
from ecg_model.settings import to_dict
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.encoders.names import ENCODER_FILE, REFERENCE
from pipelines.facts import Facts
from pipelines.formats.zip_archive import DAMAGES, open_zip

PUBLISHED = {"61334869": "published multi-block"}
"""The first eight digits of the sha256 of each file that the author released, and the file's name in reports."""

_OVERHEAD = 2**20  # bytes of names, sizes and padding beside the weights; 52,525 in the published file
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, kw_only=True)
class Released:
    """The content of a released file."""

    encoder: Encoder
    epoch: int


@dataclass(frozen=True, kw_only=True)
class ReferenceFacts(Facts):
    """The facts of the product `reference`."""

    file: str  # the released file's name
    sha256: str  # of the released file
    published: str | None = None  # which of the author's files it is (`PUBLISHED`); None if unknown
    epoch: int
    weights: int  # the number of parameters


def materialize_reference(workspace: Workspace, file: Path, config: EncoderConfig | None = None) -> Product:
    """Return the product `reference`, encoder.safetensors, built once from the released file with this sha256.

    config: the network's sizes; the paper's if None. Raises ValueError, in one line, if the file is not a released
    encoder of these sizes, and leaves nothing behind.
    """
    config = config or EncoderConfig()
    _require_size(file, config)
    with file.open("rb") as stream:  # opened once, so that the bytes that are read are those that were hashed
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()

        def make(folder: Path) -> dict[str, Any]:
            stream.seek(0)
            released = read_released(stream, config)
            save_encoder(folder / ENCODER_FILE, released.encoder)
            return ReferenceFacts(
                file=file.name,
                sha256=sha256,
                published=PUBLISHED.get(sha256[:8]),
                epoch=released.epoch,
                weights=sum(value.numel() for value in released.encoder.parameters()),
            ).to_dict()

        return workspace.build(
            REFERENCE.product,
            version=versions.REFERENCE,
            config={"network": to_dict(config)},
            inputs={"file": sha256},
            make=make,
        )


def read_released(stream: BinaryIO, config: EncoderConfig) -> Released:
    """Read an open released file, zipped or in torch's older format; the encoder is on the CPU, in eval mode.

    Raises ValueError if the file has another structure or its weights do not fit `config`.
    """
    name = Path(stream.name).name
    _require_plain_zip(stream, name, _largest(config))
    state, epoch = _unpack(_load(stream, name), name)
    with torch.device("meta"):  # skips the initial weights, which are overwritten
        encoder = Encoder(config)
    encoder.to_empty(device="cpu")
    encoder.positions_LPD = positions_2d(config.leads, config.patches, config.dim)
    try:
        encoder.load_state_dict(from_published(state, encoder))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Released(encoder=encoder.eval(), epoch=epoch)


def _largest(config: EncoderConfig) -> int:
    """Return the largest number of bytes that a file with this network's weights and positions can have."""
    with torch.device("meta"):
        encoder = Encoder(config)
    return 4 * sum(value.numel() for value in (*encoder.parameters(), *encoder.buffers())) + _OVERHEAD


def _require_size(file: Path, config: EncoderConfig) -> None:
    """Raise ValueError if the file is absent, or larger than this network's weights."""
    if not file.is_file():
        raise ValueError(f"{file} is not a file: give the author's .pth")
    size, largest = file.stat().st_size, _largest(config)
    if size > largest:
        raise ValueError(
            f"{file.name} has {size:,} bytes, the published encoder of these sizes at most {largest:,}: "
            "give the author's .pth"
        )


def _require_plain_zip(stream: BinaryIO, name: str, largest: int) -> None:
    """Raise ValueError if the file is a zip that is damaged, compressed, or larger than `largest` when unpacked.

    torch writes its zips uncompressed, but would unpack a compressed one of any size.
    """
    zipped = stream.read(len(_ZIP)) == _ZIP
    stream.seek(0)
    if not zipped:
        return
    try:
        with open_zip(stream) as archive:
            members = archive.infolist()
    except DAMAGES as error:
        raise ValueError(f"{name} is a damaged zip ({error}): fetch the author's .pth again") from error
    packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed or sum(member.file_size for member in members) > largest:
        raise ValueError(f"{name} is a compressed or too large zip: give the author's .pth, unchanged")
    stream.seek(0)


def _load(stream: BinaryIO, name: str) -> Any:
    """Return what torch reads from the file without running anything in it. Raises ValueError if torch cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice is to trust such a file
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # a crafted pickle can make its reader fail in any way
        refused = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        reason = f": it asks for {refused[1]!r}, which is not a weight and was not run" if refused else ""
        raise ValueError(f"{name} is not a file of weights{reason}: give the author's .pth") from error


def _unpack(content: Any, name: str) -> tuple[dict[str, Tensor], int]:
    """Return the state dict and the epoch. Raises ValueError if the content has another structure.

    Only methods of `dict` and `Tensor` themselves are called: a pickle may set attributes of the same names on the
    objects that it builds.
    """
    if not isinstance(content, dict) or set(dict.keys(content)) != {"encoder", "epoch"}:
        raise ValueError(f"{name} does not contain exactly 'encoder' and 'epoch': give the author's .pth, unchanged")
    state, epoch = dict.__getitem__(content, "encoder"), dict.__getitem__(content, "epoch")
    if type(epoch) is not int or epoch < 0:
        raise ValueError(f"{name}: 'epoch' is not a count: give the author's .pth, unchanged")
    if not isinstance(state, dict):
        raise ValueError(f"{name}: 'encoder' is not a state dict: give the author's .pth, unchanged")
    weights: dict[str, Tensor] = {}
    for key, value in dict.items(state):
        if type(key) is not str or type(value) not in (Tensor, nn.Parameter):
            raise ValueError(f"{name}: 'encoder' has entries that are not named weights: give the author's .pth")
        weights[key] = Tensor.detach(value)
    return weights, epoch

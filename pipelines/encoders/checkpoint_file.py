"""Read the weights of a checkpoint that torch wrote, a zip, without running anything that it names.

Its data.pkl is read as data (`inert_pickle`): of its objects, tensors alone are understood. A tensor's numbers are read
from the member of the zip that the pickle names, after what the pickle states of them was compared with its bytes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pipelines.encoders.inert_pickle import MOST_BYTES, Kept, Made, Name, read_pickle
from pipelines.formats.limits import require_size
from pipelines.formats.zip_archive import DAMAGES, open_zip
from pipelines.formatting import format_name

MOST_FILE_BYTES = 1 << 30  # ECG-CPC with its optimizer has about 40 MB, ECG-JEPA 342 MB
MOST_NUMBERS = 1 << 25  # of all weights that are read: ten times the published ECG-CPC with its head
MOST_MEMBERS_BYTES = 1 << 28  # of the members that these weights lie in
MOST_DIRECTORY = 1 << 20  # bytes of the zip's table of contents: 10,000 tensors
_MOST_AXES = 8
_MOST_STATED = 1 << 40  # of a size or a step: beyond any file, and quick to multiply
_PIECE = 1 << 20
_ZIP = b"PK"

_STORED_AS = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_UNDERSTOOD = {
    "collections.OrderedDict",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{name}" for name in _STORED_AS),
}


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor as the pickle states it; the numbers of an axis and of the storage are whole and not negative."""

    dtype: torch.dtype
    storage: str
    numbers: int
    """Of the storage."""
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def require_checkpoint(file: Path, remedy: str) -> None:
    """Raise ValueError if a file is absent, or larger than any checkpoint that is read."""
    if not file.is_file():
        raise ValueError(f"{file} is not a file: {remedy}")
    require_size(file, MOST_FILE_BYTES, "a checkpoint", remedy)


class Checkpoint:
    """An open checkpoint.

    keys: of what was saved, if that is a dictionary.
    epoch: that it states; None if it states none.
    tensors: of its `state_dict`, or of itself if it has none, by name.
    skipped: the classes and functions that it names and that no weight is made of, `module.name`, sorted.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Read what a file holds, without the numbers. Raises ValueError, in words for what the file is."""
        self._archive, self._folder = _opened(stream)
        byte_order = f"{self._folder}/byteorder"
        if byte_order in self._archive.namelist() and self._member("byteorder", _PIECE) != b"little":
            raise ValueError("a checkpoint of a machine with another byte order")
        read = read_pickle(bytes(self._member("data.pkl", MOST_BYTES)))
        saved = read.value if isinstance(read.value, dict) else {}
        state, epoch = saved.get("state_dict", saved), saved.get("epoch")
        stated = {name: _stated(name, value) for name, value in state.items()} if isinstance(state, dict) else {}
        self.keys: tuple[str, ...] = tuple(saved)
        self.epoch: int | None = epoch if _is_count(epoch) else None
        self.tensors: Mapping[str, StoredTensor] = {name: value for name, value in stated.items() if value is not None}
        self.skipped: tuple[str, ...] = tuple(sorted(read.names - _UNDERSTOOD))

    def read(self, names: Collection[str]) -> dict[str, Tensor]:
        """Return some of `tensors`.

        Raises ValueError if the file's bytes are not what a tensor states, or if they are too many.
        """
        wanted = {name: self.tensors[name] for name in names}
        numbers = sum(math.prod(tensor.shape) for tensor in wanted.values())
        if numbers > MOST_NUMBERS:
            raise ValueError(f"weights of {numbers:,} numbers, and at most {MOST_NUMBERS:,} are read")
        storages: dict[str, bytearray] = {}
        return {name: self._tensor(name, stated, storages) for name, stated in wanted.items()}

    def _tensor(self, name: str, stated: StoredTensor, storages: dict[str, bytearray]) -> Tensor:
        steps = zip(stated.shape, stated.stride, strict=True)
        empty = 0 in stated.shape
        if not empty and stated.offset + sum((size - 1) * step for size, step in steps) >= stated.numbers:
            raise ValueError(f"weight {shown(name)} reaches beyond the {stated.numbers:,} numbers that hold it")
        if stated.storage not in storages:
            left = MOST_MEMBERS_BYTES - sum(map(len, storages.values()))
            storages[stated.storage] = self._member(f"data/{stated.storage}", left)
        data = storages[stated.storage]
        if len(data) != stated.numbers * stated.dtype.itemsize:
            raise ValueError(
                f"weight {shown(name)} states {stated.numbers:,} numbers of {stated.dtype}, and has {len(data):,} bytes"
            )
        if empty:
            return torch.empty(stated.shape, dtype=stated.dtype)
        flat = torch.frombuffer(data, dtype=stated.dtype)
        return flat.as_strided(stated.shape, stated.stride, stated.offset).clone(memory_format=torch.contiguous_format)

    def _member(self, name: str, most: int) -> bytearray:
        """Return the bytes of a member of the zip. Raises ValueError if it is absent, packed, damaged or too large."""
        try:
            member = self._archive.getinfo(f"{self._folder}/{name}")
        except KeyError as error:
            raise ValueError(f"a zip that has no {shown(name)}") from error
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("a compressed zip, which torch does not write")
        if member.file_size > most:
            raise ValueError(f"a zip whose {shown(name)} has {member.file_size:,} bytes, and at most {most:,} are read")
        data = bytearray()
        try:
            with self._archive.open(member) as stream:
                while piece := stream.read(_PIECE):
                    data += piece
        except DAMAGES as error:
            raise ValueError(f"a zip whose {shown(name)} is damaged ({error})") from error
        return data


def _opened(stream: BinaryIO) -> tuple[zipfile.ZipFile, str]:
    """Open the zip, and return it with the folder that its data.pkl is in."""
    beginning = stream.read(32)
    if not beginning.startswith(_ZIP):
        found = f"begins with {shown(beginning.decode('latin-1'))}" if beginning else "is empty"
        raise ValueError(f"no zip, as torch writes it: it {found}")
    try:
        archive = open_zip(stream, MOST_DIRECTORY)
    except DAMAGES as error:
        raise ValueError(f"a zip that is damaged ({error})") from error
    names = archive.namelist()
    folders = [name.removesuffix("/data.pkl") for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if not folders:
        raise ValueError(f"a zip that torch did not write: it holds {shown(min(names, default='nothing'))}")
    if len(folders) > 1 or len(set(names)) < len(names):
        raise ValueError("a zip that holds two files of one name")
    return archive, folders[0]


def _stated(name: str, value: Any) -> StoredTensor | None:
    """Return what the pickle states of a tensor; None if the value is none. Raises ValueError for absurd numbers."""
    match value:
        case Made(of=Name(module="torch._utils", name="_rebuild_parameter"), arguments=(inner, *_)):
            value = inner
    match value:
        case Made(
            of=Name(module="torch._utils", name="_rebuild_tensor_v2"),
            arguments=(
                Kept(id=("storage", Name(module="torch", name=kind), str(storage), _, numbers)),
                offset,
                tuple(shape),
                tuple(stride),
                _,
                _,
                *view,
            ),
        ) if kind in _STORED_AS:
            stated = (numbers, offset, *shape, *stride)
            if len(shape) != len(stride) or len(shape) > _MOST_AXES or not all(map(_is_count, stated)):
                raise ValueError(f"weight {shown(name)} states a shape that no tensor has")
            if any(view):
                raise ValueError(f"weight {shown(name)} is a view of other numbers, such as their conjugates")
            return StoredTensor(
                dtype=_STORED_AS[kind], storage=storage, numbers=numbers, offset=offset, shape=shape, stride=stride
            )
    return None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STATED


def shown(name: str) -> str:
    """Return a name of the file as a message shows it: quoted, at most 80 letters, none that do not print."""
    return f"'{format_name(name[:80])}'"

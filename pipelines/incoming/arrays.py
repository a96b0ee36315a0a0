"""Read NumPy arrays and csv files of others: without pickle, and without trusting the sizes they state."""

from __future__ import annotations

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipelines.records import DropReason, RecordError

MOST_BYTES = 256 << 20  # largest record that is read from a file of its own
_MISSING = ["", "nan", "NaN", "NA", "null"]


@dataclass(frozen=True)
class _Head:
    """The header of an .npy. offset: position of its numbers in the file."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_npy(path: Path) -> NDArray[Any]:
    """Map the array in an .npy file into memory, unread.

    Raises RecordError if it is not an array of numbers, or if the file is too short or too long for it.
    """
    with path.open("rb") as stream:
        head = _head(stream, path.name)
    _check_size(head, path.stat().st_size, path.name)
    order = "F" if head.fortran else "C"
    return np.memmap(path, head.dtype, "r", head.offset, head.shape, order)


class Npz:
    """An .npz, opened for reading. Raises RecordError if it is not one, or if its arrays' names are not unique."""

    def __init__(self, path: Path) -> None:
        self._where = path.name
        with _damage_explained(self._where):
            self._archive = zipfile.ZipFile(path)
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]
        if not self.names or len(set(self.names)) != len(self.names):
            self._archive.close()
            raise _unreadable(self._where, f"{len(self.names)} arrays: each needs a name of its own")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._archive.close()

    def read(self, name: str) -> NDArray[Any]:
        """Read one array. Raises RecordError as `open_npy` does, and if it is larger than MOST_BYTES."""
        where = f"{self._where}, array {name!r}"
        with _damage_explained(where):
            return _member(self._archive, f"{name}.npy", where)


def _member(archive: zipfile.ZipFile, member: str, where: str) -> NDArray[Any]:
    size = archive.getinfo(member).file_size
    if size > MOST_BYTES:
        raise _unreadable(where, f"{size:,} bytes: at most {MOST_BYTES >> 20} MiB are read of one record")
    with archive.open(member) as stream:
        head = _head(stream, where)
        _check_size(head, size, where)
        data = stream.read(head.bytes)
    if len(data) != head.bytes:
        raise _unreadable(where, f"{len(data)} of {head.bytes} bytes: it is cut short")
    return np.frombuffer(data, head.dtype).reshape(head.shape, order="F" if head.fortran else "C")


def read_csv(path: Path) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return the column names of a csv and its numbers (columns, rows), NaN for an empty field.

    Raises RecordError if it is too large or not a csv of numbers.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise _unreadable(path.name, f"{size:,} bytes: at most {MOST_BYTES >> 20} MiB are read of one record")
    try:
        with pa_csv.open_csv(path) as stream:
            names = stream.schema.names
        options = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.float64()), null_values=_MISSING)
        # A blank line is a gap in the recording: if it were skipped, the samples around it would be joined.
        gaps = pa_csv.ParseOptions(ignore_empty_lines=False)
        table = pa_csv.read_csv(path, convert_options=options, parse_options=gaps)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(
            path.name, f"not a csv of numbers ({str(error)[:120]}): a column a lead, ',' between and '.' as decimal"
        ) from error
    return tuple(name.strip() for name in names), np.stack([column.to_numpy() for column in table.columns])


def _head(stream: IO[bytes], where: str) -> _Head:
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise _unreadable(where, f"not a NumPy array ({str(error)[:120]}): save it with numpy.save") from error
    if dtype.hasobject:
        raise _unreadable(where, "an array of Python objects, which is a pickle: save an array of numbers")
    if dtype.kind not in "iuf":
        raise _unreadable(where, f"an array of {dtype}: numbers, whole or not, are needed")
    return _Head(shape, fortran, dtype, stream.tell())


def _check_size(head: _Head, size: int, where: str) -> None:
    """Raise RecordError if a header states more, or less, than the file holds."""
    if min(head.shape, default=0) < 1 or size != head.offset + head.bytes:
        raise _unreadable(
            where, f"shape {head.shape} of {head.dtype} needs {head.bytes:,} bytes, it has {size - head.offset:,}"
        )


# What zipfile and its decompressors raise for damaged or forged archives.
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    KeyError,
)


@contextmanager
def _damage_explained(where: str) -> Iterator[None]:
    try:
        yield
    except RecordError:
        raise
    except _DAMAGES as error:
        raise _unreadable(where, f"not a readable .npz ({str(error)[:120]}): save it with numpy.savez") from error


def _unreadable(where: str, what: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_SIGNAL, f"{where}: {what}")

"""Read NumPy arrays and csv files of others: without pickle, and without trusting the sizes they state."""

from __future__ import annotations

import csv
import errno
import math
import re
import tokenize
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.lib import format as npy
from numpy.typing import NDArray

from ecg_model.leads import known_leads
from pipelines.formats.limits import COLUMN_NAMES_BYTES, LEADS, MIB, RECORD_BYTES, BoundedStream, require_size
from pipelines.formats.zip_archive import DAMAGES, open_zip
from pipelines.incoming.description import MOST_SAMPLES
from pipelines.records import DropReason, RecordError

_UNREADABLE = DropReason.UNREADABLE_SIGNAL
_NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?", re.ASCII)
_MISSING = ["", "nan", "NaN", "NA", "null"]
_PIECE = 1 * MIB  # of an array or a csv, read at once


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
    try:
        return np.memmap(path, head.dtype, "r", head.offset, head.shape, order)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise _unreadable(path.name, f"{head.bytes:,} bytes do not fit this process: split it") from error


class Npz:
    """An .npz, opened for reading. Raises RecordError if it is not one, or if its arrays' names are not unique."""

    def __init__(self, path: Path) -> None:
        self._where = path.name
        with _damage_explained(self._where):
            self._stream = path.open("rb")
            try:
                self._archive = open_zip(self._stream)
            except BaseException:
                self._stream.close()
                raise
        self.names = [name.removesuffix(".npy") for name in self._archive.namelist()]
        if not self.names or len(set(self.names)) != len(self.names):
            self.close()
            raise _unreadable(self._where, f"{len(self.names)} arrays: each needs a name of its own")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._archive.close()
        self._stream.close()

    def read(self, name: str) -> NDArray[Any]:
        """Read one array. Raises RecordError as `open_npy` does, and if it is larger than RECORD_BYTES."""
        where = f"{self._where}, array {name!r}"
        with _damage_explained(where):
            return _member(self._archive, f"{name}.npy", where)


def _member(archive: zipfile.ZipFile, member: str, where: str) -> NDArray[Any]:
    size = archive.getinfo(member).file_size
    if size > RECORD_BYTES:
        raise _unreadable(where, f"{size:,} bytes: at most {RECORD_BYTES // MIB} MiB are read of one record")
    with archive.open(member) as stream:
        head = _head(cast(BinaryIO, stream), where)
        _check_size(head, size, where)
        data = bytearray()
        while len(data) < head.bytes and (piece := stream.read(min(_PIECE, head.bytes - len(data)))):
            data += piece
    if len(data) != head.bytes:
        raise _unreadable(where, f"{len(data)} of {head.bytes} bytes: it is cut short")
    return np.frombuffer(data, head.dtype).reshape(head.shape, order="F" if head.fortran else "C")


@dataclass(frozen=True)
class Csv:
    """A csv of numbers. x_LT: float64 (columns, rows), at most MOST_SAMPLES rows, NaN for an empty field."""

    names: tuple[str, ...] | None
    """The names in its first line. None if it begins with numbers."""
    x_LT: NDArray[np.float64]
    rows: int
    """How many the file has."""


def read_csv(path: Path) -> Csv:
    """Read a csv with a column a lead. Raises RecordError if it is not one, or too large.

    The fields are separated by commas; by semicolons or tabs if the first line has no comma beside them. Between
    semicolons or tabs, numbers may have a decimal comma.
    """
    require_size(path, RECORD_BYTES, "one record", "split it", lambda what: RecordError(_UNREADABLE, what))
    first = _first_lines(path)
    separator = next((each for each in ";\t" if each in first[0]), ",")
    fields = _fields(path, first[0], separator)
    named = not all(_NUMBER.fullmatch(field.strip()) for field in fields)
    columns = [str(at) for at in range(len(fields))]  # two columns may have one name
    decimal = "," if separator != "," and "," in first[-1] and "." not in first[-1] else "."
    kept: list[NDArray[np.float64]] = []
    rows = 0
    try:
        with pa_csv.open_csv(
            path,
            pa_csv.ReadOptions(column_names=columns, skip_rows=int(named), block_size=_PIECE),
            # A blank line is a gap in the recording: if it were skipped, the samples around it would be joined.
            pa_csv.ParseOptions(delimiter=separator, ignore_empty_lines=False),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.float64()), null_values=_MISSING, decimal_point=decimal
            ),
        ) as stream:
            for block in stream:
                if rows < MOST_SAMPLES:
                    kept.append(np.stack([column.to_numpy(zero_copy_only=False) for column in block.columns]))
                rows += block.num_rows
    except pa.ArrowException as error:
        raise _no_csv(path, error) from error
    x_LT = np.concatenate([np.empty((len(columns), 0)), *kept], axis=1)[:, :MOST_SAMPLES]
    return Csv(tuple(field.strip() for field in fields) if named else None, x_LT, rows)


def _first_lines(path: Path) -> list[str]:
    """Return the first line, and the second if it is short enough, before anything is allocated for each column."""
    with path.open("rb") as stream:
        head = stream.read(COLUMN_NAMES_BYTES + 1)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _unreadable(path.name, "it is UTF-16 text, such as Excel's `Unicode text`: save it as UTF-8 csv")
    lines = re.split(rb"\r\n|\r|\n", head, maxsplit=2)[:2]
    if len(lines[0]) > COLUMN_NAMES_BYTES or max(map(lines[0].count, (b",", b";", b"\t"))) >= LEADS:
        begins = tuple(re.split(rb"[,;\t]", line, maxsplit=1)[0].decode("latin-1") for line in lines)
        if any(known_leads(begins)):
            raise _unreadable(path.name, "a row a lead: rows and columns are swapped: a column a lead is needed")
        raise _unreadable(path.name, f"its first line names more than {LEADS} columns: a column a lead is needed")
    try:
        return [line.decode("utf-8-sig") for line in lines]
    except UnicodeDecodeError as error:
        raise _no_csv(path, error) from error


def _fields(path: Path, line: str, separator: str) -> list[str]:
    try:
        fields = next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise _no_csv(path, error) from error
    if not fields:  # Arrow would take them from the lines below
        raise _no_csv(path, ValueError("its first line is empty"))
    return fields


def _no_csv(path: Path, error: Exception) -> RecordError:
    return _unreadable(
        path.name, f"not a csv of numbers ({str(error)[:120]}): a column a lead, ',' between and '.' as decimal"
    )


def _head(stream: BinaryIO, where: str) -> _Head:
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read_header(BoundedStream(stream, _PIECE))
    except (OSError, ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError) as error:
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


@contextmanager
def _damage_explained(where: str) -> Iterator[None]:
    try:
        yield
    except RecordError:
        raise
    except (OSError, *DAMAGES) as error:
        raise _unreadable(where, f"not a readable .npz ({str(error)[:120]}): save it with numpy.savez") from error


def _unreadable(where: str, what: str) -> RecordError:
    return RecordError(_UNREADABLE, f"{where}: {what}")

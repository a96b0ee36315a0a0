"""HDF5 files of others: numbers and text that lie in the file itself, read in pieces of limited size.

Everything wrong with a file is a RecordError.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from pipelines.formats.limits import (
    CHUNK_BYTES,
    COLUMN_BYTES,
    DENSEST,
    MIB,
    PIECE_BYTES,
    TEXT_BYTES,
    BoundedStream,
)
from pipelines.records import DropReason, RecordError

_HEAP = b"GCOL\1\0\0\0"
_HEAP_HEAD = _OBJECT_HEAD = 16
_TEXTS = 16  # texts of any length that are read at once: each may fill a piece
_ATTRIBUTE_VALUES = 64
_ATTRIBUTE_BYTES = 64 << 10  # as HDF5 stores them unless it is told to store larger ones


@contextmanager
def opened(stream: BinaryIO, where: str) -> Iterator[Hdf5]:
    """Open an HDF5 file for reading."""
    size = stream.seek(0, os.SEEK_END)
    bounded = _HeapsChecked(stream, PIECE_BYTES)
    with _explained(where):
        # A chunk that is kept is unpacked once, whatever the blocks in which it is read.
        file = h5py.File(bounded, "r", rdcc_nbytes=CHUNK_BYTES)
    try:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise _wrong(where, "its offsets and lengths are not of eight bytes: write it with h5py's defaults")
        yield Hdf5(file, bounded, size, where)
    finally:
        file.close()


class _HeapsChecked(BoundedStream):
    """A stream of an HDF5 file in which each heap of texts is walked before HDF5 does.

    HDF5 2.0 follows the sizes in a heap without looking whether they lead to its end: a size of 0, or one that
    overflows, is a loop without end. Layout: section III.E of the HDF5 file format, with lengths of eight bytes.
    """

    def readinto(self, buffer: Any) -> int:
        at = self.tell()
        count = super().readinto(buffer)
        if self.most == PIECE_BYTES and bytes(buffer[: len(_HEAP)]) == _HEAP:
            self._check_heap(at)
        return count

    def _check_heap(self, at: int) -> None:
        """Raise OSError unless the objects of the heap at a position fill it."""
        self.seek(at)
        (size,) = struct.unpack_from("<Q", self.read(_HEAP_HEAD), 8)
        self.seek(at)
        heap, place = self.read(size), _HEAP_HEAD
        while place + _OBJECT_HEAD <= len(heap):
            number, length = struct.unpack_from("<H6xQ", heap, place)
            if number:  # 0 is the free space, whose length counts its head
                length = _OBJECT_HEAD + (length + 7) // 8 * 8
            if not _OBJECT_HEAD <= length <= len(heap) - place:
                raise OSError(f"a heap of texts has an object of {length:,} bytes, {len(heap) - place:,} are left")
            place += length


class Hdf5:
    """A file that is open. Its methods raise RecordError for whatever is wrong."""

    def __init__(self, file: h5py.File, stream: BoundedStream, size: int, where: str) -> None:
        self.file = file
        self._stream = stream
        self._size = size
        self._where = where
        self._text_left = TEXT_BYTES

    def dataset(self, path: str) -> h5py.Dataset | None:
        """Return a dataset that lies in the file itself and can be unpacked, or None if there is none of that name.

        Refused are soft and external links, external storage and virtual datasets, which would read other files.
        """
        with _explained(self._where):
            item: Any = self.file
            for name in path.strip("/").split("/"):
                link: Any = item.get(name, getlink=True) if isinstance(item, h5py.Group) else None
                if link is None:
                    return None
                if not isinstance(link, h5py.HardLink):
                    raise self._wrong(f"{path} is a link: the numbers themselves are needed")
                item = item[name]
            if not isinstance(item, h5py.Dataset):
                return None
            if item.external or item.is_virtual:
                raise self._wrong(f"{path} lies in another file: the numbers themselves are needed")
            self._check_stored(item)
            return item

    def _check_stored(self, values: h5py.Dataset) -> None:
        """Raise RecordError if a dataset cannot be unpacked, or states more than is stored of it."""
        name, plan = values.name, values.id.get_create_plist()
        for at in range(plan.get_nfilters()):
            code, _, _, called = plan.get_filter(at)
            if not h5py.h5z.filter_avail(code):
                raise self._wrong(f"{name} is packed by filter {code} ({called[:40]!r}): write it with gzip or without")
        stored = min(values.id.get_storage_size(), self._size)
        if values.nbytes > DENSEST * stored:
            raise self._wrong(
                f"{name} of shape {values.shape} states {values.nbytes:,} bytes, {stored:,} are stored: write all of it"
            )
        if values.chunks is not None and math.prod(values.chunks) * values.dtype.itemsize > CHUNK_BYTES:
            raise self._wrong(f"{name} has chunks {values.chunks}: at most {CHUNK_BYTES // MIB} MiB a chunk are read")

    def rows(self, values: h5py.Dataset, wanted: tuple[slice, ...] | slice) -> NDArray[Any]:
        """Read a part of a dataset of numbers. Raises RecordError if it is damaged, though others may not be."""
        self._stream.most = 2 * CHUNK_BYTES  # what is packed may be a little larger than unpacked
        try:
            return values[wanted]
        except _DAMAGES as error:
            raise self._wrong(f"{values.name} cannot be read here ({str(error)[:120]}): write it again") from error
        finally:
            self._stream.most = PIECE_BYTES

    def column(self, values: h5py.Dataset, count: int) -> list[Any]:
        """Read a dataset of `count` values: text, numbers or booleans."""
        name = values.name
        if values.shape != (count,):
            raise self._wrong(f"{name} has shape {values.shape}: one value for each of {count:,} records is needed")
        if values.nbytes > COLUMN_BYTES:
            raise self._wrong(f"{name} has {values.nbytes:,} bytes: at most {COLUMN_BYTES:,} are read of a column")
        text = h5py.check_string_dtype(values.dtype)
        if text is None and values.dtype.kind not in "iufb":
            raise self._wrong(f"{name} is {str(values.dtype)[:60]}: text or numbers are needed")
        if text is None:
            return self.rows(values, slice(None)).tolist()
        step = _TEXTS if text.length is None else max(1, MIB // text.length)
        found: list[str] = []
        with _explained(self._where):
            for start in range(0, count, step):
                block = np.asarray(values.asstr()[start : start + step]).tolist()
                self._text_left -= sum(len(item.encode("utf-8", "surrogatepass")) for item in block)
                if self._text_left < 0:
                    raise self._wrong(f"its columns hold more than {TEXT_BYTES // MIB} MiB of text: split the file")
                found += block
        return found

    def attributes(self, holder: h5py.File | h5py.Dataset, names: tuple[str, ...]) -> dict[str, Any]:
        """Return those of the named attributes that a file or a dataset has, as JSON values."""
        fields: dict[str, Any] = {}
        with _explained(self._where):
            for name in names:
                if name not in holder.attrs:
                    continue
                stored = holder.attrs.get_id(name)
                values = math.prod(stored.shape)
                known = stored.dtype.kind != "O" or h5py.check_string_dtype(stored.dtype) is not None
                if not known or values > _ATTRIBUTE_VALUES or values * stored.dtype.itemsize > _ATTRIBUTE_BYTES:
                    raise self._wrong(
                        f"attribute {name} is {str(stored.dtype)[:60]} {stored.shape}: at most {_ATTRIBUTE_VALUES} "
                        "texts or numbers are needed"
                    )
                fields[name] = _plain(holder.attrs[name])
        return fields

    def _wrong(self, what: str) -> RecordError:
        return _wrong(self._where, what)


_DAMAGES = (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError)


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn whatever h5py raises for a damaged file into a RecordError."""
    try:
        yield
    except RecordError:
        raise
    except _DAMAGES as error:
        raise _wrong(where, f"it cannot be read as HDF5 ({str(error)[:120]})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _wrong(where: str, what: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_SIGNAL, f"{where}: {what}")

"""Read HDF5 files of others: named numbers in the file itself, and its attributes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipelines.incoming.description import DATASETS, PEOPLE_FIELDS, SIGNAL_FIELDS
from pipelines.records import DropReason, RecordError

SIGNALS = "signals"
NAMES = (SIGNALS, *PEOPLE_FIELDS)
MOST_RECORDS = 1_000_000
_MOST_CHUNK = 256 << 20
# Deflate compresses at most this much: a file that states more bytes than this many times its size is forged.
_DENSEST = 1032
_NAME = re.compile(r"/?[\w -][\w .-]*(/[\w -][\w .-]*)*", re.ASCII)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Whatever h5py raises for a damaged file becomes a RecordError, here and inside the block.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, RecordError):
            raise
        raise _wrong(path.name, f"it cannot be read as HDF5 ({str(error)[:120]})") from error


def names_of(fields: Mapping[str, Any], where: str) -> dict[str, str]:
    """Return which dataset holds what: the standard names, changed by the field `datasets`."""
    given = fields.get(DATASETS, {})
    if not isinstance(given, dict) or set(given) - set(NAMES):
        raise _wrong(where, f"{DATASETS}: it maps any of {', '.join(NAMES)} to the name of a dataset")
    for name, path in given.items():
        if not isinstance(path, str) or not _NAME.fullmatch(path):
            raise _wrong(
                where, f"{DATASETS}: {name} {str(path)[:60]!r} is no plain name of a dataset, as in 'ecg/data'"
            )
    return {name: given.get(name, name) for name in NAMES}


def dataset(file: h5py.File, path: str, where: str) -> h5py.Dataset | None:
    """Return a dataset that lies in the file itself, or None if there is none of that name.

    Raises RecordError for soft and external links, external storage and virtual datasets, which would read other files.
    """
    item: Any = file
    for name in path.strip("/").split("/"):
        link: Any = item.get(name, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise _wrong(where, f"{path} is a link: the numbers themselves are needed")
        item = item[name]
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external or item.is_virtual:
        raise _wrong(where, f"{path} lies in another file: the numbers themselves are needed")
    return item


def check_signals(signals: h5py.Dataset, size: int, where: str) -> None:
    """Raise RecordError unless it is numbers (records, leads, samples) that a file of `size` bytes can hold."""
    if signals.ndim != 3 or signals.dtype.kind not in "iuf" or min(signals.shape) < 1:
        raise _wrong(where, f"{signals.name} is {signals.dtype} {signals.shape}: numbers with three axes are needed")
    if signals.nbytes > _DENSEST * size:
        raise _wrong(where, f"{signals.name} of shape {signals.shape} cannot be in a file of {size:,} bytes")
    if signals.chunks is not None and math.prod(signals.chunks) * signals.dtype.itemsize > _MOST_CHUNK:
        raise _wrong(where, f"{signals.name} has chunks {signals.chunks}: at most {_MOST_CHUNK >> 20} MiB a chunk")


def rows(signals: h5py.Dataset, wanted: tuple[slice, ...], where: str) -> NDArray[Any]:
    """Read some of the signals. Raises RecordError if they are damaged, though others may not be."""
    try:
        return signals[wanted]
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise _wrong(where, f"{signals.name} cannot be read here ({str(error)[:120]}): write it again") from error


def column(values: h5py.Dataset, where: str) -> list[Any]:
    """Read a dataset of one value per record: text or numbers."""
    if values.ndim != 1 or values.shape[0] > MOST_RECORDS:
        raise _wrong(where, f"{values.name} has shape {values.shape}: one value a record is needed")
    if h5py.check_string_dtype(values.dtype) is not None:
        return np.asarray(values.asstr()[:]).tolist()
    if values.dtype.kind not in "iuf":
        raise _wrong(where, f"{values.name} is {values.dtype}: text or numbers are needed")
    return values[:].tolist()


def attributes(holder: h5py.File | h5py.Dataset, where: str) -> dict[str, Any]:
    """Return the signal fields among the attributes of a file or a dataset, as JSON values."""
    fields: dict[str, Any] = {}
    for name in SIGNAL_FIELDS:
        if name not in holder.attrs:
            continue
        stored = holder.attrs.get_id(name)
        if math.prod(stored.shape) > 1000 or (
            stored.dtype.kind == "O" and h5py.check_string_dtype(stored.dtype) is None
        ):
            raise _wrong(where, f"attribute {name} is {stored.dtype} {stored.shape}: text or numbers are needed")
        fields[name] = _plain(holder.attrs[name])
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _wrong(where: str, what: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_SIGNAL, f"{where}: {what}")

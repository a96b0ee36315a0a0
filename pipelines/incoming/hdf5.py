"""HDF5 files as somebody else wrote them: named numbers in the file itself, and what its attributes say."""

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
# Deflate packs no tighter: a file that promises more than this many times its size holds no ECGs.
_DENSEST = 1032
_NAME = re.compile(r"/?[\w -][\w .-]*(/[\w -][\w .-]*)*", re.ASCII)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file for reading; whatever h5py raises for a damaged one is a RecordError, here and inside the block."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, RecordError):
            raise
        raise _wrong(path.name, f"it cannot be read as HDF5 ({str(error)[:120]})") from error


def names_of(said: Mapping[str, Any], where: str) -> dict[str, str]:
    """Which dataset holds what: the standard names, changed by the field `datasets`."""
    given = said.get(DATASETS, {})
    if not isinstance(given, dict) or set(given) - set(NAMES):
        raise _wrong(where, f"{DATASETS}: it maps any of {', '.join(NAMES)} to the name of a dataset")
    for name, path in given.items():
        if not isinstance(path, str) or not _NAME.fullmatch(path):
            raise _wrong(
                where, f"{DATASETS}: {name} {str(path)[:60]!r} is no plain name of a dataset, as in 'ecg/data'"
            )
    return {name: given.get(name, name) for name in NAMES}


def dataset(file: h5py.File, path: str, where: str) -> h5py.Dataset | None:
    """A dataset that lies in the file itself; None where there is none of that name.

    RecordError for soft and external links, external storage and virtual datasets, which would read other files.
    """
    found: Any = file
    for name in path.strip("/").split("/"):
        link: Any = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise _wrong(where, f"{path} is a link: the numbers themselves are needed")
        found = found[name]
    if not isinstance(found, h5py.Dataset):
        return None
    if found.external or found.is_virtual:
        raise _wrong(where, f"{path} lies in another file: the numbers themselves are needed")
    return found


def check_signals(signals: h5py.Dataset, size: int, where: str) -> None:
    """RecordError for what is not numbers (records, leads, samples) that a file of `size` bytes can hold."""
    if signals.ndim != 3 or signals.dtype.kind not in "iuf" or min(signals.shape) < 1:
        raise _wrong(where, f"{signals.name} is {signals.dtype} {signals.shape}: numbers with three axes are needed")
    if signals.nbytes > _DENSEST * size:
        raise _wrong(where, f"{signals.name} of shape {signals.shape} cannot be in a file of {size:,} bytes")
    if signals.chunks is not None and math.prod(signals.chunks) * signals.dtype.itemsize > _MOST_CHUNK:
        raise _wrong(where, f"{signals.name} has chunks {signals.chunks}: at most {_MOST_CHUNK >> 20} MiB a chunk")


def rows(signals: h5py.Dataset, wanted: tuple[slice, ...], where: str) -> NDArray[Any]:
    """Some of the signals; RecordError where they are damaged, though others may not be."""
    try:
        return signals[wanted]
    except (OSError, RuntimeError, ValueError, MemoryError) as error:
        raise _wrong(where, f"{signals.name} cannot be read here ({str(error)[:120]}): write it again") from error


def column(found: h5py.Dataset, where: str) -> list[Any]:
    """A dataset of one value a record: text or numbers."""
    if found.ndim != 1 or found.shape[0] > MOST_RECORDS:
        raise _wrong(where, f"{found.name} has shape {found.shape}: one value a record is needed")
    if h5py.check_string_dtype(found.dtype) is not None:
        return np.asarray(found.asstr()[:]).tolist()
    if found.dtype.kind not in "iuf":
        raise _wrong(where, f"{found.name} is {found.dtype}: text or numbers are needed")
    return found[:].tolist()


def attributes(holder: h5py.File | h5py.Dataset, where: str) -> dict[str, Any]:
    """The signal fields among the attributes of a file or a dataset, as JSON values."""
    said: dict[str, Any] = {}
    for name in SIGNAL_FIELDS:
        if name not in holder.attrs:
            continue
        kept = holder.attrs.get_id(name)
        if math.prod(kept.shape) > 1000 or (kept.dtype.kind == "O" and h5py.check_string_dtype(kept.dtype) is None):
            raise _wrong(where, f"attribute {name} is {kept.dtype} {kept.shape}: text or numbers are needed")
        said[name] = _plain(holder.attrs[name])
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.item() if isinstance(value, np.generic) else value


def _wrong(where: str, what: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_SIGNAL, f"{where}: {what}")

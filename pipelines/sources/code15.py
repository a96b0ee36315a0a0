"""CODE-15%: 345,779 ECGs of 233,770 patients at 400 Hz, Zenodo record 4916206, in 18 parts.

Part i is `exams_part<i>.zip` with one `exams_part<i>.hdf5`: `exam_id` (N,) and `tracings` float32 (N, 4096, 12), in
millivolt according to the authors. exams.csv has the rest, by exam_id and in another order. Tracings shorter than 4096
samples are padded with zeros on both sides, and a part may end with rows without an exam.
Shapes: N exams, L leads, T samples.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipelines.records import DroppedRecord, DropReason, Record, Sex
from pipelines.sources.base import Fetch, RemoteFile, Role, Source, read_table
from pipelines.sources.demographics import age_of

_RECORD = "4916206"
_ROOT = f"zenodo.org/records/{_RECORD}"
_TABLE = f"{_ROOT}/files/exams.csv"
# The paths that `wget -r` gives the API's answer, without and with --adjust-extension.
_LISTS = (f"zenodo.org/api/records/{_RECORD}", f"zenodo.org/api/records/{_RECORD}.json")
_PARTITIONS = tuple(str(n) for n in range(18))

RATE = 400.0
SAMPLES = 4096
LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "normal_ecg")
_COLUMNS = ("exam_id", "age", "is_male", "patient_id", *LABELS)
_SEX: dict[str, Sex] = {"True": "male", "False": "female"}
_MOST_EXAMS = 1_000_000  # a part has at most 20,001; a damaged file may claim any number
_BLOCK = 64  # exams read at a time: 12 MiB


def _list_files(fetch: Fetch) -> list[RemoteFile]:
    for path in _LISTS:
        try:
            text = fetch(path)
        except FileNotFoundError:
            continue
        return parse_api(text, path)
    raise FileNotFoundError(_LISTS[0])


def parse_api(text: bytes, path: str) -> list[RemoteFile]:
    """Return the files in an answer of Zenodo's API, with size and md5. Raises ValueError if it has another form."""
    try:
        return [
            RemoteFile(f"{_ROOT}/files/{_plain(file['key'])}", file["checksum"], int(file["size"]))
            for file in json.loads(text)["files"]
        ]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not the answer of Zenodo's API for record {_RECORD} ({error!r}): fetch it again"
        ) from error


def _plain(key: str) -> str:
    if "/" in key:
        raise ValueError(f"file {key!r} in Zenodo's list: a name without a folder is needed")
    return key


def _partition_of(path: str) -> str | None:
    part = re.fullmatch(rf"{_ROOT}/files/exams_part(\d+)\.zip", path, re.ASCII)
    return part[1] if part else None


def _read(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
    for file in files:
        if _partition_of(file.path) == partition:
            yield from read_part(root / file.path, root / _TABLE)


def read_part(archive: Path, table: Path) -> Iterator[Record | DroppedRecord]:
    """Yield the exams of a part in its order, each joined to its row of the table by exam_id.

    Memory is a few blocks, whatever the part's size. Raises ValueError if archive or table cannot be used.
    """
    with _extracted(archive) as stream, _opened(stream, archive) as (ids, tracings):
        ids_N = _rows(ids, slice(None), archive)
        exams = set(ids_N.tolist())
        rows = {exam: row for row in read_table(table, _COLUMNS) if (exam := _exam_id(row, table)) in exams}
        for start in range(0, len(ids_N), _BLOCK):
            block = slice(start, start + _BLOCK)
            for exam, x_TL in zip(ids_N[block].tolist(), _rows(tracings, block, archive), strict=True):
                yield _exam(exam, x_TL, rows.get(exam))


def _exam(exam: int, x_TL: NDArray[np.float32], row: dict[str, str] | None) -> Record | DroppedRecord:
    """Return the record of a tracing (T, L) and its row of the table; dropped without a row or with zeros only."""
    recorded_T: NDArray[np.bool_] = (x_TL != 0).any(axis=1)  # NaN counts as recorded
    if row is None:
        filler = "; a row of zeros without an exam" if not recorded_T.any() else ""
        return DroppedRecord(str(exam), DropReason.NOT_LISTED, f"exam_id {exam} is not in exams.csv{filler}")
    if not recorded_T.any():
        return DroppedRecord(str(exam), DropReason.FLAT_LEAD, "all leads are zero throughout")
    # Padding is zero in all leads; a single lead may be disconnected for a while.
    before, after = int(recorded_T.argmax()), int(recorded_T[::-1].argmax())
    x_LT = np.ascontiguousarray(x_TL[before : len(x_TL) - after].T, np.float32)
    x_LT[~np.isfinite(x_LT)] = np.nan
    age, notes = age_of(row["age"])
    if before or after:
        notes += (f"zero padding trimmed: {before} samples before, {after} after",)
    return Record(
        record_id=str(exam),
        signal_LT=x_LT,
        leads=LEADS,
        rate=RATE,
        patient_id=row["patient_id"].strip() or None,
        age=age,
        sex=_SEX.get(row["is_male"].strip()),
        labels=tuple(label for label in LABELS if row[label].strip() == "True"),
        notes=notes,
    )


def _exam_id(row: dict[str, str], table: Path) -> int:
    try:
        return int(row["exam_id"])
    except ValueError as error:
        raise ValueError(
            f"{table}: exam_id {row['exam_id'][:40]!r} is no whole number: take the table again"
        ) from error


@contextmanager
def _extracted(archive: Path) -> Iterator[IO[bytes]]:
    """Extract the one HDF5 file of an archive, as a seekable stream on disk.

    The stream has no name, so that a crash leaves nothing behind. It lies in the archive's folder, on the disk for
    data; if that is read-only (another person's mirror), in the folder for temporary files.
    """
    folder = archive.parent if os.access(archive.parent, os.W_OK) else None
    with tempfile.TemporaryFile(dir=folder) as stream:
        try:
            with zipfile.ZipFile(archive) as container, container.open(_member(container, archive)) as member:
                shutil.copyfileobj(member, stream, 1 << 20)
        except FileNotFoundError as error:
            raise ValueError(f"{archive}: the part is missing: download it, or complete the mirror") from error
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise  # of the disk; EINVAL is a seek before the file's start, which a damaged zip directory causes
            raise ValueError(
                f"{archive}: not a readable zip ({error}): delete it and download it again, or correct the mirror"
            ) from error
        stream.seek(0)
        yield stream


def _member(container: zipfile.ZipFile, archive: Path) -> str:
    """Return the name of the archive's only HDF5 file. Raises ValueError if there is not one, or it is in a folder."""
    names = [name for name in container.namelist() if name.endswith((".hdf5", ".h5"))]
    if len(names) != 1 or PurePosixPath(names[0]).name != names[0] or "\\" in names[0]:
        raise ValueError(f"{archive}: has {names or 'no HDF5 file'}: exactly one `exams_part<i>.hdf5` is needed")
    return names[0]


@contextmanager
def _opened(stream: IO[bytes], archive: Path) -> Iterator[tuple[h5py.Dataset, h5py.Dataset]]:
    """Open `exam_id` and `tracings`, and check their shapes and that their data lie in the file itself."""
    with _damage_explained(archive):
        file = h5py.File(stream, "r")
    with file:
        ids, tracings = _dataset(file, "exam_id", archive), _dataset(file, "tracings", archive)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) > _MOST_EXAMS:
            raise ValueError(f"{archive}: exam_id is {ids.dtype} {ids.shape}: integers (N,) are needed")
        form = (len(ids), SAMPLES, len(LEADS))
        if tracings.shape != form or tracings.dtype.kind != "f":
            raise ValueError(f"{archive}: tracings is {tracings.dtype} {tracings.shape}: floats {form} are needed")
        yield ids, tracings


def _dataset(file: h5py.File, name: str, archive: Path) -> h5py.Dataset:
    """Return a dataset of numbers. Raises ValueError if it is absent, or its data lie outside the file."""
    with _damage_explained(archive):
        link: Any = file.get(name, getlink=True)
        item = file[name] if isinstance(link, h5py.HardLink) else None
        # An external link, external storage or a virtual dataset would read other files of this machine.
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and not item.external and not item.is_virtual:
            return item
    raise ValueError(f"{archive}: no numbers {name!r} in the file itself: take the archive of version 1.0.0")


def _rows(dataset: h5py.Dataset, rows: slice, archive: Path) -> NDArray[Any]:
    with _damage_explained(archive):
        return dataset[rows]


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    """Turn the various errors that h5py raises for a damaged file into one ValueError with the remedy."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{archive}: its HDF5 file cannot be read ({error}): download it again") from error


CODE15 = Source(
    name="code15",
    title="CODE-15%",
    version="1.0.0",
    doi="10.5281/zenodo.4916206",
    homepage="https://zenodo.org/records/4916206",
    licence="CC BY 4.0",
    citation=(
        "Ribeiro AH, Paixao GMM, Lima EM, et al. CODE-15%: a large scale annotated dataset of 12-lead ECGs (version "
        "1.0.0). Zenodo 2021. doi:10.5281/zenodo.4916206"
    ),
    role=Role.PRETRAINING,
    root=_ROOT,
    partitions=_PARTITIONS,
    list_files=_list_files,
    partition_of=_partition_of,
    read=_read,
    shared=lambda path: path == _TABLE,
)

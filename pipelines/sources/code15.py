"""CODE-15%: 345,779 ECGs of 233,770 patients at 400 Hz, Zenodo record 4916206, in 18 parts.

Part i is `exams_part<i>.zip` with one `exams_part<i>.hdf5`: `exam_id` (N,) and `tracings` float32 (N, 4096, 12), in
millivolt by the authors' word. exams.csv knows the rest, by exam_id and in another order. Tracings shorter than 4096
samples are padded with zeros on both sides, and a part may end with rows that hold no exam.
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
# What `wget -r` makes of the API's answer, without and with --adjust-extension.
_LISTS = (f"zenodo.org/api/records/{_RECORD}", f"zenodo.org/api/records/{_RECORD}.json")
_PARTITIONS = tuple(str(n) for n in range(18))

RATE = 400.0
SAMPLES = 4096
LEADS = ("DI", "DII", "DIII", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
LABELS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF", "normal_ecg")
_COLUMNS = ("exam_id", "age", "is_male", "patient_id", *LABELS)
_SEX: dict[str, Sex] = {"True": "male", "False": "female"}
_MOST_EXAMS = 1_000_000  # a part has 20,001 at most; a damaged file may say anything
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
    """The files in the answer of Zenodo's API: name, size and md5."""
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
    found = re.fullmatch(rf"{_ROOT}/files/exams_part(\d+)\.zip", path, re.ASCII)
    return found[1] if found else None


def _read(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
    for file in files:
        if _partition_of(file.path) == partition:
            yield from read_part(root / file.path, root / _TABLE)


def read_part(archive: Path, table: Path) -> Iterator[Record | DroppedRecord]:
    """The exams of a part in its own order, each joined to its row of the table by exam_id.

    Memory stays at a few blocks whatever the part's size. Raises ValueError where archive or table cannot be used.
    """
    with _extracted(archive) as stream, _opened(stream, archive) as (ids, tracings):
        ids_N = _rows(ids, slice(None), archive)
        wanted = set(ids_N.tolist())
        rows = {exam: row for row in read_table(table, _COLUMNS) if (exam := _exam_id(row, table)) in wanted}
        for start in range(0, len(ids_N), _BLOCK):
            block = slice(start, start + _BLOCK)
            for exam, x_TL in zip(ids_N[block].tolist(), _rows(tracings, block, archive), strict=True):
                yield _exam(exam, x_TL, rows.get(exam))


def _exam(exam: int, x_TL: NDArray[np.float32], row: dict[str, str] | None) -> Record | DroppedRecord:
    recorded_T: NDArray[np.bool_] = (x_TL != 0).any(axis=1)  # NaN counts as recorded
    if row is None:
        filler = "; a row of zeros without an exam" if not recorded_T.any() else ""
        return DroppedRecord(str(exam), DropReason.NOT_LISTED, f"exam_id {exam} is not in exams.csv{filler}")
    if not recorded_T.any():
        return DroppedRecord(str(exam), DropReason.FLAT_LEAD, "all leads are zero throughout")
    # Padding is where all leads are zero: one lead alone may be off for a while.
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
    """The one HDF5 file of an archive, as a seekable stream on disk.

    The stream has no name, so that whatever happens nothing is left behind. It lies beside the archive, where there is
    room for data; where that cannot be written to (a mirror of somebody else's), in the folder for temporary files.
    """
    beside = archive.parent if os.access(archive.parent, os.W_OK) else None
    with tempfile.TemporaryFile(dir=beside) as stream:
        try:
            with zipfile.ZipFile(archive) as container, container.open(_member(container, archive)) as member:
                shutil.copyfileobj(member, stream, 1 << 20)
        except FileNotFoundError as error:
            raise ValueError(f"{archive}: the part is not there: download it, or complete the mirror") from error
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise  # of the disk; a damaged directory sends the reader to places before the file's beginning
            raise ValueError(
                f"{archive}: not a readable zip ({error}): delete it and download it again, or put the mirror right"
            ) from error
        stream.seek(0)
        yield stream


def _member(container: zipfile.ZipFile, archive: Path) -> str:
    """The archive's only HDF5 file. Its name is never used as a path; one with a folder is another archive's."""
    names = [name for name in container.namelist() if name.endswith((".hdf5", ".h5"))]
    if len(names) != 1 or PurePosixPath(names[0]).name != names[0] or "\\" in names[0]:
        raise ValueError(f"{archive}: holds {names or 'no HDF5 file'}: one plain `exams_part<i>.hdf5` is needed")
    return names[0]


@contextmanager
def _opened(stream: IO[bytes], archive: Path) -> Iterator[tuple[h5py.Dataset, h5py.Dataset]]:
    """`exam_id` and `tracings`, checked for form, and for not leading out of the file."""
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
    with _damage_explained(archive):
        link: Any = file.get(name, getlink=True)
        found = file[name] if isinstance(link, h5py.HardLink) else None
        # An external link, external storage or a virtual dataset would read other files of this machine.
        if (
            isinstance(found, h5py.Dataset)
            and found.dtype.kind in "iuf"
            and not found.external
            and not found.is_virtual
        ):
            return found
    raise ValueError(f"{archive}: no numbers {name!r} in the file itself: take the archive of version 1.0.0")


def _rows(dataset: h5py.Dataset, rows: slice, archive: Path) -> NDArray[Any]:
    with _damage_explained(archive):
        return dataset[rows]


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    """What h5py raises for a damaged file, of whichever kind, as the one ValueError that says what to do."""
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

"""CODE-15%: 345,779 ECGs of 233,770 patients at 400 Hz, Zenodo record 4916206, in 18 parts.

Part i is `exams_part<i>.zip` with one `exams_part<i>.hdf5`: `exam_id` (N,) and `tracings` float32 (N, 4096, 12), in
millivolt according to the authors. exams.csv has the rest, by exam_id and in another order. Tracings shorter than 4096
samples are padded with zeros on both sides, which harmonization leaves out, and a part may end with rows without an
exam.
Shapes: N exams, L leads, T samples.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from pipelines.formats import hdf5
from pipelines.formats.limits import MIB, PART_BYTES, parse_json
from pipelines.formats.zip_archive import DAMAGES, open_zip
from pipelines.formatting import format_bytes
from pipelines.records import DroppedRecord, DropReason, Record, RecordError, Sex
from pipelines.sources.base import Fetch, RemoteFile, Role, Source, read_table, rows_by_id
from pipelines.sources.demographics import age_of, is_unknown, plain_id

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
_SEX: dict[bool | None, Sex] = {True: "male", False: "female"}
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
"""What the table's columns of True and False hold, also after a spreadsheet or pandas saved it again."""
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
            for file in parse_json(text)["files"]
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
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
    with _extracted(archive) as stream, _opened(stream, archive) as part:
        ids_N = part.ids(slice(None))
        exams = set(ids_N.tolist())
        rows = _rows(table, exams)
        for start in range(0, len(ids_N), _BLOCK):
            block = slice(start, start + _BLOCK)
            for exam, x_TL in zip(ids_N[block].tolist(), part.tracings(block), strict=True):
                yield _exam(exam, x_TL, rows.get(exam), table)


def _rows(table: Path, exams: set[int]) -> dict[int, dict[str, str]]:
    """Return the rows of some exams. Raises ValueError if two rows of an exam differ, or an id is no number."""
    all_rows = ((_exam_id(row, table), row) for row in read_table(table, _COLUMNS))
    return rows_by_id(
        ((exam, row) for exam, row in all_rows if exam in exams),
        lambda exam, column, one, other: ValueError(
            f"{table}: exam_id {exam} is on two lines that differ, {column} is {one[:40]!r} and {other[:40]!r}: leave "
            "one of them, or take the table again"
        ),
    )


def _exam(exam: int, x_TL: NDArray[np.float32], row: dict[str, str] | None, table: Path) -> Record | DroppedRecord:
    """Return the record of a tracing (T, L), padding included, and its row of the table.

    Dropped without a row, or with zeros only.
    """
    is_finite_TL = np.isfinite(x_TL)
    if not is_finite_TL.all():  # a signalling NaN of a damaged file would be warned of by each operation
        x_TL = np.where(is_finite_TL, x_TL, np.nan)
    x_LT = np.ascontiguousarray(x_TL.T, np.float32)
    if row is None:
        filler = "" if x_LT.any() else "; a row of zeros without an exam"
        return DroppedRecord(str(exam), DropReason.NOT_LISTED, f"exam_id {exam} is not in exams.csv{filler}")
    if not x_LT.any():  # NaN counts as recorded
        return DroppedRecord(str(exam), DropReason.FLAT_LEAD, "all leads are zero throughout")
    age, notes = age_of(row["age"])
    return Record(
        record_id=str(exam),
        signal_LT=x_LT,
        leads=LEADS,
        rate=RATE,
        patient_id=plain_id(row["patient_id"]) or None,
        age=age,
        sex=_SEX.get(_flag(row, "is_male", table)),
        labels=tuple(label for label in LABELS if _flag(row, label, table)),
        notes=notes,
    )


def _flag(row: dict[str, str], column: str, table: Path) -> bool | None:
    """Return what a column of True and False says; None if the cell is empty. Raises ValueError if it is neither."""
    flag = _FLAGS.get(row[column].strip().lower())
    if flag is None and not is_unknown(row[column]):
        raise ValueError(
            f"{table}: exam_id {row['exam_id'][:40]}: {column} is {row[column][:40]!r}, True or False is needed: take "
            "the table again"
        )
    return flag


def _exam_id(row: dict[str, str], table: Path) -> int:
    try:
        return int(row["exam_id"].removesuffix(".0"))  # 11.0 if pandas saved the table again
    except ValueError as error:
        raise ValueError(
            f"{table}: exam_id {row['exam_id'][:40]!r} is no whole number: take the table again"
        ) from error


@contextmanager
def _extracted(archive: Path) -> Iterator[BinaryIO]:
    """Extract the one HDF5 file of an archive, as a seekable stream on disk.

    The stream has no name, so that a crash leaves nothing behind. It lies in the archive's folder, on the disk for
    data; if that is read-only (another person's mirror), in the folder for temporary files.
    """
    folder = archive.parent if os.access(archive.parent, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryFile(dir=folder) as stream:
        try:
            with archive.open("rb") as packed, open_zip(packed) as container:
                member = _member(container, archive)
                _require_room(member, archive, folder)
                with container.open(member) as unpacked:
                    shutil.copyfileobj(unpacked, stream, MIB)
        except FileNotFoundError as error:
            raise ValueError(f"{archive}: the part is missing: download it, or complete the mirror") from error
        except _Unusable:
            raise
        except (OSError, *DAMAGES) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise  # of the disk; EINVAL is a seek before the file's start, which a damaged zip directory causes
            raise ValueError(
                f"{archive}: not a readable zip ({error}): delete it and download it again, or correct the mirror"
            ) from error
        stream.seek(0)
        yield stream


class _Unusable(ValueError):
    """An archive that is a zip, and not one of this source."""


def _member(container: zipfile.ZipFile, archive: Path) -> zipfile.ZipInfo:
    """Return the archive's only HDF5 file. Raises ValueError if there is not one, or it is in a folder."""
    members = [member for member in container.infolist() if member.filename.endswith((".hdf5", ".h5"))]
    names = [member.filename for member in members]
    if len(names) != 1 or PurePosixPath(names[0]).name != names[0] or "\\" in names[0]:
        found = f"{names[:3]}" if names else "no HDF5 file"
        raise _Unusable(f"{archive}: has {found}: exactly one `exams_part<i>.hdf5` is needed")
    return members[0]


def _require_room(member: zipfile.ZipInfo, archive: Path, folder: Path) -> None:
    """Raise ValueError if a member is larger than any part, or than what is free."""
    size, free = member.file_size, shutil.disk_usage(folder).free
    if size > PART_BYTES:
        raise _Unusable(
            f"{archive}: {member.filename[:60]} unpacks to {format_bytes(size)}, and no part has more than "
            f"{format_bytes(PART_BYTES)}: take the archive of version 1.0.0"
        )
    if size > free:
        raise _Unusable(
            f"{archive} unpacks to {format_bytes(size)}, and {format_bytes(free)} are free in {folder}: make room"
        )


@dataclass(frozen=True)
class _Part:
    """The exams of a part that is open. Raises ValueError if they cannot be read."""

    file: hdf5.Hdf5
    archive: Path
    datasets: tuple[h5py.Dataset, h5py.Dataset]

    def ids(self, rows: slice) -> NDArray[Any]:
        with _damage_explained(self.archive):
            return self.file.rows(self.datasets[0], rows)

    def tracings(self, rows: slice) -> NDArray[Any]:
        with _damage_explained(self.archive):
            return self.file.rows(self.datasets[1], rows)


@contextmanager
def _opened(stream: BinaryIO, archive: Path) -> Iterator[_Part]:
    """Open `exam_id` and `tracings`, and check their shapes and that their data lie in the file itself."""
    with ExitStack() as stack:
        with _damage_explained(archive):
            file = stack.enter_context(hdf5.opened(stream, archive.name))
        ids, tracings = _numbers(file, "exam_id", archive), _numbers(file, "tracings", archive)
        if ids.ndim != 1 or ids.dtype.kind not in "iu" or len(ids) > _MOST_EXAMS:
            raise ValueError(f"{archive}: exam_id is {ids.dtype} {ids.shape}: integers (N,) are needed")
        form = (len(ids), SAMPLES, len(LEADS))
        if tracings.shape != form or tracings.dtype.kind != "f":
            raise ValueError(f"{archive}: tracings is {tracings.dtype} {tracings.shape}: floats {form} are needed")
        yield _Part(file, archive, (ids, tracings))


def _numbers(file: hdf5.Hdf5, name: str, archive: Path) -> h5py.Dataset:
    """Return a dataset of numbers. Raises ValueError if it is absent, or its data lie outside the file."""
    with _damage_explained(archive):
        values = file.dataset(name)
    if values is None or values.dtype.kind not in "iuf":
        raise ValueError(f"{archive}: no numbers {name!r} in the file itself: take the archive of version 1.0.0")
    return values


@contextmanager
def _damage_explained(archive: Path) -> Iterator[None]:
    """Turn the error of a damaged file, which is one of a record elsewhere, into one of the part with the remedy."""
    try:
        yield
    except RecordError as error:
        raise ValueError(f"{archive}: its HDF5 file cannot be read ({error.detail}): download it again") from error


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
    bytes=46_300_000_000,
    root=_ROOT,
    partitions=_PARTITIONS,
    list_files=_list_files,
    partition_of=_partition_of,
    read=_read,
    shared=lambda path: path == _TABLE,
)

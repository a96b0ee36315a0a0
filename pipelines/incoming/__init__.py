"""Own ECGs: what a hospital puts into a folder or a bucket. One sub-folder is one drop, and one drop is one partition.

    listing      which drops are complete, and which files they hold
    bucket       drops in an object store
    step         copies a drop into the data home
    description  what a drop says about its numbers
    readers      which file is read by what: wfdb_files, vendor_files, array_files (by arrays and hdf5)
    drop         a drop as these readers see it
    by_path      a record id and a patient by a file's place in the drop
    check        what a drop would come to
    withdraw     removes a drop

docs/own-data.md is for those who write drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from pipelines.formats.vendor.read import reader_version
from pipelines.formats.wfdb_library import library_version
from pipelines.home import Home
from pipelines.incoming.description import check_count
from pipelines.incoming.drop import PatientKey
from pipelines.incoming.listing import NAME
from pipelines.incoming.readers import contents
from pipelines.records import DroppedRecord, Record
from pipelines.sources.base import RemoteFile, Role


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """A `pipelines.sources.base.Readable` whose partitions are found at run time. version: of its readers."""

    name: str
    title: str
    version: str
    role: Role
    read: Callable[[Path, str, Sequence[RemoteFile]], Iterator[Record | DroppedRecord]]


def _read(
    root: Path, partition: str, files: Sequence[RemoteFile], key: PatientKey | None = None
) -> Iterator[Record | DroppedRecord]:
    parts = contents(root, [file.path for file in files], key).parts
    for number, origin in enumerate(chain.from_iterable(part.read() for part in parts), 1):
        check_count(number, f"drop {partition}")
        yield origin.item


INCOMING = OwnData(
    name=NAME,
    title="Own ECGs",
    version=f"3, {reader_version()}, {library_version()}",
    role=Role.PRETRAINING,
    read=_read,
)


def own_data(home: Home) -> OwnData:
    """Return INCOMING as it is read into a home: patients of vendors' files get its pseudonyms."""
    return replace(INCOMING, read=partial(_read, key=home.patient_key))

"""Own ECGs: what a hospital puts into a folder or a bucket. One sub-folder is one drop, and one drop is one partition.

    listing      which drops are complete, and which files they hold
    bucket       drops in an object store
    step         copies a drop into the data home
    description  what a drop says about its numbers
    readers      reads a drop's files; arrays and hdf5 read their formats
    check        what a drop would come to
    withdraw     removes a drop

docs/own-data.md is for those who write drops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.incoming.listing import NAME
from pipelines.incoming.readers import parts
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


def _read(root: Path, partition: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
    for part in parts(root, [file.path for file in files]):
        for origin in part.read():
            yield origin.item


INCOMING = OwnData(name=NAME, title="Own ECGs", version="3", role=Role.PRETRAINING, read=_read)

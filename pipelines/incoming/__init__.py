"""Own ECGs: what a hospital drops into a folder. One sub-folder is one drop, and one drop is one partition.

`drops` says which drops are whole and what lies in them, `taking` copies one into the data home, `description` is what
a drop says of its numbers, `parts` reads them, format by format. docs/own-data.md is for those who write drops.
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
        for reading in part.read():
            yield reading.item


INCOMING = OwnData(name=NAME, title="Own ECGs", version="2", role=Role.PRETRAINING, read=_read)

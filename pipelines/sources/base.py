"""What a source is: where its files are, with their checksums, how they fall into partitions, and how a record is read.

All files of all sources have one address form, the path that `wget -r` leaves behind: `physionet.org/files/...` or
`zenodo.org/records/...`. A raw folder, a mirror folder and a mirror's base URL share it, so one stands in for another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipelines.records import Drop, Record


class Role(StrEnum):
    PRETRAINING = "pretraining"
    EVALUATION = "evaluation"


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A listed file. path: its `wget -r` path; url: its true address; checksum: `sha256:<hex>` or `md5:<hex>`."""

    path: str
    url: str
    checksum: str
    bytes: int | None = None


# Fetches the bytes of a small listing file by its `wget -r` path and true URL; raises FileNotFoundError where it is not.
Fetch = Callable[[str, str], bytes]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One public data set, as data and three functions.

    partitions: all partition keys of the complete source. list_files: every file of the source with its checksum,
    from the source's own list. partition_of: the partition a listed path belongs to; None for files that every
    partition needs (`shared`: label tables) or that nobody needs. read: the records of one partition,
    from a root that holds the listed files under their `wget -r` paths.
    """

    name: str
    title: str
    version: str
    doi: str
    homepage: str
    licence: str
    citation: str
    role: Role
    partitions: tuple[str, ...]
    list_files: Callable[[Fetch], list[RemoteFile]]
    partition_of: Callable[[str], str | None]
    shared: Callable[[str], bool]
    read: Callable[[Path, str, Sequence[RemoteFile]], Iterator[Record | Drop]]

    def files_of(self, listing: Sequence[RemoteFile], partition: str) -> list[RemoteFile]:
        """The files that one partition needs: its own and the shared ones. Empty where it has none of its own."""
        if partition not in self.partitions:
            raise ValueError(f"partition {partition!r} of {self.name}: use one of {', '.join(self.partitions)}")
        own = [f for f in listing if self.partition_of(f.path) == partition]
        return own + [f for f in listing if self.shared(f.path)] if own else []

    def available(self, listing: Sequence[RemoteFile]) -> list[str]:
        """The partitions that a listing (complete, or a mirror's part) holds, in the source's order."""
        present = {self.partition_of(f.path) for f in listing}
        return [p for p in self.partitions if p in present]

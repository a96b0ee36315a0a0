"""What a source is: where its files are, with their checksums, how they fall into partitions, and how a record is read.

All files of all sources have one name, the path that `wget -r` leaves behind: `physionet.org/files/...` or
`zenodo.org/records/...`. A raw folder, a mirror folder, a mirror's base URL and the true hosts share it, so one stands
in for another.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pipelines.records import DroppedRecord, Record

# The true addresses behind a path, in the order they are tried. PhysioNet's open bucket answers ten times as fast as
# its web server, but does not hold every project.
ADDRESSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("physionet.org/files/", ("https://physionet-open.s3.amazonaws.com/", "https://physionet.org/files/")),
    ("zenodo.org/", ("https://zenodo.org/",)),
)

_PATH = re.compile(r"[\w+=@,()'~-][\w .+=@,()'~-]*(/[\w+=@,()'~-][\w .+=@,()'~-]*)*", re.ASCII)
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")


class Role(StrEnum):
    PRETRAINING = "pretraining"
    EVALUATION = "evaluation"


def is_plain(path: str) -> bool:
    """Whether a path is relative, without empty, hidden, `.` or `..` components, backslashes and odd characters."""
    return _PATH.fullmatch(path) is not None


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A listed file. path: its `wget -r` path; checksum: `sha256:<hex>` or `md5:<hex>`; bytes: its size, if known.

    Lists come from elsewhere, and their paths become paths of this machine: one that is absolute, leads upwards, is
    hidden or has odd characters is refused with a ValueError.
    """

    path: str
    checksum: str
    bytes: int | None = None

    def __post_init__(self) -> None:
        if not is_plain(self.path):
            raise ValueError(
                f"listed path {self.path!r}: not a plain relative path; take the list from the source's true address"
            )
        if not _CHECKSUM.fullmatch(self.checksum):
            raise ValueError(f"checksum {self.checksum!r} of {self.path}: use sha256:<64 hex> or md5:<32 hex>")


def addresses(path: str) -> tuple[str, ...]:
    """The true URLs without quoting, in the order to be tried, behind a `wget -r` path."""
    for prefix, bases in ADDRESSES:
        if path.startswith(prefix):
            return tuple(base + path.removeprefix(prefix) for base in bases)
    raise ValueError(f"path {path!r}: no host is known for it; add one to ADDRESSES")


# Fetches the bytes of a small listing file by its `wget -r` path; raises FileNotFoundError where it is not.
Fetch = Callable[[str], bytes]


class Readable(Protocol):
    """What harmonization asks of where records come from: a public data set, or what was dropped."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def role(self) -> Role: ...
    @property
    def read(self) -> Callable[[Path, str, Sequence[RemoteFile]], Iterator[Record | DroppedRecord]]: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """One public data set, as data and four functions.

    root: the folder of its files under `wget -r`. partitions: all partition keys of the complete source.
    list_files: every file of the source with its checksum, from the source's own list. partition_of: the partition a
    listed path belongs to; None for files that every partition needs (`shared`: label tables) or that nobody needs.
    read: the records of one partition, from a folder that holds the listed files under their `wget -r` paths; it
    raises ValueError where a file that all of them need (a label table, an archive) cannot be used.
    """

    name: str
    title: str
    version: str
    doi: str
    homepage: str
    licence: str
    citation: str
    role: Role
    root: str
    partitions: tuple[str, ...]
    list_files: Callable[[Fetch], list[RemoteFile]]
    partition_of: Callable[[str], str | None]
    read: Callable[[Path, str, Sequence[RemoteFile]], Iterator[Record | DroppedRecord]]
    shared: Callable[[str], bool] = lambda path: False

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


def read_table(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a csv file, reduced to the named columns; ValueError where the file or a column is not there."""
    if not path.is_file():
        raise ValueError(
            f"{path}: the label table is not there: download it with its partition, or complete the mirror"
        )
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream, strict=True)
        rows = _readable(reader, path)
        header = next(rows, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(map(repr, missing))} (it has {', '.join(header) or 'none'}): "
                "take the table of the version that the source names"
            )
        where = [header.index(name) for name in columns]
        for row in rows:
            if len(row) != len(header):
                raise ValueError(f"{path}, line {reader.line_num}: {len(row)} fields, the header has {len(header)}")
            yield {name: row[at] for name, at in zip(columns, where, strict=True)}


def _readable(rows: Any, path: Path) -> Iterator[list[str]]:
    """The rows of a csv reader; ValueError naming file and line where the text is no csv or not UTF-8."""
    while True:
        try:
            row = next(rows, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: not a readable csv ({error}): fetch it again") from error
        if row is None:
            return
        yield row

"""The definition of a source: its files with their checksums, its partitions, and the reader of its records.

A file is named by the path that `wget -r` gives it: `physionet.org/files/...` or `zenodo.org/records/...`. Raw folders,
mirror folders, mirror URLs and the original hosts share these paths, so each can replace another.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeVar

from pipelines.formats.limits import LINE_BYTES, TABLE_BYTES, TABLE_ROWS, require_size
from pipelines.records import DroppedRecord, Record

# The original addresses behind a path, in the order in which they are tried. PhysioNet's open bucket is ten times as
# fast as its web server, but does not have every project.
ADDRESSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("physionet.org/files/", ("https://physionet-open.s3.amazonaws.com/", "https://physionet.org/files/")),
    ("zenodo.org/", ("https://zenodo.org/",)),
)

_PATH = re.compile(r"[\w+=@,()'~-][\w .+=@,()'~-]*(/[\w+=@,()'~-][\w .+=@,()'~-]*)*", re.ASCII)
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")


class Role(StrEnum):
    """What the ECGs of a source are used for."""

    PRETRAINING = "pretraining"
    EVALUATION = "evaluation"


def is_plain(path: str) -> bool:
    """Return whether a path is relative, without empty, hidden, `.` or `..` parts, backslashes or odd characters."""
    return _PATH.fullmatch(path) is not None


@dataclass(frozen=True, order=True)
class RemoteFile:
    """A file of a source's list.

    Lists come from other machines, and their paths become paths on this one. Raises ValueError if a path is absolute,
    leads upwards, is hidden or has odd characters.
    """

    path: str  # as `wget -r` names it
    checksum: str  # `sha256:<hex>` or `md5:<hex>`
    bytes: int | None = None  # the size, if known

    def __post_init__(self) -> None:
        if not is_plain(self.path):
            raise ValueError(
                f"listed path {self.path!r}: not a plain relative path; take the list from the source's own address"
            )
        if not _CHECKSUM.fullmatch(self.checksum):
            raise ValueError(f"checksum {self.checksum!r} of {self.path}: use sha256:<64 hex> or md5:<32 hex>")


def addresses(path: str) -> tuple[str, ...]:
    """Return the original URLs of a `wget -r` path, without quoting, in the order in which to try them."""
    for prefix, bases in ADDRESSES:
        if path.startswith(prefix):
            return tuple(base + path.removeprefix(prefix) for base in bases)
    raise ValueError(f"path {path!r}: no host is known for it; add one to ADDRESSES")


Fetch = Callable[[str], bytes]
"""Returns the bytes of a small file such as a list, by its `wget -r` path; raises FileNotFoundError if it is absent."""


class Readable(Protocol):
    """What harmonization needs from an origin of records: a public data set, or own ECGs."""

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
    """One public data set, as data and four functions."""

    name: str
    title: str
    version: str
    doi: str
    homepage: str
    licence: str
    citation: str
    role: Role
    bytes: int  # of all partitions' files, about, as its host states
    root: str  # the folder of its files under `wget -r`
    archive: str = ""  # the folder in PhysioNet's zip of it, without the version
    partitions: tuple[str, ...]  # all keys of the complete source
    list_files: Callable[[Fetch], list[RemoteFile]]
    """Returns every file of the source with its checksum, from the source's own list."""
    partition_of: Callable[[str], str | None]
    """Returns the partition of a listed path; None for a file of all partitions or of none."""
    read: Callable[[Path, str, Sequence[RemoteFile]], Iterator[Record | DroppedRecord]]
    """Yields the records of one partition, given the folder of the files, the partition and its files. Raises
    ValueError if a file that all of them need (a label table, an archive) cannot be used."""
    shared: Callable[[str], bool] = lambda path: False
    """Returns whether every partition needs a listed path, such as a label table."""

    def files_of(self, listing: Sequence[RemoteFile], partition: str) -> list[RemoteFile]:
        """Return the files that one partition needs, its own and the shared ones; empty if it has none of its own."""
        if partition not in self.partitions:
            raise ValueError(f"partition {partition!r} of {self.name}: use one of {', '.join(self.partitions)}")
        own = [f for f in listing if self.partition_of(f.path) == partition]
        return own + [f for f in listing if self.shared(f.path)] if own else []

    def available(self, listing: Sequence[RemoteFile]) -> list[str]:
        """Return the partitions in a listing, which may be a mirror's part of the source, in the source's order."""
        present = {self.partition_of(f.path) for f in listing}
        return [p for p in self.partitions if p in present]


_Id = TypeVar("_Id")
_NAMED_TABLE = "fetch it again, or take the table of the version that the source names"


def read_table(path: Path, columns: Sequence[str], remedy: str = _NAMED_TABLE) -> Iterator[dict[str, str]]:
    """Yield the rows of a csv file, with the named columns. Raises ValueError if the file or a column is missing.

    remedy: what to do if it is not such a table.
    """
    if not path.is_file():
        raise ValueError(f"{path}: the label table is missing: download it with its partition, or complete the mirror")
    require_size(path, TABLE_BYTES, "a table", remedy)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(_lines(stream, path), strict=True)
        rows = _readable(reader, path, remedy)
        header = next(rows, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise ValueError(
                f"{path}: no column {', '.join(map(repr, missing))} (it has {', '.join(header) or 'none'}): {remedy}"
            )
        places = [header.index(name) for name in columns]
        for number, row in enumerate(rows, 1):
            if number > TABLE_ROWS:
                raise ValueError(f"{path}: more than {TABLE_ROWS:,} rows: {remedy}")
            if len(row) != len(header):
                raise ValueError(f"{path}, line {reader.line_num}: {len(row)} fields, the header has {len(header)}")
            yield {name: row[at] for name, at in zip(columns, places, strict=True)}


def rows_by_id(
    rows: Iterable[tuple[_Id, dict[str, str]]], error: Callable[[_Id, str, str, str], ValueError]
) -> dict[_Id, dict[str, str]]:
    """Return the rows of a table by id. If two of one id differ, raises `error` of the id, a column, and both cells."""
    found: dict[_Id, dict[str, str]] = {}
    for row_id, row in rows:
        first = found.setdefault(row_id, row)
        if first != row:
            column = next(name for name in row if first[name] != row[name])
            raise error(row_id, column, first[column], row[column])
    return found


def _lines(stream: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a text. Raises ValueError if one is too long to be a row of a table."""
    while line := stream.readline(LINE_BYTES):
        if len(line) == LINE_BYTES:
            raise ValueError(f"{path}: a line has more than {LINE_BYTES:,} characters: fetch the table again")
        yield line


def _readable(rows: Any, path: Path, remedy: str) -> Iterator[list[str]]:
    """Yield the rows of a csv reader. Raises ValueError, with file and line, if the text is not csv or not UTF-8."""
    while True:
        try:
            row = next(rows, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {rows.line_num}: not a readable csv ({error}): {remedy}") from error
        if row is None:
            return
        yield row

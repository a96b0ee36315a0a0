"""Shared by PhysioNet's projects: the list of checksums at their root, and records of a header and a signal file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from pipelines.formats.wfdb import WfdbRecord, read_wfdb
from pipelines.formats.wfdb_header import GAINS
from pipelines.records import DroppedRecord, Record, RecordError
from pipelines.sources.base import Fetch, RemoteFile

SUMS = "SHA256SUMS.txt"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]?(\S.*)")  # `<hex> <path>`, or GNU's `<hex>  <path>`


def project_root(slug: str, version: str) -> str:
    """Return the folder of a project's files under `wget -r`."""
    return f"physionet.org/files/{slug}/{version}"


def listed_by_sums(root: str) -> Callable[[Fetch], list[RemoteFile]]:
    """Return the `list_files` of a project: every file of its SHA256SUMS.txt, which lists all files but itself.

    RECORDS is not used: some name records that are in another folder.
    """

    def list_files(fetch: Fetch) -> list[RemoteFile]:
        return list(_parsed(fetch(f"{root}/{SUMS}"), root))

    return list_files


@lru_cache(maxsize=1)
def _parsed(sums: bytes, root: str) -> tuple[RemoteFile, ...]:
    """Return the files of the last list without parsing it again: 90,000 lines take about two seconds per partition."""
    return tuple(parse_sums(sums.decode("utf-8", "replace"), root))


def parse_sums(text: str, root: str) -> list[RemoteFile]:
    """Return the files of a SHA256SUMS.txt at `root`. Raises ValueError, with the line, if a line cannot be trusted."""
    files: dict[str, RemoteFile] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parsed = _LINE.fullmatch(line)
        if parsed is None:
            raise ValueError(
                f"{root}/{SUMS}, line {number}: {line[:80]!r} is not `<sha256> <path>`: fetch the list again"
            )
        file = RemoteFile(f"{root}/{parsed[2]}", f"sha256:{parsed[1]}")
        if files.setdefault(file.path, file) != file:
            raise ValueError(f"{root}/{SUMS}, line {number}: {parsed[2]} has two checksums: fetch the list again")
    return list(files.values())


def partition_by(root: str, pattern: str) -> Callable[[str], str | None]:
    """Return a `partition_of`: group 1 of `pattern`, a regular expression for the whole path below root."""
    compiled = re.compile(f"{re.escape(root)}/{pattern}", re.ASCII)

    def partition_of(path: str) -> str | None:
        matched = compiled.fullmatch(path)
        return matched[1] if matched else None

    return partition_of


def read_records(
    root: Path,
    files: Sequence[RemoteFile],
    convert: Callable[[WfdbRecord], Record],
    *,
    gains: tuple[float, float] = GAINS,
) -> Iterator[Record | DroppedRecord]:
    """Yield an item for each record with a header or a signal file in `files`, in the order of their paths.

    convert: returns the source's record; a RecordError that it or reading raises makes the record a dropped one.
    gains: as in `read_wfdb`.
    """
    parts = (file.path.rpartition(".") for file in files)
    records = {record for record, _, ending in parts if ending in ("hea", "mat", "dat")}
    for record in sorted(records, key=lambda record: record.split("/")):
        header = root / f"{record}.hea"
        try:
            yield convert(read_wfdb(header, gains=gains))
        except RecordError as error:
            yield error.dropped(header.stem)

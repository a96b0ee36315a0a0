"""What PhysioNet's projects share: the list of checksums at their root, and records of a header and a signal file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from pipelines.formats.wfdb import GAINS, WfdbRecord, read_wfdb
from pipelines.records import DroppedRecord, Record, RecordError
from pipelines.sources.base import Fetch, RemoteFile

SUMS = "SHA256SUMS.txt"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]?(\S.*)")  # `<hex> <path>`, or GNU's `<hex>  <path>`


def project_root(slug: str, version: str) -> str:
    return f"physionet.org/files/{slug}/{version}"


def listed_by_sums(root: str) -> Callable[[Fetch], list[RemoteFile]]:
    """The files of a project from its SHA256SUMS.txt, which names every file but itself.

    RECORDS is not asked: some name records that are in another folder.
    """

    def list_files(fetch: Fetch) -> list[RemoteFile]:
        return list(_parsed(fetch(f"{root}/{SUMS}"), root))

    return list_files


@lru_cache(maxsize=1)
def _parsed(sums: bytes, root: str) -> tuple[RemoteFile, ...]:
    """Of the list of before: 90,000 lines take about two seconds, and each partition asks for them."""
    return tuple(parse_sums(sums.decode("utf-8", "replace"), root))


def parse_sums(text: str, root: str) -> list[RemoteFile]:
    """The files of a SHA256SUMS.txt at `root`; ValueError where a line cannot be trusted."""
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
    """The partition of a path: group 1 of `pattern`, a regular expression for the whole path below root."""
    compiled = re.compile(f"{re.escape(root)}/{pattern}", re.ASCII)

    def partition_of(path: str) -> str | None:
        found = compiled.fullmatch(path)
        return found[1] if found else None

    return partition_of


def read_records(
    root: Path,
    files: Sequence[RemoteFile],
    convert: Callable[[WfdbRecord], Record],
    *,
    gains: tuple[float, float] = GAINS,
) -> Iterator[Record | DroppedRecord]:
    """One item for each record that a header or a signal file of `files` belongs to, in the order of their paths.

    convert makes the source's record of what was read; a RecordError on the way is the record's drop.
    """
    paths = (PurePosixPath(file.path) for file in files)
    headers = sorted({path.with_suffix(".hea") for path in paths if path.suffix in (".hea", ".mat", ".dat")})
    for header in headers:
        try:
            yield convert(read_wfdb(root / header, gains=gains))
        except RecordError as error:
            yield error.dropped(header.stem)

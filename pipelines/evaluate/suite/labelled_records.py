"""Which harmonized ECGs the rows of a csv of labels mean: by record id, or by their file's path inside a drop.

A path is taken with or without its ending, below the drop's name or not, and a file's bare name if one file alone has
it, as the table of a drop's drop.json is read (`pipelines.incoming.people_table`). It means the record that is called
by the file. A row of a record that was dropped is left out, and said.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path, PurePosixPath

from pipelines.cache import Product, Workspace
from pipelines.download.step import recorded_files
from pipelines.formats.shard import open_shard
from pipelines.formats.vendor.read import record_id_of
from pipelines.harmonize.shards import read_records
from pipelines.incoming.listing import NAME as INCOMING

Say = Callable[[str], None]

_LISTED = 20  # dropped records that are said one by one
_NEAREST = 3  # names in a refusal


def labelled_records(
    labels: Mapping[str, tuple[str, ...]],
    workspace: Workspace,
    shards: Mapping[str, Product],
    *,
    path: Path,
    source: str,
    say: Say,
) -> dict[str, tuple[str, ...]]:
    """Return labels by record id, without those of dropped records.

    labels: by what the csv calls the record
    shards: of the source, with records
    path: of the csv, for messages
    say: told by what the rows name their ECGs, and which rows are left out

    Raises ValueError if a row means no record, or several.
    """
    times = Counter(read_records(shards).column("record_id").to_pylist())
    why = _dropped(shards)
    known = times.keys() | why.keys()
    by_id = source != INCOMING or labels.keys() <= times.keys()
    paths = {} if by_id else _records_by_path(workspace, shards)
    meant = {row: row if row in known else _only(paths.get(row, ()), row, path) for row in labels}
    unknown = [row for row, record in meant.items() if record is None]
    if unknown:
        nearest = ", ".join(map(repr, _nearest(unknown[0], times)))
        raise ValueError(
            f"{path}: {len(unknown)} of {len(labels)} records are not among the {len(times):,} harmonized ECGs of "
            f"{source}, such as {unknown[0]!r}; ECGs there are called {nearest}: correct the ids, or leave the rows out"
        )
    by_path = sum(row not in times and row in paths for row in labels)
    by = "record id" if not by_path else "path" if by_path == len(labels) else f"record id, {by_path:,} of them by path"
    say(f"the rows of {path.name} name ECGs by {by}")
    kept: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, str] = {}
    for row, record in meant.items():
        assert record is not None
        if record in times:
            kept[record] = tuple(dict.fromkeys((*kept.get(record, ()), *labels[row])))
        else:
            left_out[row] = why[record]
    _say_left_out(left_out, len(labels), say)
    if not kept:
        raise ValueError(f"{path}: all {len(labels):,} labelled ECGs were dropped when they were harmonized, see above")
    return kept


def _dropped(shards: Mapping[str, Product]) -> dict[str, str]:
    """Return why records were dropped, by their ids."""
    tables = [open_shard(shard.path).drops() for shard in shards.values()]
    rows = [row for table in tables for row in table.select(["record_id", "reason", "detail"]).to_pylist()]
    return {row["record_id"]: f"{row['reason']}: {row['detail']}" for row in rows}


def _records_by_path(workspace: Workspace, shards: Mapping[str, Product]) -> dict[str, frozenset[str]]:
    """Return the records that each name of a file means. shards: of drops of own ECGs"""
    found: dict[str, set[str]] = {}
    for drop, shard in shards.items():
        raw = workspace.current(f"raw/{INCOMING}/{drop}")
        if raw is None:
            continue
        opened = open_shard(shard.path)
        ids = {record for table in (opened.records(), opened.drops()) for record in table["record_id"].to_pylist()}
        files = {PurePosixPath(file.path): file.checksum for file in recorded_files(raw)[1]}
        once = Counter(file.name for file in files)
        for file, checksum in files.items():
            record = next((name for name in _ids_of(file, checksum) if name in ids), None)
            if record is not None:
                for name in _names_of(file, drop, alone=once[file.name] == 1):
                    found.setdefault(name, set()).add(record)
    return {name: frozenset(records) for name, records in found.items()}


def _ids_of(file: PurePosixPath, checksum: str) -> Iterator[str]:
    """Yield the ids that a file's record may have, the surest first (`pipelines.incoming.by_path`).

    checksum: as `RemoteFile.checksum`
    """
    yield record_id_of(checksum.removeprefix("sha256:"))  # a vendor's
    yield f"{file.parent}/{file.stem}"
    yield file.stem
    yield str(file)  # of one that could not be read


def _names_of(file: PurePosixPath, drop: str, *, alone: bool) -> Iterator[str]:
    for path in (file, file.with_suffix("")):
        yield str(path)
        yield f"{drop}/{path}"
    if alone:
        yield file.name


def _only(records: Iterable[str], row: str, path: Path) -> str | None:
    """Return the one record that a row means, None if there is none. Raises ValueError if there are several."""
    first, *more = [*records] or [None]
    if more:
        raise ValueError(
            f"{path}: {row!r} is the path of files in several drops: write the drop's name before it, as in "
            "ward-7/ecgs/a.csv, or give record ids"
        )
    return first


def _say_left_out(left_out: Mapping[str, str], rows: int, say: Say) -> None:
    if not left_out:
        return
    say(f"{len(left_out):,} of {rows:,} labelled ECGs were dropped when they were harmonized, and are left out:")
    for row, why in [*left_out.items()][:_LISTED]:
        say(f"  {row}: {why}")
    if len(left_out) > _LISTED:
        say(f"  and {len(left_out) - _LISTED:,} more")


def _nearest(row: str, known: Iterable[str]) -> list[str]:
    """Return known ids that are written most like another: without folder, ending, `.0`, zeros ahead or `_hr`."""
    wanted = _bare(row)

    def distance(name: str) -> tuple[bool, int, str]:
        bare = _bare(name)
        alike = _same_beginning(bare, wanted) + _same_beginning(bare[::-1], wanted[::-1])
        return bare != wanted, max(len(bare), len(wanted)) - alike, name

    return heapq.nsmallest(_NEAREST, known, key=distance)


def _bare(name: str) -> str:
    last = name.rpartition("/")[2]
    return re.sub(r"(\.0+|\.[a-z]\w*|_[hl]r)+$", "", last, flags=re.IGNORECASE).lstrip("0")


def _same_beginning(first: str, second: str) -> int:
    """Return how many characters two texts begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))

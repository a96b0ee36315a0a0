"""Downloaded files hashed again, against what their sources list; copies of drops, against what was copied."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cache import Product
from pipelines.download.fetch import map_in_threads
from pipelines.download.http import checksum_of, size_of
from pipelines.download.progress import OnProgress
from pipelines.download.step import download_to_home, is_discarded, mark_damaged, recorded_files
from pipelines.home import Home
from pipelines.incoming import INCOMING
from pipelines.incoming.step import materialize_drop, taken_drops
from pipelines.sources import SOURCES
from pipelines.sources.base import Readable, RemoteFile, Source

# Hashing frees the interpreter, and a disk answers several readers faster than one.
THREADS = 2 * (os.cpu_count() or 1)

OnFile = Callable[[int, int], None]
"""Called with the files that were looked at, and how many there are."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A downloaded partition, or a drop that was taken. missing, damaged: paths; let_go: its files went after
    harmonization, as was asked; mirror: the folder mirror that its files lie in, None where they are our own."""

    source: Readable
    partition: str
    files: int
    bytes: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    let_go: bool
    mirror: Path | None

    @property
    def sound(self) -> bool:
        return not self.missing and not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "source": self.source.name,
            "partition": self.partition,
            "files": self.files,
            "bytes": self.bytes,
            "missing": list(self.missing),
            "damaged": list(self.damaged),
            "let_go": self.let_go,
            "mirror": None if self.mirror is None else str(self.mirror),
            "sound": self.sound,
        }


def verify(home: Home, source: str | None = None, on_file: OnFile = lambda done, total: None) -> list[Verified]:
    """Every downloaded partition and taken drop, or those of one source, with what is missing or damaged of it.

    That is remembered with the partition: materialized again, it fetches those files and no others. ValueError for a
    source that there is not, or that nothing was downloaded of.
    """
    sources: dict[str, Readable] = {**SOURCES, INCOMING.name: INCOMING}
    if source is not None and source not in sources:
        raise ValueError(f"source {source!r}: use one of {', '.join(sources)}")
    workspace = home.workspace()
    partitions = {one.name: one.partitions for one in SOURCES.values()} | {INCOMING.name: taken_drops(workspace)}
    found = [
        (sources[name], partition, product, _files(product))
        for name in ([source] if source else sources)
        for partition in partitions[name]
        if (product := workspace.current(f"raw/{name}/{partition}")) is not None
    ]
    if source and not found:
        raise ValueError(
            f"nothing of {source} has come whole to {workspace.root} yet, and that alone is hashed here: "
            f"`ecg download {source}` goes on with what came, and names a file that is at fault"
            if source in SOURCES
            else f"no drop was taken into {workspace.root} yet: `ecg check-drop DIR` says what one holds"
        )
    # A file that partitions share is looked at once.
    files = {item: None for _, _, _, its_files in found for item in its_files}
    done = iter(range(1, len(files) + 1))

    def look(item: tuple[Path, RemoteFile]) -> str | None:
        fault = _fault(*item)
        on_file(next(done), len(files))
        return fault

    faults = dict(zip(files, map_in_threads(list(files), look, THREADS), strict=True))
    return [_verified(home, one, partition, product, its_files, faults) for one, partition, product, its_files in found]


def _files(product: Product) -> list[tuple[Path, RemoteFile]]:
    if is_discarded(product):
        return []
    root, files = recorded_files(product)
    return [(root, file) for file in files]


def _fault(root: Path, file: RemoteFile) -> str | None:
    path = root / file.path
    if not path.is_file():
        return "missing"
    same = size_of(path) == file.bytes and checksum_of(path, file.checksum) == file.checksum
    return None if same else "damaged"


def _verified(
    home: Home,
    source: Readable,
    partition: str,
    product: Product,
    files: Sequence[tuple[Path, RemoteFile]],
    faults: dict[tuple[Path, RemoteFile], str | None],
) -> Verified:
    by_fault: dict[str | None, list[str]] = {}
    for root, file in files:
        by_fault.setdefault(faults[root, file], []).append(file.path)
    missing, damaged = by_fault.get("missing", []), by_fault.get("damaged", [])
    mark_damaged(home.workspace(), product, missing + damaged)
    return Verified(
        source=source,
        partition=partition,
        files=len(files),
        bytes=sum(file.bytes or 0 for _, file in files),
        missing=tuple(missing),
        damaged=tuple(damaged),
        let_go=is_discarded(product),
        mirror=next((root for root, _ in files if str(root) == home.mirror), None),
    )


def faults_in_words(verified: Sequence[Verified]) -> str:
    """`3 of 1,204 files are missing or damaged`."""
    faulty = sum(len(one.missing) + len(one.damaged) for one in verified)
    return f"{faulty:,} of {sum(one.files for one in verified):,} files are missing or damaged"


def remedies(faulty: Sequence[Verified]) -> str:
    """What is to be done about partitions that are not sound."""
    told = [
        f"put them right in {mirror}, a folder that is read where it lies and never written to, and ask again"
        for mirror in sorted({one.mirror for one in faulty if one.mirror is not None})
    ]
    if any(one.mirror is None for one in faulty):
        told.append("materialize them again, or `ecg verify --repair`")
    return "; the others: ".join(told)


def repair(home: Home, verified: Verified, progress: OnProgress | None = None) -> None:
    """Fetch what is missing or damaged of a partition, or copy it from the drop again; raises where neither has it."""
    if isinstance(verified.source, Source):
        download_to_home(home, verified.source, verified.partition, progress=progress)
    else:
        materialize_drop(home, verified.partition)

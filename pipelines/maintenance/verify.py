"""Hash downloaded files again and compare them with their sources' lists; copies of drops with what was copied."""

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
from pipelines.home import Home, is_url
from pipelines.incoming import INCOMING
from pipelines.incoming.step import materialize_drop, taken_drops
from pipelines.sources import SOURCES
from pipelines.sources.base import Readable, RemoteFile, Source

# Hashing releases the interpreter, and a disk serves several readers faster than one.
THREADS = 2 * (os.cpu_count() or 1)

OnFile = Callable[[int, int], None]
"""Called with the number of files checked so far, and their total."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A downloaded partition, or a drop that was taken, after its files were checked."""

    source: Readable
    partition: str
    files: int
    bytes: int
    missing: tuple[str, ...]  # paths
    damaged: tuple[str, ...]  # paths
    let_go: bool  # its files were deleted after harmonization, as configured
    mirror: Path | None  # the mirror folder of its files; None if they are our own

    @property
    def sound(self) -> bool:
        return not self.missing and not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
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
    """Check every downloaded partition and taken drop, or those of one source.

    on_file: called after each file.

    Missing and damaged files are recorded with the partition, whose next materialization fetches those and no others.
    Raises ValueError if the source is unknown, or if nothing of it was downloaded.
    """
    sources: dict[str, Readable] = {**SOURCES, INCOMING.name: INCOMING}
    if source is not None and source not in sources:
        raise ValueError(f"source {source!r}: use one of {', '.join(sources)}")
    workspace = home.workspace()
    partitions = {each.name: each.partitions for each in SOURCES.values()} | {INCOMING.name: taken_drops(workspace)}
    downloaded = [
        (sources[name], partition, product, _files(product))
        for name in ([source] if source else sources)
        for partition in partitions[name]
        if (product := workspace.current(f"raw/{name}/{partition}")) is not None
    ]
    if source and not downloaded:
        raise ValueError(
            f"no partition of {source} is completely downloaded to {workspace.root} yet, and only those are checked: "
            f"`ecg download {source}` continues the download, and names a faulty file"
            if source in SOURCES
            else f"no drop was taken into {workspace.root} yet: `ecg check-drop DIR` shows what a drop holds"
        )
    # A file that partitions share is checked once.
    files = {item: None for _, _, _, its_files in downloaded for item in its_files}
    done = iter(range(1, len(files) + 1))

    def look(item: tuple[Path, RemoteFile]) -> str | None:
        fault = _fault(*item)
        on_file(next(done), len(files))
        return fault

    faults = dict(zip(files, map_in_threads(list(files), look, THREADS), strict=True))
    return [
        _verified(home, readable, partition, product, its_files, faults)
        for readable, partition, product, its_files in downloaded
    ]


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
        mirror=_mirror(home, source, files),
    )


def _mirror(home: Home, source: Readable, files: Sequence[tuple[Path, RemoteFile]]) -> Path | None:
    """Return the mirror folder that a partition's files are used from; None if they are our own."""
    if not isinstance(source, Source) or home.mirror is None or is_url(home.mirror):
        return None
    return Path(home.mirror) if any(root != home.raw_root.resolve() for root, _ in files) else None


def faults_in_words(verified: Sequence[Verified]) -> str:
    """Return a text such as `3 of 1,204 files are missing or damaged`."""
    faulty = sum(len(partition.missing) + len(partition.damaged) for partition in verified)
    return f"{faulty:,} of {sum(partition.files for partition in verified):,} files are missing or damaged"


def remedies(faulty: Sequence[Verified]) -> str:
    """Return what to do about partitions that are not sound."""
    steps = [
        f"correct them in {mirror}, a folder that is used in place and never written to, and verify again"
        for mirror in sorted({partition.mirror for partition in faulty if partition.mirror is not None})
    ]
    if any(partition.mirror is None for partition in faulty):
        steps.append("materialize them again, or run `ecg verify --repair`")
    return "; the others: ".join(steps)


def repair(home: Home, verified: Verified, progress: OnProgress | None = None) -> None:
    """Fetch the missing or damaged files of a partition, or copy them from the drop again.

    Raises ValueError, ConnectionError or OSError if they cannot be had.
    """
    if isinstance(verified.source, Source):
        download_to_home(home, verified.source, verified.partition, progress=progress)
    else:
        materialize_drop(home, verified.partition)

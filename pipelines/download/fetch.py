"""Fetch listed files into a folder over many connections at once: those that are missing or damaged, no others."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipelines.disk_space import DiskFull, full_disk_explained
from pipelines.download.http import Retries, Transfer, checksum_of, size_of
from pipelines.download.multipart import MultipartDownload, PartFiles
from pipelines.download.progress import DownloadProgress, OnProgress
from pipelines.formatting import format_bytes
from pipelines.locks import exclusive
from pipelines.sources.base import RemoteFile

# Bytes. A file of at least twice this, whose size is listed, is fetched in parts over all connections.
PIECE = 8 << 20
# Bytes that a download leaves free, a hundredth of a small disk: not every source lists sizes, and other programs
# write there too.
RESERVE = 256 << 20
CHECKED_EVERY = 64 << 20
"""Bytes of a file after which the free space is looked at again."""

T = TypeVar("T")
R = TypeVar("R")


def fetch_missing(
    files: Sequence[RemoteFile],
    root: Path,
    *,
    lock: Path,
    urls: Callable[[str], Sequence[str]],
    connections: int,
    progress: OnProgress | None,
    retries: Retries | None,
) -> list[RemoteFile]:
    """Fetch the files that are missing or damaged below root; return all files, each with its size.

    lock: file that one process at a time holds while it fetches.
    urls: gives a path's addresses in the order in which they are tried.

    Raises FileNotFoundError with the path of a file that no address has, ConnectionError if a host cannot be reached,
    and ValueError if a host's file differs from the list or the disk has no room for what is missing. Raises DiskFull
    if it fills up meanwhile: with less than a reserve left, no further file is started.
    """
    with (
        exclusive(lock, f"downloads to {lock.parent}"),
        Transfer(connections=connections, retries=retries) as transfer,
        full_disk_explained(root),
    ):
        counter = ProgressCounter(files, progress)
        here = map_in_threads(files, lambda file: _is_here(file, root, counter), connections)
        missing = [file for file, is_here in zip(files, here, strict=True) if not is_here]
        _check_room(missing, root)
        jobs = [job for file in missing for job in _jobs(file, root / file.path, urls(file.path), transfer, counter)]

        def work(job: Callable[[], None]) -> None:
            _check_reserve(root)
            job()

        map_in_threads(jobs, work, connections, transfer.stop)
        return [replace(file, bytes=size_of(root / file.path)) for file in files]


class ProgressCounter:
    """Counts what several threads have fetched, and reports it."""

    def __init__(self, files: Sequence[RemoteFile], progress: OnProgress | None) -> None:
        sizes = [file.bytes for file in files if file.bytes is not None]
        of_bytes = sum(sizes) if len(sizes) == len(files) else None
        self._now = DownloadProgress(files=0, of_files=len(files), bytes=0, of_bytes=of_bytes, fetched=0)
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, *, files: int = 0, bytes: int = 0, fetched: int = 0) -> None:
        with self._lock:
            now = self._now
            self._now = replace(now, files=now.files + files, bytes=now.bytes + bytes, fetched=now.fetched + fetched)
            if self._progress is not None:
                self._progress(self._now)


def map_in_threads(
    items: Sequence[T], work: Callable[[T], R], threads: int, stop: Callable[[], None] = lambda: None
) -> list[R]:
    """Return work(item) of each item, in order, computed in threads.

    The first failure is raised after the others were stopped.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="download") as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _is_here(file: RemoteFile, root: Path, counter: ProgressCounter) -> bool:
    path = root / file.path
    if not path.is_file() or checksum_of(path, file.checksum) != file.checksum:
        return False
    counter.add(files=1, bytes=size_of(path))
    return True


def _jobs(
    file: RemoteFile, path: Path, urls: Sequence[str], transfer: Transfer, counter: ProgressCounter
) -> list[Callable[[], None]]:
    """Return the work that brings a file to `path`, in parts that can run in any order."""

    unchecked = 0

    def advance(gained: int) -> None:
        nonlocal unchecked
        counter.add(bytes=gained, fetched=max(gained, 0))
        unchecked += max(gained, 0)
        if unchecked > CHECKED_EVERY:  # sizes are not always listed, and other programs write there too
            unchecked = 0
            _check_reserve(path.parent)

    def finished() -> None:
        counter.add(files=1)

    def whole() -> None:
        transfer.fetch(urls, path, file.checksum, advance, file.bytes)
        finished()

    if file.bytes is None or file.bytes < 2 * PIECE:
        counter.add(bytes=size_of(path.with_name(f"{path.name}.part")))
        jobs: list[Callable[[], None]] = [whole]
    else:
        pieces = PartFiles(path=path, size=file.bytes, piece=PIECE)
        download = MultipartDownload(transfer, urls, pieces, file.checksum, advance)
        counter.add(bytes=pieces.bytes_here())
        jobs = download.jobs(finished)
    return [partial(_with_path, file.path, job) for job in jobs]


def _with_path(path: str, job: Callable[[], None]) -> None:
    """Run a job; a FileNotFoundError then carries the listed path, as `fetch_missing` promises."""
    try:
        job()
    except FileNotFoundError as error:
        raise FileNotFoundError(path) from error


def _check_room(missing: Sequence[RemoteFile], root: Path) -> None:
    """Raise ValueError if the missing files, as far as their sizes are known, do not fit on the disk."""
    needed = sum(_missing_bytes(root / file.path, file.bytes) for file in missing if file.bytes is not None)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise ValueError(
            f"{format_bytes(needed)} have to be fetched and {format_bytes(free)} are free in {root}: make room, or set "
            "ECG_HOME to a larger disk; with keep_raw off, raw files are deleted once they are harmonized"
        )


def _check_reserve(root: Path) -> None:
    """Raise DiskFull if the disk below root has less than the reserve free."""
    disk = shutil.disk_usage(root)
    reserve = min(RESERVE, disk.total // 100)
    if disk.free < reserve:
        free = f"{format_bytes(disk.free)} are free, and {format_bytes(reserve)} stay free for others"
        raise DiskFull(root, free)


def _missing_bytes(path: Path, size: int) -> int:
    """Return the bytes still to be written for a file; one more part if parts have to be joined."""
    return max(size - PartFiles(path=path, size=size, piece=PIECE).bytes_here(), 0) + (
        PIECE if size >= 2 * PIECE else 0
    )

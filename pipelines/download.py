"""Listed files to verified files: from the true hosts, from a mirror's base URL, or where they lie in a mirror folder.

A folder mirror is used in place: its files are verified and nothing is copied. It holds the partitions of which it
has a file; one that lacks some of its files fails and names them, since a shard must not lose records in silence.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from pipelines import versions
from pipelines.home import check_url
from pipelines.sources.base import RemoteFile, Source, addresses
from pipelines.stage import ASIDE, Product, Workspace, digest_of
from pipelines.transfer import Retries, Transfer, checksum_of

FILES = "files.json"
ROOT = "root"


@dataclass(frozen=True)
class Mirror:
    """Where files are taken from: a folder, a base URL, or (None) the true hosts."""

    place: Path | str | None = None

    @classmethod
    def parse(cls, text: str | None) -> Mirror:
        """A mirror as a person writes it; None or nothing: the hosts. ValueError where a folder is not there."""
        if not text:
            return cls(None)
        if text.startswith(("http://", "https://")):
            check_url(text)
            return cls(text.rstrip("/"))
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise ValueError(f"mirror {text!r}: no such folder; give one that holds physionet.org/ or zenodo.org/")
        return cls(folder.resolve())

    @property
    def folder(self) -> Path | None:
        return self.place if isinstance(self.place, Path) else None

    def urls(self, path: str) -> tuple[str, ...]:
        """The addresses of a file, in the order to be tried. Not for a folder."""
        assert self.folder is None
        if self.place is None:
            return tuple(quote(url, safe=":/") for url in addresses(path))
        return (f"{self.place}/{quote(path)}",)

    def __str__(self) -> str:
        return "the true hosts" if self.place is None else f"the mirror {self.place}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """files: how many of of_files are here and verified; bytes: what has come or been found so far."""

    files: int
    of_files: int
    bytes: int


# Called from the threads at work, by one at a time.
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Verified files, each with its size, below one folder."""

    root: Path
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes or 0 for file in self.files)


def list_source(source: Source, mirror: Mirror, *, raw_root: Path | None = None) -> list[RemoteFile]:
    """The files of the partitions that the mirror holds, with what they share; none where it has no such source.

    raw_root: where lists that come over the network are kept.
    """
    try:
        listing = _listing(source, mirror, raw_root, None)
    except FileNotFoundError as error:
        if mirror.place is None or (mirror.folder is not None and (mirror.folder / source.root).is_dir()):
            raise _no_list(source, mirror, error) from error
        return []
    return listing if mirror.folder is None else _held(source, listing, mirror.folder)


def partition_files(
    source: Source, partition: str, *, mirror: Mirror, raw_root: Path, retries: Retries | None = None
) -> list[RemoteFile]:
    """The files that a partition needs, from the source's list; ValueError where the list names none."""
    try:
        listing = _listing(source, mirror, raw_root, retries)
    except FileNotFoundError as error:
        raise _no_list(source, mirror, error) from error
    files = source.files_of(listing, partition)
    if not files:
        there = ", ".join(source.available(listing)) or "none"
        raise ValueError(
            f"partition {partition} of {source.name}: the list of {mirror} names no file of it; "
            f"it has {there}: take one of these, or complete the mirror with its list"
        )
    return files


def download_partition(
    source: Source,
    partition: str,
    *,
    mirror: Mirror,
    raw_root: Path,
    connections: int = 16,
    progress: OnProgress | None = None,
    retries: Retries | None = None,
) -> Manifest:
    """Bring the files of a partition below `raw_root`, or find them in a folder mirror; all verified by checksum.

    What is there already is not fetched again, and a partial file goes on where it stopped. Raises ValueError where the
    mirror lacks a listed file or has another one, ConnectionError where a host cannot be reached.
    """
    files = partition_files(source, partition, mirror=mirror, raw_root=raw_root, retries=retries)
    if mirror.folder is not None:
        return _verify(source, files, mirror, mirror.folder, connections, progress)
    return _bring(source, files, mirror, raw_root.resolve(), connections, progress, retries)


def materialize_raw(
    workspace: Workspace,
    source: Source,
    partition: str,
    *,
    mirror: Mirror,
    raw_root: Path,
    connections: int = 16,
    progress: OnProgress | None = None,
) -> Product:
    """The product `raw/<source>/<partition>`: files.json (path, checksum, bytes), and aside/root, their folder.

    It is built again where one of the files is gone or has another size.
    """
    files = partition_files(source, partition, mirror=mirror, raw_root=raw_root)

    def make(directory: Path) -> dict[str, Any]:
        manifest = download_partition(
            source, partition, mirror=mirror, raw_root=raw_root, connections=connections, progress=progress
        )
        (directory / FILES).write_text(json.dumps([asdict(file) for file in manifest.files], indent=1))
        (directory / ASIDE).mkdir()
        (directory / ASIDE / ROOT).write_text(str(manifest.root))
        return {"files": len(manifest.files), "bytes": manifest.bytes}

    return workspace.build(
        f"raw/{source.name}/{partition}",
        version=versions.RAW,
        config={"source": source.name, "version": source.version, "partition": partition},
        inputs={"files": digest_of([[file.path, file.checksum] for file in files])},
        make=make,
        still_valid=lambda product: not _gone(*_recorded(product)),
    )


def raw_files(product: Product) -> tuple[Path, list[RemoteFile]]:
    """The folder of a raw product and its files; ValueError where they are no longer what was verified."""
    root, files = _recorded(product)
    if gone := _gone(root, files):
        raise ValueError(
            f"{product.name}: {len(gone)} of {len(files)} files under {root} are gone or changed, "
            f"first {gone[0].path}: materialize it again"
        )
    return root, files


def _recorded(product: Product) -> tuple[Path, list[RemoteFile]]:
    root = Path((product.aside / ROOT).read_text())
    return root, [RemoteFile(**file) for file in json.loads((product.path / FILES).read_text())]


def _gone(root: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    return [file for file in files if _size(root / file.path) != file.bytes]


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _listing(source: Source, mirror: Mirror, raw_root: Path | None, retries: Retries | None) -> list[RemoteFile]:
    """The source's own list, complete; FileNotFoundError where the mirror has none."""
    if mirror.folder is not None:
        folder = mirror.folder

        def read(path: str) -> bytes:
            # One of the lists may be a folder where `wget -r` went on below it.
            if not (folder / path).is_file():
                raise FileNotFoundError(path)
            return (folder / path).read_bytes()

        return source.list_files(read)
    with Transfer(connections=1, retries=retries) as transfer:
        return source.list_files(lambda path: transfer.get(mirror.urls(path), raw_root / path if raw_root else None))


def _held(source: Source, listing: Sequence[RemoteFile], folder: Path) -> list[RemoteFile]:
    """The part of a list that belongs to partitions of which a folder has a file."""

    @cache
    def names(parent: str) -> frozenset[str]:
        directory = folder / parent
        return frozenset(entry.name for entry in directory.iterdir()) if directory.is_dir() else frozenset()

    def has(path: str) -> bool:
        parent, _, name = path.rpartition("/")
        return name in names(parent)

    partitions = {file.path: source.partition_of(file.path) for file in listing}
    held = {partition for path, partition in partitions.items() if partition is not None and has(path)}
    return [file for file in listing if partitions[file.path] in held or (held and source.shared(file.path))]


def _verify(
    source: Source,
    files: Sequence[RemoteFile],
    mirror: Mirror,
    folder: Path,
    connections: int,
    progress: OnProgress | None,
) -> Manifest:
    """The manifest of files that a folder mirror holds."""
    missing = [file.path for file in files if not (folder / file.path).is_file()]
    if missing:
        raise _lacking(source, mirror, missing)
    tally = _Tally(len(files), progress)
    found = _each(files, lambda file: _as_found(file, folder, tally), connections)
    wrong = [now for listed, now in zip(files, found, strict=True) if now.checksum != listed.checksum]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(files)} files in {mirror} are not what their source lists, first {wrong[0].path} "
            f"({wrong[0].checksum}): fetch them again, or correct the mirror's list"
        )
    return Manifest(root=folder, files=tuple(found))


def _bring(
    source: Source,
    files: Sequence[RemoteFile],
    mirror: Mirror,
    root: Path,
    connections: int,
    progress: OnProgress | None,
    retries: Retries | None,
) -> Manifest:
    """The manifest of files fetched below root."""
    tally = _Tally(len(files), progress)
    folder = root / source.root
    folder.mkdir(parents=True, exist_ok=True)
    # Partitions share files, and hosts count connections: one process at a time fetches from a source.
    with FileLock(folder / ".lock"), Transfer(connections=connections, retries=retries) as transfer:
        try:
            brought = _each(
                files, lambda file: _fetched(file, root, mirror, transfer, tally), connections, transfer.stop
            )
        except FileNotFoundError as error:
            raise _lacking(source, mirror, [str(error)]) from error
    return Manifest(root=root, files=tuple(brought))


class _Tally:
    """Counts what several threads bring, and reports it."""

    def __init__(self, of_files: int, progress: OnProgress | None) -> None:
        self._now = Progress(files=0, of_files=of_files, bytes=0)
        self._progress = progress
        self._lock = threading.Lock()

    def add(self, *, files: int = 0, bytes: int = 0) -> None:
        with self._lock:
            self._now = replace(self._now, files=self._now.files + files, bytes=self._now.bytes + bytes)
            if self._progress is not None:
                self._progress(self._now)


def _each(
    files: Sequence[RemoteFile],
    work: Callable[[RemoteFile], RemoteFile],
    threads: int,
    stop: Callable[[], None] = lambda: None,
) -> list[RemoteFile]:
    """work(file) of each, in threads; the first failure is raised and the others are stopped. Results in order."""
    with ThreadPoolExecutor(threads, thread_name_prefix="download") as pool:
        futures = [pool.submit(work, file) for file in files]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _as_found(file: RemoteFile, folder: Path, tally: _Tally) -> RemoteFile:
    """A file of a folder mirror with the size and the checksum that it has there."""
    path = folder / file.path
    size = path.stat().st_size
    found = checksum_of(path, file.checksum)
    tally.add(files=1, bytes=size)
    return replace(file, checksum=found, bytes=size)


def _fetched(file: RemoteFile, root: Path, mirror: Mirror, transfer: Transfer, tally: _Tally) -> RemoteFile:
    """A file below root, which it is fetched to where it is not there yet, with its size."""
    path = root / file.path
    if path.is_file() and checksum_of(path, file.checksum) == file.checksum:
        tally.add(bytes=path.stat().st_size)
    else:
        try:
            transfer.fetch(mirror.urls(file.path), path, file.checksum, lambda gained: tally.add(bytes=gained))
        except FileNotFoundError as error:
            raise FileNotFoundError(file.path) from error
    tally.add(files=1)
    return replace(file, bytes=path.stat().st_size)


def _no_list(source: Source, mirror: Mirror, error: FileNotFoundError) -> ValueError:
    return ValueError(
        f"{source.name}: {mirror} has no list of its files ({error}): fetch the list as well, it holds the checksums"
    )


def _lacking(source: Source, mirror: Mirror, missing: Sequence[str]) -> ValueError:
    return ValueError(
        f"{source.name}: {missing[0]} is listed but not in {mirror} ({len(missing)} missing): "
        "complete it, take the partition out of its list, or use another mirror"
    )

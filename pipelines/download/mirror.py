"""Where a source's files come from: the original hosts, a mirror URL, or a mirror folder that is read in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from urllib.parse import quote

from pipelines.addresses import is_address, shown
from pipelines.download.fetch import ProgressCounter, map_in_threads
from pipelines.download.http import MOST_LIST, Retries, Transfer, checksum_of
from pipelines.download.layout import Layout, Place
from pipelines.download.list_cache import discard
from pipelines.download.progress import OnProgress
from pipelines.formats.limits import require_size
from pipelines.home import check_url
from pipelines.sources.base import RemoteFile, Source, addresses


@dataclass(frozen=True)
class Mirror:
    """Place that files are taken from: a folder, a base URL, or (None) the original hosts."""

    place: Path | str | None = None

    @classmethod
    def parse(cls, text: str | None) -> Mirror:
        """Parse a mirror as a user writes it; None or an empty text means the original hosts.

        Raises ValueError if a folder does not exist.
        """
        if not text:
            return cls(None)
        if is_address(text):
            check_url(text)
            return cls(text.rstrip("/"))
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise ValueError(f"mirror {shown(text)}: no such folder; give one that holds physionet.org/ or zenodo.org/")
        return cls(folder.resolve())

    @property
    def folder(self) -> Path | None:
        """The folder, or None if files come over the network."""
        return self.place if isinstance(self.place, Path) else None

    def urls(self, path: str) -> tuple[str, ...]:
        """Return the addresses of a file, in the order in which they are tried. Not for a folder."""
        assert self.folder is None
        if self.place is None:
            return tuple(quote(url, safe=":/") for url in addresses(path))
        return (f"{self.place}/{quote(path)}",)

    def __str__(self) -> str:
        return "the original hosts" if self.place is None else f"the mirror {self.place}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Verified files below one folder, each with its size."""

    root: Path
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes or 0 for file in self.files)


def list_source(source: Source, mirror: Mirror, *, raw_root: Path | None = None) -> list[RemoteFile]:
    """List the files of the partitions that a mirror holds, with the files that partitions share.

    raw_root: folder of the local copies of lists that come over the network; they are used if the host cannot be
    reached.

    Returns an empty list if the mirror does not have the source. Raises ValueError if it has files of it and no list.
    """
    place = _place(source, mirror)
    try:
        listing = _listing(source, mirror, place, raw_root, None)
    except FileNotFoundError as error:
        if mirror.place is None or (place is not None and place.files.is_dir()):
            raise _no_list_error(source, mirror, error) from error
        return []
    return listing if place is None else _of_held_partitions(source, listing, place)


def _place(source: Source, mirror: Mirror) -> Place | None:
    """Return where a folder mirror has, or should have, the source's files; None if it is no folder."""
    return None if mirror.folder is None else Layout(source, mirror.folder).place()


def absence(source: Source, mirror: Mirror) -> str:
    """Say that a mirror has nothing of a source; for a folder, what was looked for and what was found."""
    if mirror.folder is None:
        return f"{source.name}: {mirror} has no partition of it: use another with `ecg mirror`"
    return f"{source.name}: {mirror} has no files of it: {Layout(source, mirror.folder).absence()}"


def absent(source: Source, mirror: Mirror) -> str:
    """Say shortly that a mirror has nothing of a source, and what is near it in a folder."""
    near = None if mirror.folder is None else Layout(source, mirror.folder).near()
    return "not in this mirror" + (f": {near}" if near else "")


def partition_files(
    source: Source, partition: str, *, mirror: Mirror, raw_root: Path, retries: Retries | None = None
) -> list[RemoteFile]:
    """List the files that a partition needs. Raises ValueError if the source's list has none of them."""
    place = _place(source, mirror)
    try:
        listing = _listing(source, mirror, place, raw_root, retries)
    except FileNotFoundError as error:
        raise _no_list_error(source, mirror, error) from error
    files = source.files_of(listing, partition)
    if not files:
        there = ", ".join(source.available(listing)) or "none"
        raise ValueError(
            f"partition {partition} of {source.name}: the list of {mirror} names no file of it; "
            f"it has {there}: take one of these, or complete the mirror with its list"
        )
    return files


def _listing(
    source: Source, mirror: Mirror, place: Place | None, raw_root: Path | None, retries: Retries | None
) -> list[RemoteFile]:
    """Return the source's complete list. Raises FileNotFoundError if the mirror does not have it."""
    if place is not None:

        def read(path: str) -> bytes:
            file = place.path(source, path)
            # A list's path may be a folder if `wget -r` descended into it.
            if not file.is_file():
                raise FileNotFoundError(path)
            require_size(file, MOST_LIST, "a list", "correct the mirror")
            return file.read_bytes()

        return source.list_files(read)
    copies: list[Path] = []
    with Transfer(connections=1, retries=retries) as transfer:

        def fetch(path: str) -> bytes:
            copies.extend([raw_root / path] if raw_root else [])
            return transfer.get(mirror.urls(path), copies[-1] if raw_root else None)

        try:
            return source.list_files(fetch)
        except ValueError:  # not a list, for example a proxy's page, dated today
            for copy in copies:
                discard(copy)
            raise


def _of_held_partitions(source: Source, listing: Sequence[RemoteFile], place: Place) -> list[RemoteFile]:
    """Return the part of a list that belongs to partitions of which a folder has at least one file."""

    @cache
    def names(directory: Path) -> frozenset[str]:
        return frozenset(entry.name for entry in directory.iterdir()) if directory.is_dir() else frozenset()

    def has(path: str) -> bool:
        file = place.path(source, path)
        return file.name in names(file.parent)

    partitions = {file.path: source.partition_of(file.path) for file in listing}
    held_partitions = {partition for path, partition in partitions.items() if partition is not None and has(path)}
    return [
        file
        for file in listing
        if partitions[file.path] in held_partitions or (held_partitions and source.shared(file.path))
    ]


def find_in_folder(
    source: Source,
    files: Sequence[RemoteFile],
    mirror: Mirror,
    folder: Path,
    links: Path,
    connections: int,
    progress: OnProgress | None,
) -> Manifest:
    """Verify files in place in a folder mirror. Raises ValueError if one is missing or differs from the list.

    links: the folder for links to files that are not at their `wget -r` paths.
    """
    root = Layout(source, folder).place().root(source, links)
    missing = [file.path for file in files if not (root / file.path).is_file()]
    if missing:
        raise missing_files_error(source, mirror, missing)
    counter = ProgressCounter(files, progress)
    measured = map_in_threads(files, lambda file: _measured(file, root, counter), connections)
    wrong = [now for listed, now in zip(files, measured, strict=True) if now.checksum != listed.checksum]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {len(files)} files in {mirror} are not what their source lists, first {wrong[0].path} "
            f"({wrong[0].checksum}): fetch them into that folder again, or correct its list; "
            "nothing is written to it from here"
        )
    return Manifest(root=root, files=tuple(measured))


def _measured(file: RemoteFile, folder: Path, counter: ProgressCounter) -> RemoteFile:
    """Return a file of a folder mirror with the size and the checksum that it has there."""
    path = folder / file.path
    size = path.stat().st_size
    checksum = checksum_of(path, file.checksum)
    counter.add(files=1, bytes=size)
    return replace(file, checksum=checksum, bytes=size)


def _no_list_error(source: Source, mirror: Mirror, error: FileNotFoundError) -> ValueError:
    """Return the error of a mirror without the list of a source."""
    place = _place(source, mirror)
    if place is not None and not place.files.is_dir():
        return ValueError(absence(source, mirror))
    return ValueError(
        f"{source.name}: {mirror} has no list of its files ({error}): fetch the list as well, it holds the checksums"
    )


def missing_files_error(source: Source, mirror: Mirror, missing: Sequence[str]) -> ValueError:
    """Return the error of a mirror without files that its list names."""
    return ValueError(
        f"{source.name}: {missing[0]} is listed but not in {mirror} ({len(missing)} missing): "
        "complete it, take the partition out of its list, or use another mirror"
    )

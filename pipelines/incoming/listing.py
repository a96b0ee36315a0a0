"""Which drops are whole, and what lies in one. Nothing is opened here, and no link is followed."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.download.fetch import map_in_threads
from pipelines.hashing import digest_of
from pipelines.sources.base import is_plain

NAME = "incoming"
MARKER = "_COMPLETE"
_THREADS = 8
# A drop's name becomes a folder and a partition key; Dagster reads `...` in a key as a range.
_DROP = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, order=True)
class Found:
    """A file of a drop: its path inside it, with `/`, its size, and what tells its version from others: in a folder
    the time of change in nanoseconds, in a bucket the store's tag."""

    path: str
    bytes: int
    version: str


@dataclass(frozen=True, order=True)
class Refused:
    """What lies in a drop and will not be taken, and why."""

    path: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What lies in a drop, without hidden files and the marker. marked: whether the marker is there."""

    files: tuple[Found, ...]
    refused: tuple[Refused, ...]
    marked: bool

    @property
    def digest(self) -> str:
        """Of paths, sizes and versions, so that a look costs no reading: it tells when the drop was changed, and
        taking it tells by the bytes whether that matters."""
        files = [[file.path, file.bytes, file.version] for file in self.files]
        return digest_of({"files": files, "refused": [[one.path, one.why] for one in self.refused]})


class Place(Protocol):
    """Where drops are put: a folder with a sub-folder a drop (`FolderOfDrops`), or a bucket (`pipelines.
    incoming.bucket`)."""

    @property
    def tags_are_sure(self) -> bool:
        """Whether files of one listing are the same bytes. A time of change is not."""
        ...

    def is_there(self) -> bool:
        """False where somebody has to make it first."""
        ...

    def names(self) -> list[str]:
        """The names of what may be a drop, in order."""
        ...

    def listing(self, name: str) -> Listing:
        """What lies in a drop; ValueError where there is none of that name."""
        ...

    def brought(self, name: str, listing: Listing, here: Path) -> Path:
        """A folder with the drop's files on this machine: where it lies, or below `here`, which is ours."""
        ...


@dataclass(frozen=True)
class FolderOfDrops:
    """A folder with a sub-folder a drop."""

    path: Path

    @property
    def tags_are_sure(self) -> bool:
        return False

    def __str__(self) -> str:
        return str(self.path)

    def is_there(self) -> bool:
        return self.path.is_dir()

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        entries = sorted(self.path.iterdir())
        return [one.name for one in entries if one.name[0] != "." and one.is_dir() and not one.is_symlink()]

    def listing(self, name: str) -> Listing:
        return list_drop(self.path / name)

    def brought(self, name: str, listing: Listing, here: Path) -> Path:
        return self.path / name


@dataclass(frozen=True, kw_only=True)
class CompleteDrop:
    """A drop whose marker is there."""

    name: str
    listing: Listing


def check_name(name: str) -> str:
    """The name of a drop; ValueError for one that cannot be a partition."""
    if not _DROP.fullmatch(name):
        raise ValueError(
            f"drop {name!r}: use 1 to 64 letters, digits, '_', '-' and '.', no '..', and a letter or digit first"
        )
    return name


def complete_drops(place: Place) -> list[CompleteDrop]:
    """The drops whose marker is there, by name.

    A drop that holds what is refused is among them, so that taking it says so.
    """
    names = [name for name in place.names() if _DROP.fullmatch(name)]
    listings = map_in_threads(names, place.listing, _THREADS)
    found = zip(names, listings, strict=True)
    return [CompleteDrop(name=name, listing=listing) for name, listing in found if listing.marked]


def misnamed_drops(place: Place) -> list[str]:
    """The names that can be no drop's: nobody would ever hear of them."""
    return [name for name in place.names() if not _DROP.fullmatch(name)]


def refusal(path: str) -> Refused | None:
    """Why a file of this name, its path inside the drop, is not taken; None where it is."""
    if is_plain(path):
        return None
    return Refused(path, "its name: use ASCII letters, digits and .-_+=@,()'~ and spaces")


def list_drop(folder: Path) -> Listing:
    """What lies in a drop's folder, in order of path.

    Refused are links, since they lead elsewhere, what is neither file nor folder, names that another machine may not
    hold, and folders that cannot be read. Raises ValueError where there is no such folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{folder}: no such folder (a link is none): give the folder of a drop")
    marked = _is_marked(folder)  # before the files, which are all there once it is
    files: list[Found] = []
    refused: list[Refused] = []
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                inside = [(entry, entry.stat(follow_symlinks=False)) for entry in entries if entry.name[0] != "."]
        except OSError as error:
            refused.append(Refused(current.relative_to(folder).as_posix(), f"cannot be read: {error.strerror}"))
            continue
        for entry, status in inside:
            path = Path(entry.path).relative_to(folder).as_posix()
            if stat.S_ISLNK(status.st_mode):
                refused.append(Refused(path, "a link: put the file itself there"))
            elif (misnamed := refusal(path)) is not None:
                refused.append(misnamed)
            elif stat.S_ISDIR(status.st_mode):
                waiting.append(Path(entry.path))
            elif not stat.S_ISREG(status.st_mode):
                refused.append(Refused(path, "neither a file nor a folder"))
            elif path != MARKER:
                files.append(Found(path, status.st_size, str(status.st_mtime_ns)))
    return Listing(files=tuple(sorted(files)), refused=tuple(sorted(refused)), marked=marked)


def _is_marked(folder: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and not marker.is_symlink()

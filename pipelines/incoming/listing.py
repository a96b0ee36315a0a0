"""List drops and the files in them. No file is opened, and no link is followed."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipelines.download.fetch import map_in_threads
from pipelines.formatting import format_name
from pipelines.hashing import digest_of
from pipelines.sources.base import is_plain

NAME = "incoming"
MARKER = "_COMPLETE"
LONGEST_NAME = 240  # letters; a copy in progress adds a few, and file systems take 255
_THREADS = 8
# A drop's name becomes a folder and a partition key; Dagster reads `...` in a key as a range.
_DROP = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, order=True)
class ListedFile:
    """A file of a drop."""

    path: str
    """Path inside the drop, with `/`."""

    bytes: int

    version: str
    """What distinguishes its versions: the modification time in nanoseconds, or in a bucket the store's tag."""


@dataclass(frozen=True, order=True)
class Refused:
    """An entry of a drop that is not taken."""

    path: str
    why: str  # reason, for people


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a drop, without hidden files and the marker."""

    files: tuple[ListedFile, ...]
    refused: tuple[Refused, ...]
    marked: bool  # whether the marker is there

    @property
    def digest(self) -> str:
        """Digest of paths, sizes and versions, which needs no reading.

        It tells when the drop was changed; whether that matters, the bytes decide when the drop is taken.
        """
        files = [[file.path, file.bytes, file.version] for file in self.files]
        return digest_of({"files": files, "refused": [[entry.path, entry.why] for entry in self.refused]})


class Place(Protocol):
    """A place of drops: a folder (`FolderOfDrops`), or a bucket (`pipelines.incoming.bucket.BucketOfDrops`)."""

    @property
    def tags_are_sure(self) -> bool:
        """Whether files of the same listing have the same bytes. A modification time does not guarantee it."""
        ...

    def is_there(self) -> bool:
        """Whether it exists. If not, it has to be created first."""
        ...

    def names(self) -> list[str]:
        """Return the names of possible drops, in order."""
        ...

    def listing(self, name: str) -> Listing:
        """List a drop. Raises ValueError if there is none of that name."""
        ...

    def fetch(self, name: str, listing: Listing, here: Path) -> Path:
        """Return a folder with the drop's files on this machine: its own folder, or one below `here`."""
        ...


@dataclass(frozen=True)
class FolderOfDrops:
    """A folder with one sub-folder per drop."""

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
        return [entry.name for entry in entries if entry.name[0] != "." and entry.is_dir() and not entry.is_symlink()]

    def listing(self, name: str) -> Listing:
        return list_drop(self.path / name)

    def fetch(self, name: str, listing: Listing, here: Path) -> Path:
        return self.path / name


@dataclass(frozen=True, kw_only=True)
class CompleteDrop:
    """A drop whose marker is there."""

    name: str
    listing: Listing


def check_name(name: str) -> str:
    """Return a drop's name. Raises ValueError if it cannot be a partition."""
    if not _DROP.fullmatch(name):
        raise ValueError(
            f"drop {name!r}: use 1 to 64 letters, digits, '_', '-' and '.', no '..', and a letter or digit first"
        )
    return name


def complete_drops(place: Place) -> list[CompleteDrop]:
    """Return the drops whose marker is there, by name.

    A drop with refused entries is among them, so that taking it reports them.
    """
    names = [name for name in place.names() if _DROP.fullmatch(name)]
    listings = map_in_threads(names, place.listing, _THREADS)
    pairs = zip(names, listings, strict=True)
    return [CompleteDrop(name=name, listing=listing) for name, listing in pairs if listing.marked]


def misnamed_drops(place: Place) -> list[str]:
    """Return the names that cannot be a drop's, escaped, which would otherwise be ignored silently."""
    return [format_name(name) for name in place.names() if not _DROP.fullmatch(name)]


def refusal(path: str) -> Refused | None:
    """Return why a file of this name, its path inside the drop, is not taken; None if it is."""
    longest = max(len(part) for part in path.split("/"))
    if is_plain(path) and longest <= LONGEST_NAME:
        return None
    if is_plain(path):
        return Refused(path, f"its name has {longest} letters: use at most {LONGEST_NAME}")
    return Refused(format_name(path), "its name: use ASCII letters, digits and .-_+=@,()'~ and spaces")


def list_drop(folder: Path) -> Listing:
    """List a drop's folder, in order of path.

    Refused are links, since they lead elsewhere; entries that are neither file nor folder; names that another machine
    may not accept; and folders that cannot be read. Raises ValueError if there is no such folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{folder}: no such folder (a link is none): give the folder of a drop")
    marked = _is_marked(folder)  # before listing the files, which are complete once the marker is there
    files: list[ListedFile] = []
    refused: list[Refused] = []
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                inside = [(entry, entry.stat(follow_symlinks=False)) for entry in entries if entry.name[0] != "."]
        except OSError as error:
            refused.append(
                Refused(format_name(current.relative_to(folder).as_posix()), f"cannot be read: {error.strerror}")
            )
            continue
        for entry, status in inside:
            path = Path(entry.path).relative_to(folder).as_posix()
            if stat.S_ISLNK(status.st_mode):
                refused.append(Refused(format_name(path), "a link: put the file itself there"))
            elif (misnamed := refusal(path)) is not None:
                refused.append(misnamed)
            elif stat.S_ISDIR(status.st_mode):
                waiting.append(Path(entry.path))
            elif not stat.S_ISREG(status.st_mode):
                refused.append(Refused(format_name(path), "neither a file nor a folder"))
            elif path != MARKER:
                files.append(ListedFile(path, status.st_size, str(status.st_mtime_ns)))
    return Listing(files=tuple(sorted(files)), refused=tuple(sorted(refused)), marked=marked)


def _is_marked(folder: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and not marker.is_symlink()

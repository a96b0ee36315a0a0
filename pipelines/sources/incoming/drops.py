"""The folder of drops: which drops are whole, and what lies in one. Nothing is opened here, and no link is followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.base import is_plain
from pipelines.stage import digest_of

NAME = "incoming"
MARKER = "_COMPLETE"
# A drop's name becomes a folder and a partition key; Dagster reads `...` in a key as a range.
_DROP = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


@dataclass(frozen=True, order=True)
class Found:
    """A file of a drop: its path inside it, with `/`, its size, and its time of change in nanoseconds."""

    path: str
    bytes: int
    changed: int


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


@dataclass(frozen=True, kw_only=True)
class DropFolder:
    """A drop that is complete. digest: of its paths, sizes and times, so that a look costs no reading; it tells when
    the drop was changed, and taking it tells by the bytes whether that matters."""

    name: str
    path: Path
    digest: str
    files: int
    bytes: int


def check_name(name: str) -> str:
    """The name of a drop; ValueError for one that cannot be a partition."""
    if not _DROP.fullmatch(name):
        raise ValueError(
            f"drop {name!r}: use 1 to 64 letters, digits, '_', '-' and '.', no '..', and a letter or digit first"
        )
    return name


def complete_drops(incoming: Path) -> list[DropFolder]:
    """The drops whose marker is there, by name; none where there is no such folder.

    A drop that holds what is refused is among them, so that taking it says so.
    """
    found: list[DropFolder] = []
    for entry in _folders(incoming):
        if not _DROP.fullmatch(entry.name) or not _is_marked(entry):
            continue
        listing = list_drop(entry)
        files = [[file.path, file.bytes, file.changed] for file in listing.files]
        refused = [[one.path, one.why] for one in listing.refused]
        found.append(
            DropFolder(
                name=entry.name,
                path=entry,
                digest=digest_of({"files": files, "refused": refused}),
                files=len(files),
                bytes=sum(file.bytes for file in listing.files),
            )
        )
    return found


def misnamed_drops(incoming: Path) -> list[str]:
    """The sub-folders that can be no drop by their name: nobody would ever hear of them."""
    return [entry.name for entry in _folders(incoming) if not _DROP.fullmatch(entry.name)]


def list_drop(folder: Path) -> Listing:
    """What lies in a drop's folder, in order of path.

    Refused are links, since they lead elsewhere, what is neither file nor folder, names that another machine may not
    hold, and folders that cannot be read. Raises ValueError where there is no such folder.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{folder}: no such folder (a link is none): give the folder of a drop")
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
            elif not is_plain(path):
                refused.append(Refused(path, "its name: use ASCII letters, digits and .-_+=@,()'~ and spaces"))
            elif stat.S_ISDIR(status.st_mode):
                waiting.append(Path(entry.path))
            elif not stat.S_ISREG(status.st_mode):
                refused.append(Refused(path, "neither a file nor a folder"))
            elif path != MARKER:
                files.append(Found(path, status.st_size, status.st_mtime_ns))
    return Listing(files=tuple(sorted(files)), refused=tuple(sorted(refused)), marked=_is_marked(folder))


def _folders(incoming: Path) -> Iterator[Path]:
    if incoming.is_dir():
        for entry in sorted(incoming.iterdir()):
            if entry.name[0] != "." and entry.is_dir() and not entry.is_symlink():
                yield entry


def _is_marked(folder: Path) -> bool:
    marker = folder / MARKER
    return marker.is_file() and not marker.is_symlink()

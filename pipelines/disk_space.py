"""A full disk, said in one sentence: where, what is free, what was needed if that is known, and what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.formatting import format_bytes

# Errors of a full disk, an exhausted quota, and a limit on the size of one file.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What NumPy, safetensors, SQLite and programs that pass on the text of an error say, without its number.
_SAID = re.compile(
    r"No space left on device|Disk quota exceeded|database or disk is full|Not enough free space to write \d+ bytes"
    r"|\d+ requested and \d+ written"
)
# What SQLite says where the file that its processes share cannot grow; it says so of a broken disk, too.
_PERHAPS_SAID = "disk I/O error"
_SHARED_BYTES = 32_768  # that this file grows by


class DiskFull(OSError):
    """A disk has no room. The same try fails again until somebody makes room."""

    def __init__(self, place: Path, reason: str, needed: int | None = None) -> None:
        needs = "" if needed is None else f"{format_bytes(needed)} are needed and "
        super().__init__(
            f"no room left in {place} ({reason}): {needs}{format_bytes(_free_bytes(place))} are free; make "
            "room, for example with `ecg gc`, or use a larger disk, and run it again: it resumes where it stopped"
        )
        self.errno = errno.ENOSPC


@contextmanager
def full_disk_explained(place: Path, needed: int | None = None) -> Iterator[None]:
    """Raise DiskFull for any error of the body that comes from a full disk.

    place: the file or folder that the body writes.
    needed: its bytes, if they are known.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        reason = _full_disk_in(error, place)
        if reason is None:
            raise
        raise DiskFull(place, reason, needed) from error


def reserve(path: Path) -> None:
    """Give a file that has its size, but not yet its bytes, its place on the disk.

    A memory-mapped file without it kills the process if the disk is full when it is written.
    """
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def _free_bytes(place: Path) -> int:
    """Return the free bytes of the disk of a file or folder, which need not exist yet."""
    exists = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(exists).free


def _full_disk_in(error: BaseException, place: Path) -> str | None:
    """Return what an error, or one that it came from, says of a full disk; None if it is of something else."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return os.strerror(seen.errno)
        if said := _SAID.search(str(seen)):
            return said.group()
        if _PERHAPS_SAID in str(seen) and _free_bytes(place) < _SHARED_BYTES:
            return _PERHAPS_SAID
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None

"""Writing that survives a loss of power.

A rename is atomic for programs, not for the disk: after a loss of power a file may have its name and no bytes. So bytes
are flushed before the name that vouches for them is written, and a folder is flushed after a name in it has changed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""The ending of a file that is being written; its name begins with a dot."""
_ONE_BY_ONE = 16
"""Files and folders up to which each is written to the disk on its own."""


def flush(path: Path) -> None:
    """Write a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(root: Path) -> None:
    """Write all files and folders below a folder to the disk, and the folder itself."""
    _flush_all([Path(folder, name) for folder, _, names in os.walk(root, topdown=False) for name in [*names, ""]])


def flush_files(files: Iterable[Path], root: Path) -> None:
    """Write files, their folders and those between them and a root to the disk."""
    files = list(files)
    folders = {file.parent for file in files}
    folders |= {above for folder in folders for above in folder.parents if above.is_relative_to(root)}
    _flush_all([*files, *sorted(folders, reverse=True)])


def _flush_all(paths: Sequence[Path]) -> None:
    """Write files and folders of one file system to the disk.

    Many are written at once, with all else that waits on their file system: each on its own costs an entry in the
    file system's log, 3 ms on a common disk, which for the two small files of a record is as long as harmonizing it.
    """
    if len(paths) <= _ONE_BY_ONE or not flush_file_system(paths[-1]):
        for path in paths:
            flush(path)


def flush_file_system(path: Path) -> bool:
    """Write all of the file system that a path is on to the disk; False if this machine has no call for that."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)  # of Linux
    if syncfs is None:
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
    return True


def replace(source: Path, target: Path) -> None:
    """Rename a file or folder that is on the disk, and write the new name to the disk."""
    source.replace(target)
    flush(target.parent)
    if source.parent != target.parent:
        flush(source.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each with its name on the disk."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def write_once(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, unless it exists: of several that write it at once, one does."""
    with _temporary_of(path) as stream:
        if path.exists():
            Path(stream.name).unlink()
            return
        os.fchmod(stream.fileno(), 0o600)
        _write_and_rename(stream, data, path)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it, rename it, and flush its folder."""
    with _temporary_of(path) as stream:
        _write_and_rename(stream, data, path)


def _write_and_rename(stream: BinaryIO, data: bytes, path: Path) -> None:
    temporary = Path(stream.name)
    try:
        stream.truncate(0)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _temporary_of(path: Path) -> Iterator[BinaryIO]:
    """Open the temporary file of a path to append to it; other threads and processes that do so wait.

    Its name is the same each time: what a killed process leaves there is the next one's.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}{TEMPORARY}")
    while True:
        with temporary.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # Whoever held the lock before has renamed or removed the file, unless it was killed.
            if _is_still_at(temporary, stream):
                yield stream
                return


def _is_still_at(path: Path, stream: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False

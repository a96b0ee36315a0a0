"""Locks between the processes of one data home, by flock: a process that ends, however it ends, holds none.

The file system is assumed to keep flock between all machines that use the home: a local one does, and NFS version 4.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from pipelines.formatting import format_duration

log = logging.getLogger(__name__)

REMINDER_SECONDS = 30.0
"""Time between two lines that say on whom a process waits."""

_HELD = re.compile(r"^\d+: FLOCK +\S+ +\S+ +(\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE)


@contextmanager
def exclusive(path: Path, subject: str) -> Iterator[None]:
    """Hold a lock file alone. While another process holds it, wait, and say so from time to time.

    subject: what the lock is of, for the log.
    """
    lock, began, patience = FileLock(path), time.monotonic(), 0.0
    while True:
        try:
            lock.acquire(timeout=patience)
            break
        except Timeout:
            so_far = f" for {format_duration(time.monotonic() - began)} already" if patience else ""
            log.warning("%s: waiting%s for %s, which is at work on it", subject, so_far, holder(path))
            patience = REMINDER_SECONDS
    try:
        yield
    finally:
        lock.release()


@contextmanager
def exclusive_now(path: Path, refusal: str) -> Iterator[IO[bytes]]:
    """Hold a lock file alone, without waiting. Yields the open file: a child that gets it holds the lock, too.

    Raises ValueError if another process holds it, with the refusal, in which `{holder}` stands for that process.
    """
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(refusal.format(holder=holder(path))) from None
        yield stream


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold a file together with other readers, so that `unheld` finds it held."""
    with path.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)
        yield


@contextmanager
def unheld(path: Path) -> Iterator[bool]:
    """Yield whether nobody holds a file by `shared`; if so, nobody can until the body ends."""
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def holder(path: Path) -> str:
    """Return the process that holds a lock, in words; without its number if the system does not tell."""
    try:
        held, seen = Path("/proc/locks").read_text(), path.stat()
    except FileNotFoundError:  # no Linux, or the holder has just removed the lock file
        return "another process"
    for number, major, minor, inode in _HELD.findall(held):
        if (int(inode), os.makedev(int(major, 16), int(minor, 16))) == (seen.st_ino, seen.st_dev) and number != "0":
            return f"process {number}" if Path("/proc", number).exists() else "another process"
    return "another process"

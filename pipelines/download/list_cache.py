"""Local copies of the hosts' file lists, so that finished partitions are recognised offline.

A copy counts only if it is as it arrived: its sha256 is stored beside it under a hidden name, which no listed path can
have.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pipelines.durable import flush, write_atomically


def store(path: Path, data: bytes, modified: float) -> None:
    """Store a list at `path`. modified: the host's date of it in seconds since the epoch, 0 if it sent none."""
    # The list first: if killed between the two, the old checksum does not match and the list is fetched again.
    write_atomically(path, data)
    os.utime(path, (modified, modified))
    flush(path)  # its date, too: with a later one the host would not be asked for a newer list
    write_atomically(_checksum_file(path), hashlib.sha256(data).hexdigest().encode())


def load(path: Path) -> bytes | None:
    """Return a stored list, or None if there is none or if it was changed."""
    if not path.is_file() or not _checksum_file(path).is_file():
        return None
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == _checksum_file(path).read_text() else None


def discard(path: Path) -> None:
    """Delete a stored list that could not be parsed, so that it is fetched again regardless of its date."""
    _checksum_file(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _checksum_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")

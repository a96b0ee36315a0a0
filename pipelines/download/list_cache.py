"""Lists of files as they came from a host, kept so that what is finished can be found again without the host.

A kept list counts only while it is the one that came: its sha256 lies beside it under a hidden name, which no listed
path can have.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pipelines.cache import write_atomically


def store(path: Path, data: bytes, modified: float) -> None:
    """Keep a list at `path`; modified: the host's date of it in seconds since the epoch, 0 where it gave none."""
    # The list first: killed between the two, the old checksum does not fit it and it is fetched again.
    write_atomically(path, data)
    os.utime(path, (modified, modified))
    write_atomically(_beside(path), hashlib.sha256(data).hexdigest().encode())


def load(path: Path) -> bytes | None:
    """A list that was kept; None where there is none, or where it is not what came."""
    if not path.is_file() or not _beside(path).is_file():
        return None
    data = path.read_bytes()
    return data if hashlib.sha256(data).hexdigest() == _beside(path).read_text() else None


def discard(path: Path) -> None:
    """Let go of a list that turned out to be none: the next time it comes anew, whatever its date."""
    _beside(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")

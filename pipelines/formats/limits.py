"""What is read of a file from outside at most, and the means to hold to it before memory is taken.

A new format passes `require_size` before its file is opened, and reads through a `BoundedStream` if a library parses
what the file says about its own sizes. The limits of an encoder's file are in `ecg_model/encoder.py`, those of vendors'
formats in `pipelines/formats/vendor/limits.py`.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

MIB = 1 << 20

LEADS = 64  # of a record: the usual ones are at most 18, and each takes memory in every block that is read
RECORDS = 1_000_000  # of a file, and of a drop: what is known of each takes up to a kilobyte
RECORD_BYTES = 256 * MIB  # of one record's file or array: an hour of 12 leads at 2,000 Hz in 16 bit has 173 MB
HEADER_BYTES = 1 * MIB  # of one record's header or annotations: real ones have a few kilobytes
JSON_BYTES = 32 * MIB  # of a JSON text: in memory it takes up to eight times as much
JSON_VALUES = 3_000_000  # of a JSON text: `{}` has two bytes, and takes 80 in memory
TABLE_BYTES = 256 * MIB  # of a source's table: the largest, exams.csv of CODE-15, has about 40 MB
TABLE_ROWS = 1_000_000  # of a table: exams.csv has 345,779
LINE_BYTES = 1 * MIB  # of a line of a table: a line is held whole
LABELS_BYTES = 32 * MIB  # of a csv of labels: its text is held whole, four bytes a letter
COLUMN_NAMES_BYTES = 64 << 10  # of the first line of a csv of numbers
COLUMN_BYTES = 128 * MIB  # of a column of text or numbers in an HDF5 file
TEXT_BYTES = 64 * MIB  # of the text in all columns of an HDF5 file: 64 letters each for a million records
CHUNK_BYTES = 128 * MIB  # of a chunk of an HDF5 file: one is held whole, packed and unpacked
PIECE_BYTES = 4 * MIB  # of what HDF5 reads at once to find its way: the usual pieces are below 64 kB
DIRECTORY_BYTES = 16 * MIB  # of a zip's table of contents: 200,000 members or so, a kilobyte each in memory
PART_BYTES = 8 << 30  # of an unpacked part of CODE-15: the real ones have 3.9 GB
SECONDS = 2.0  # of a processor for a file that a process of its own decodes: on the clock, a busy machine would drop it
PATIENCE = 120.0  # seconds on the clock after which such a process is given up
DENSEST = 1032  # deflate compresses at most this much: what states more is forged


def file_size(path: Path) -> int | None:
    """Return the bytes of a file; None if there is none, or what has its name is none, such as a folder or a pipe."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        if path.is_file():  # raises a fault of the disk
            raise
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def require_size(
    path: Path, most: int, what: str, remedy: str, error: Callable[[str], ValueError] = ValueError
) -> int | None:
    """Return the bytes of a file, as `file_size` does. Raises `error` if they are more than `most`.

    what: is read of it, in words, such as `one record`. An absent file is the business of who opens it.
    """
    size = file_size(path)
    if size is not None and size > most:
        raise error(f"{path.name}: {size:,} bytes: at most {most:,} are read of {what}: {remedy}")
    return size


def parse_json(data: bytes) -> Any:
    """Return the values of a JSON text. Raises ValueError if it is none, or has more than JSON_VALUES values."""
    if len(data) > JSON_BYTES:
        raise ValueError(f"{len(data):,} bytes, and at most {JSON_BYTES:,} are read")
    values = sum(map(data.count, (b",", b":", b"[", b"{")))  # at least as many as there are
    if values > JSON_VALUES:
        raise ValueError(f"{values:,} values, and at most {JSON_VALUES:,} are read")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


class BoundedStream:
    """A stream that raises OSError if more than `most` bytes are to be read at once.

    Libraries that believe a file's word about a size ask for so many bytes. `most` may be changed between readings.
    """

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self.most = most

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all that are left."""
        self._check(size)
        data = self._stream.read(self.most + 1 if size < 0 else size)
        self._check(len(data))
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer. Raises OSError if the stream ends before."""
        self._check(len(buffer))
        count = self._stream.readinto(buffer)  # pyright: ignore[reportAttributeAccessIssue]
        if count < len(buffer):
            raise OSError(f"{count:,} of {len(buffer):,} bytes are there")
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()

    def seekable(self) -> bool:
        """Return True."""
        return True

    def _check(self, size: int) -> None:
        if size > self.most:
            raise OSError(f"{size:,} bytes would be read at once, and at most {self.most:,} are")

"""Open zip archives of others without trusting what their directory says."""

from __future__ import annotations

import lzma
import os
import struct
import zipfile
import zlib
from typing import BinaryIO

from pipelines.formats.limits import DENSEST, DIRECTORY_BYTES, BoundedStream

DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    KeyError,
)
"""What zipfile and its decompressors raise for damaged or forged archives, beside OSError."""


def open_zip(stream: BinaryIO, directory: int = DIRECTORY_BYTES) -> zipfile.ZipFile:
    """Open an archive for reading its members in pieces of at most `directory` bytes, as its table of contents is.

    Raises BadZipFile, or one of DAMAGES, if it is none, if its directory is too large, if a member is packed by another
    method than deflate (others unpack any amount at once), if it states more than deflate can hold, or if members
    overlap, so that few bytes are unpacked many times.
    """
    size = stream.seek(0, os.SEEK_END)
    try:
        archive = zipfile.ZipFile(BoundedStream(stream, directory))  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise zipfile.BadZipFile(f"its directory cannot be read: {error}") from error
    members = archive.infolist()
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{member.filename[:60]!r} is packed by a method other than deflate")
        if member.header_offset < 0:
            raise zipfile.BadZipFile(f"{member.filename[:60]!r} would begin before the file")
        if member.file_size > DENSEST * (member.compress_size + 1):
            raise zipfile.BadZipFile(
                f"{member.filename[:60]!r} states {member.file_size:,} bytes in {member.compress_size:,}"
            )
    if sum(member.compress_size for member in members) > size:
        raise zipfile.BadZipFile("its members overlap")
    return archive

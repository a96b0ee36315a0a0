"""Read single records of harmonized shards, without decoding the chunks of 64 that they are in.

Zarr decodes whole chunks. But a chunk is a Blosc frame: blocks of about three records, each compressed by itself. A
frame of the wanted blocks alone is put together here, and Blosc decodes that, ten times as fast as the chunk.

Layout of a Zarr shard: the chunks, then offset and length of each (u64), then a checksum (4 bytes). Layout of a frame:
16 bytes of header (at 4 the decoded length, at 8 the length of a block, at 12 the frame's length; u32), the offset of
each block (u32), the blocks. All numbers are little-endian.
Shapes: N records, L leads, T samples.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numcodecs.registry import get_codec
from numpy.typing import NDArray

from pipelines.formats.shard import CHUNK, LEADS, SAMPLES, SHARD, SIGNALS

_BLOSC = get_codec({"id": "blosc"})
_RECORD = len(LEADS) * SAMPLES * 2  # bytes
_CHUNKS = SHARD // CHUNK
_CHECKSUM, _HEADER = 4, 16  # bytes
_ABSENT = 2**64 - 1  # the offset of a chunk of zeros, which is not stored
_STORED = 2  # flag of a frame that could not be compressed: the samples follow its header


def read_single(places: Sequence[tuple[Path, int]]) -> NDArray[np.int16]:
    """Return records by their shard's folder and row, int16 (N, 8, 2500), microvolt; each file is opened once.

    Raises ValueError if a file is missing or is not as a shard is written.
    """
    signal_NLT = np.empty((len(places), len(LEADS), SAMPLES), np.int16)
    files = [(folder, row // SHARD) for folder, row in places]
    for (folder, number), group in groupby(sorted(range(len(places)), key=files.__getitem__), key=files.__getitem__):
        path = folder / SIGNALS / "signal" / "c" / str(number) / "0" / "0"
        try:
            with path.open("rb") as file:
                file.seek(-16 * _CHUNKS - _CHECKSUM, os.SEEK_END)
                chunks = np.frombuffer(file.read(16 * _CHUNKS), "<u8").reshape(_CHUNKS, 2)
                for at in group:
                    row = places[at][1] % SHARD
                    offset, length = chunks[row // CHUNK].tolist()
                    signal_NLT[at] = _record(file, offset, length, row % CHUNK)
        except (OSError, RuntimeError, ValueError) as error:  # blosc raises RuntimeError
            raise ValueError(f"{path} cannot be read ({error}): harmonize the partition again") from error
    return signal_NLT


def _record(file: BinaryIO, offset: int, length: int, row: int) -> NDArray[np.int16]:
    """Return the record of a row of a chunk, which lies at an offset of a Zarr shard."""
    if offset == _ABSENT:
        return np.zeros((len(LEADS), SAMPLES), np.int16)
    file.seek(offset)
    header = file.read(_HEADER)
    decoded, block, compressed = map(int, np.frombuffer(header, "<u4", 3, 4))
    if decoded != CHUNK * _RECORD or compressed != length or not 0 < block <= decoded:
        raise ValueError(f"the chunk at {offset} is not one of {CHUNK} records")
    begin = row * _RECORD
    if header[2] & _STORED:
        file.seek(offset + _HEADER + begin)
        return np.frombuffer(file.read(_RECORD), "<i2").reshape(len(LEADS), SAMPLES)
    starts = np.frombuffer(file.read(4 * -(-decoded // block)), "<u4")
    # Blosc refuses a frame that is shorter than a block, so the last block, which may be, has the one before it.
    first, end = min(begin // block, max(decoded // block - 1, 0)), -(-(begin + _RECORD) // block)
    blocks = []
    for start in starts[first:end].tolist():
        file.seek(offset + start)
        blocks.append(file.read(min(starts[starts > start], default=length) - start))  # blocks may be in any order
    offsets = _HEADER + 4 * len(blocks) + np.cumsum([0, *map(len, blocks)])
    numbers = [min(end * block, decoded) - first * block, block, offsets[-1], *offsets[:-1]]
    part: Any = _BLOSC.decode(header[:4] + np.array(numbers, "<u4").tobytes() + b"".join(blocks))
    return np.frombuffer(part, "<i2", _RECORD // 2, begin - first * block).reshape(len(LEADS), SAMPLES)

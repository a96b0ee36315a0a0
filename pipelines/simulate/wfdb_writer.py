"""WFDB files as bytes: headers, MATLAB v4 and format 16 signals, annotations."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

INVALID = -32768
"""Format 16's mark for a missing sample."""


def digital(signal_LT: np.ndarray, gain: float = 1000.0) -> np.ndarray:
    """Convert millivolt to int16 (leads, samples), in steps of 1 / gain millivolt, clipped to format 16's range."""
    return np.clip(np.rint(signal_LT * gain), -32767, 32767).astype("<i2")


def checksum(samples_T: np.ndarray, *, signed: bool = True) -> int:
    """Return the 16-bit sum of a lead's samples, as a header states it."""
    total = int(samples_T.sum(dtype=np.int64)) & 0xFFFF
    return total - 0x10000 if signed and total >= 0x8000 else total


def mat_bytes(x_LT: np.ndarray) -> bytes:
    """Return a MATLAB v4 file with one int16 matrix `val` (leads, samples): 24 bytes of header, then the columns."""
    leads, samples = x_LT.shape
    return struct.pack("<5i4s", 30, leads, samples, 0, 4, b"val\0") + dat_bytes(x_LT)


def dat_bytes(x_LT: np.ndarray) -> bytes:
    """Return a signal file in format 16: little-endian int16, the leads interleaved."""
    return np.ascontiguousarray(x_LT.T).astype("<i2", copy=False).tobytes()


def header(
    record: str,
    x_LT: np.ndarray,
    *,
    leads: Sequence[str],
    rate: int,
    file: str,
    layout: str,
    gains: Sequence[str],
    resolution: int = 16,
    signed: bool = True,
    stamp: str = "",
    comments: Sequence[str] = (),
) -> str:
    """Return a header with one signal line per lead.

    layout: format and byte offset, such as `16+24`.
    gains: one per lead, as written (`1000/mV`).
    signed: how checksums are written.
    stamp: date or time after the record line's numbers.
    comments: lines without the `#`.
    """
    lines = [" ".join(part for part in (record, str(len(leads)), str(rate), str(x_LT.shape[1]), stamp) if part)]
    for lead, gain, x_T in zip(leads, gains, x_LT, strict=True):
        total = checksum(x_T, signed=signed)
        lines.append(f"{file} {layout} {gain} {resolution} 0 {x_T[0]} {total} 0 {lead}")
    lines += [f"#{comment}" for comment in comments]
    return "\n".join(lines) + "\n"


_CODES = {"N": 1, "p": 24, "t": 27, "(": 39, ")": 40}


def annotation_bytes(marks: Sequence[tuple[int, str]]) -> bytes:
    """Return an annotation file in MIT format of marks (sample, symbol), ascending.

    A mark is a word of its code and the samples since the previous one; longer gaps take three words more. The symbols
    are those of LUDB: `(` onset, `p`, `N`, `t` peaks, `)` offset.
    """
    words, last = [], 0
    for sample, symbol in marks:
        step, last = sample - last, sample
        if step > 0x3FF:  # does not fit the ten bits of a word
            words.append(struct.pack("<HHH", 59 << 10, step >> 16, step & 0xFFFF))
            step = 0
        words.append(struct.pack("<H", _CODES[symbol] << 10 | step))
    return b"".join(words) + b"\0\0"

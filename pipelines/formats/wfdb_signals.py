"""Signal files of WFDB records: plain 16-bit samples are read here, all other formats by the library wfdb.

Format `16` has interleaved little-endian samples, in .mat behind the 24 bytes of a MATLAB 4 matrix's head. File sizes,
first values and checksums in the header are compared with the samples, so that no changed sample is accepted. A file
that is refused raises RecordError; a fault of the disk raises OSError. Shapes: L leads, T samples; d is in ADC units, x
in millivolt.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.limits import RECORD_BYTES, file_size
from pipelines.formats.wfdb_header import (
    FORMATS,
    MAT_HEAD,
    RECORDER_GAINS,
    Header,
    Signal,
    absent,
    unreadable,
)
from pipelines.formats.wfdb_library import MOST_SAMPLES, read_samples
from pipelines.records import DropReason, RecordError

_FLAC_HEAD = 26  # bytes: signature, a block's head, and STREAMINFO as far as the number of samples


def read_signals(path: Path, header: Header) -> tuple[Header, NDArray[np.float32]]:
    """Return the samples of the record whose header is `path`, float32 (L, T), millivolt, and the header of its rows.

    Channels of another rate than the ECG's are left out, and leads that the header says are late are moved, each with
    a note.
    """
    per_frame, kept = header.per_frame, _of_one_rate(header)
    files = kept.files
    total = 0
    for file in map(path.with_name, files):  # parse_header has checked that each is a plain name, so none is elsewhere
        size = file_size(file)
        if size is None:
            raise absent(file)
        total += size
    if total > RECORD_BYTES:
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL,
            f"{path.name}: its signal files have {total:,} bytes: at most {RECORD_BYTES:,} are read of one record: "
            "split it",
        )
    if len(files) == 1 and len(header.files) == 1:
        return _aligned(kept, _of_file(header, per_frame, path.with_name(files[0])))
    parts = []
    for file in files:
        of_file = replace(header, signals=tuple(signal for signal in header.signals if signal.file == file))
        parts.append(_of_file(of_file, per_frame, path.with_name(file)))
    if len({part.shape[1] for part in parts}) > 1:
        lengths = ", ".join(f"{file} {part.shape[1]:,}" for file, part in zip(files, parts, strict=True))
        raise RecordError(DropReason.WRONG_FILE_SIZE, f"{path.name}: its files have samples of their own: {lengths}")
    # Row after row as the files hold them.
    rows = tuple(signal for file in files for signal in kept.signals if signal.file == file)
    return _aligned(replace(kept, signals=rows), np.concatenate(parts))


def decode(header: Header, data: bytes) -> NDArray[np.float32]:
    """Return the samples of a file of format 16 with one sample a frame, float32 (L, T), millivolt, NaN for missing.

    Raises RecordError if size, container, first values or checksums differ from the header.
    """
    leads, offset = len(header.signals), header.signals[0].offset
    name = header.signals[0].file
    frame = 2 * leads
    samples = (len(data) - offset) // frame if header.frames is None else header.frames
    if samples <= 0 or len(data) != offset + samples * frame:
        needed = "whole frames" if header.frames is None else f"{offset + samples * frame} bytes"
        raise RecordError(
            DropReason.WRONG_FILE_SIZE,
            f"{name}: {len(data)} bytes, {leads} leads need {needed} (16 bit, {offset} bytes ahead): fetch it again",
        )
    _check_mat_head(data[:MAT_HEAD], header, samples)
    d_TL = np.frombuffer(data, "<i2", offset=offset).reshape(samples, leads)
    d_LT = np.ascontiguousarray(d_TL.T)
    # Sums that wrap around at 16 bits, as checksums do: adding in 64 takes five times as long.
    _check_sums(header, d_LT[:, 0].tolist(), d_LT.sum(axis=1, dtype=np.int16).tolist())
    return _millivolt(header, d_LT)


def _of_one_rate(header: Header) -> Header:
    """Return the header without the channels of another rate than the ECG's."""
    kept = tuple(signal for signal in header.signals if signal.per_frame == header.per_frame)
    if len(kept) == len(header.signals):
        return header
    left = [
        f"{signal.lead} ({signal.per_frame * header.frames_per_second:g} Hz)"
        for signal in header.signals
        if signal.per_frame != header.per_frame
    ]
    note = f"channels left out, of another rate: {', '.join(left)}"
    return replace(header, signals=kept, notes=(*header.notes, note))


def _of_file(header: Header, per_frame: int, path: Path) -> NDArray[np.float32]:
    """Return the samples of those of a file's signals that have `per_frame` samples a frame."""
    if header.signals[0].format == "16" and all(signal.per_frame == 1 for signal in header.signals):
        return decode(header, path.read_bytes())
    return _by_library(header, per_frame, path)


def _by_library(header: Header, per_frame: int, path: Path) -> NDArray[np.float32]:
    """Return the same of a file of any other format."""
    number = header.signals[0].format
    frames = _frames(header, path)
    samples = frames * sum(signal.per_frame for signal in header.signals)
    if samples > MOST_SAMPLES:
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL,
            f"{path.name}: {samples:,} samples: at most {MOST_SAMPLES:,} are read of a file of format {number}: split "
            "the record",
        )
    found = read_samples(path, header.signals, frames)
    _check_sums(header, [int(d_T[0]) for d_T in found], [int(d_T.sum(dtype=np.int64)) for d_T in found])
    kept = [(signal, d_T) for signal, d_T in zip(header.signals, found, strict=True) if signal.per_frame == per_frame]
    narrow = FORMATS[number].bits <= 16 and number != "8"  # whose differences may add up to more
    d_LT = np.stack([d_T for _, d_T in kept]).astype(np.int16 if narrow else np.int32)
    return _millivolt(replace(header, signals=tuple(signal for signal, _ in kept)), d_LT)


def _frames(header: Header, path: Path) -> int:
    """Return how many frames a file of any format has. Raises RecordError if its size is not that of the header."""
    signals, name = header.signals, path.name
    form, offset = FORMATS[signals[0].format], signals[0].offset
    per_frame = sum(signal.per_frame for signal in signals)
    with path.open("rb") as stream:
        head = stream.read(max(MAT_HEAD, _FLAC_HEAD))
    if form.packed:
        per_frame = signals[0].per_frame
        there = _flac_samples(head, name) - offset
        frames = there // per_frame if header.frames is None else header.frames
        if frames <= 0 or there != frames * per_frame:
            raise RecordError(
                DropReason.WRONG_FILE_SIZE,
                f"{name}: FLAC of {there} samples a lead, the header says {frames * per_frame}: fetch both again",
            )
        return frames
    there = path.stat().st_size - offset
    frames = there * form.samples // form.bytes // per_frame if header.frames is None else header.frames
    blocks, rest = divmod(frames * per_frame, form.samples)
    # Of the last block, some writers leave out the bytes that hold nothing.
    last = (0, 2, 4 if signals[0].format == "310" else 3)[rest]
    least, most = blocks * form.bytes + last, (blocks + bool(rest)) * form.bytes
    if frames <= 0 or not least <= there <= most:
        raise RecordError(
            DropReason.WRONG_FILE_SIZE,
            f"{name}: {there + offset} bytes, {len(signals)} leads of {frames} frames need {offset + least} (format "
            f"{signals[0].format}, {offset} bytes ahead): fetch it again",
        )
    _check_mat_head(head[:MAT_HEAD], header, frames)
    return frames


def _flac_samples(head: bytes, name: str) -> int:
    """Return how many samples each channel of a FLAC file has, by its STREAMINFO: RFC 9639, 8.2."""
    if len(head) < _FLAC_HEAD or head[:4] != b"fLaC" or head[4] & 0x7F:
        raise RecordError(DropReason.UNREADABLE_SIGNAL, f"{name}: its head is not that of FLAC: fetch it again")
    return int.from_bytes(head[18:26]) & ((1 << 36) - 1)


def _millivolt(header: Header, d_LT: NDArray[np.signedinteger[Any]]) -> NDArray[np.float32]:
    """Return samples (L, T) of one file in millivolt, NaN for a missing one."""
    missing = FORMATS[header.signals[0].format].missing
    for signal, d_T in zip(header.signals, d_LT, strict=True):
        if signal.gain > RECORDER_GAINS[1]:
            _check_scaled(d_T, signal, missing)
    kind = np.float32 if d_LT.dtype.itemsize <= 2 else np.float64
    baseline_L = np.array([signal.baseline for signal in header.signals], kind)
    gain_L = np.array([signal.gain for signal in header.signals], kind)
    x_LT = d_LT.astype(kind)
    if baseline_L.any():
        x_LT -= baseline_L[:, None]
    x_LT /= gain_L[:, None]
    x_LT = x_LT.astype(np.float32, copy=False)
    if missing is not None and d_LT.min() == missing:
        for x_T, d_T in zip(x_LT, d_LT, strict=True):
            x_T[d_T == missing] = np.nan
    return x_LT


def _aligned(header: Header, x_LT: NDArray[np.float32]) -> tuple[Header, NDArray[np.float32]]:
    """Move the leads (L, T) that the header says are late, and leave out the end, which some leads then lack."""
    if not any(signal.skew for signal in header.signals):
        return header, x_LT
    late = [signal.skew * signal.per_frame for signal in header.signals]
    shifts = [samples - min(late) for samples in late]
    most, samples = max(shifts), x_LT.shape[1]
    if most == 0:
        return header, x_LT
    if most >= samples:
        raise unreadable(header.record, f"a skew of {most:,} samples", f"the leads have {samples:,}")
    moved = np.stack([x_T[shift : shift + samples - most] for x_T, shift in zip(x_LT, shifts, strict=True)])
    note = f"leads aligned by the header's skew: the last {most} samples, which some leads lack, are left out"
    return replace(header, notes=(*header.notes, note)), moved


def _check_sums(header: Header, firsts: list[int], sums: list[int]) -> None:
    """Raise RecordError if first values or sums, modulo 65536, of a file's samples are not those of the header."""
    if header.unchecked:
        return
    for signal, first, total in zip(header.signals, firsts, sums, strict=True):
        if signal.first != first:
            raise _changed(signal, "first value", first, signal.first)
        # Signed and unsigned checksums are the same 16 bits.
        if (signal.checksum - total) % 65536:
            raise _changed(signal, "checksum", total % 65536, signal.checksum % 65536)


def _check_scaled(d_T: NDArray[np.signedinteger[Any]], signal: Signal, missing: int | None) -> None:
    """Raise RecordError if a lead (T,), whose gain is higher than a recorder's, was not scaled to all of its bits."""
    bits = max(16, FORMATS[signal.format].bits)
    present = d_T[d_T != missing]
    span = int(present.max()) - int(present.min()) if present.size else 0
    if span < 1 << (bits - 1):
        raise RecordError(
            DropReason.IMPLAUSIBLE_GAIN,
            f"{signal.file}: gain {signal.gain:,.0f} a millivolt of lead {signal.lead}: above {RECORDER_GAINS[1]:,.0f} "
            f"it is believed of a lead that fills {bits} bits, and its samples span {span:,}; put the true gain into "
            "the header",
        )


def _check_mat_head(head: bytes, header: Header, samples: int) -> None:
    """Raise RecordError unless a .mat begins as a MATLAB 4 matrix `val` of little-endian integers, real."""
    signal, leads = header.signals[0], len(header.signals)
    kind = FORMATS[signal.format].mat
    if signal.offset != MAT_HEAD or not signal.file.lower().endswith(".mat"):
        return
    if head != struct.pack("<5i4s", kind, leads, samples, 0, 4, b"val\0"):
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL,
            f"{signal.file}: its head is not that of a MATLAB 4 matrix `val` of {leads} x {samples} integers of "
            f"{FORMATS[signal.format].bits} bits: fetch it again",
        )


def _changed(signal: Signal, field: str, actual: int, expected: int) -> RecordError:
    return RecordError(
        DropReason.CHECKSUM_WRONG,
        f"{signal.file}: {field} of lead {signal.lead} is {actual}, the header says {expected}: fetch both again",
    )

"""WFDB records as the 12-lead collections use them: a text header and one file of interleaved 16-bit samples.

Formats `16` (.dat) and `16+24` (the same after the 24-byte head of a MATLAB 4 matrix, .mat); the header's format is
https://physionet.org/physiotools/wag/header-5.htm. File size, first values and checksums in the header are compared
with the samples, so that no changed sample is accepted. A record that is refused raises RecordError; a fault of the
disk raises OSError. Shapes: L leads, T samples; d is in ADC units, x in millivolt.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.limits import HEADER_BYTES, LEADS, RECORD_BYTES, require_size
from pipelines.records import DropReason, RecordError

MISSING = -32768  # the sample value that means "no value" in format 16
MAT_HEAD = 24
UNITS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3}  # one unit in millivolt
# ADC units per millivolt that a recorder can have: 16 bits that span from 0.6 mV to 6.5 V.
RECORDER_GAINS = (10.0, 100_000.0)
# A writer that scales each lead to all 16 bits gives a lead of low amplitude a higher gain: at this limit 65,534 units
# span 0.05 mV. The lead with the smallest span of 2,100 public records has 0.29 mV.
GAINS = (10.0, 1_300_000.0)
_SCALED = 32_768  # the smallest range of samples of a lead that was scaled to 16 bits

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_RECORD_LINE = re.compile(rf"([\w-]+)\s+(\d{{1,4}})\s+({_NUMBER})(?:\s+(\d{{1,12}})(.*))?", re.ASCII)
_START = re.compile(
    r"\s*|\s+\d\d?:\d\d:\d\d(\.\d+)?(\s+\d\d?[/-]\w{2,3}[/-]\d{4})?|\s+\d\d?[/-]\w{2,3}[/-]\d{4}(\s+\d\d?:\d\d:\d\d(\.\d+)?)?",
    re.ASCII,
)
_FORMAT = re.compile(r"16(?:x1)?(?:\+(\d{1,6}))?", re.ASCII)
_GAIN = re.compile(rf"(-?{_NUMBER})(?:\((-?\d{{1,9}})\))?(?:/(\S+))?", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,7}", re.ASCII)  # below 2**24: exact in float32
# A record line and the first signal line without the line break: `JS01052 12 500 5000` + `00/mV 16 0 15 31255 0 I`. The
# file's name, its format and the gain's first digits are lost.
_MERGED = re.compile(
    rf"([\w-]+)\s+(\d{{1,4}})\s+({_NUMBER})\s+\d+/\w+\s+(-?\d+\s+-?\d+\s+-?\d+\s+-?\d+\s+\d+\s+\S+)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal line of a header."""

    file: str
    offset: int  # of the samples in the file, bytes
    gain: float  # ADC units per millivolt
    baseline: int  # ADC units at zero millivolt
    first: int  # the value of sample 0
    checksum: int  # the sum of the samples, modulo 65536
    lead: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """A parsed header."""

    record: str
    rate: float  # samples per second
    samples: int | None  # per lead; None if the signal file's size decides
    signals: tuple[Signal, ...]
    comments: tuple[str, ...]  # the lines after `#`, stripped
    notes: tuple[str, ...] = ()  # what was repaired, in words


@dataclass(frozen=True, kw_only=True)
class WfdbRecord:
    """A header and its samples."""

    header: Header
    signal_LT: NDArray[np.float32]  # float32 (leads, samples), millivolt; NaN for a missing sample

    @property
    def leads(self) -> tuple[str, ...]:
        """The leads' names, as the header writes them."""
        return tuple(signal.lead for signal in self.header.signals)


def read_wfdb(path: Path, *, gains: tuple[float, float] = GAINS) -> WfdbRecord:
    """Read the record whose header is `path` and whose samples lie in the same folder.

    gains: the lowest and highest accepted ADC units per millivolt. Raises RecordError if the record cannot be used.
    """
    header = read_header(path, gains=gains)
    # parse_header has checked that the file has the record's name: a header cannot name a file elsewhere.
    data = _bytes_of(path.with_name(header.signals[0].file), RECORD_BYTES, DropReason.UNREADABLE_SIGNAL)
    return WfdbRecord(header=header, signal_LT=decode(header, data))


def read_header(path: Path, *, gains: tuple[float, float] = GAINS) -> Header:
    """Read the header of a record. Raises RecordError, as `parse_header` does, if it cannot be used."""
    text = _bytes_of(path, HEADER_BYTES, DropReason.UNREADABLE_HEADER).decode("utf-8", "replace")
    return parse_header(text, path.stem, gains=gains)


def parse_header(text: str, name: str, *, gains: tuple[float, float] = GAINS) -> Header:
    """Parse the header of the record called `name`. Raises RecordError, with line and field, if it cannot be used."""
    lines = [line.strip() for line in text.splitlines()]
    comments = tuple(line[1:].strip() for line in lines if line.startswith("#"))
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise _unreadable(name, "no record line", "fetch the header again")
    notes: tuple[str, ...] = ()
    fields = _record_line(lines[0])
    if fields is None and (repaired := _unmerged(lines)) is not None:
        lines = repaired
        notes = ("header repaired: its record line and first signal line were one",)
        fields = _record_line(lines[0])
    if fields is None:
        raise _unreadable(
            name, f"record line {_short(lines[0])}", "it should be: name, leads, rate, samples [time] [date]"
        )
    record, leads, rate, samples = fields[1], int(fields[2]), float(fields[3]), fields[4]
    if record != name:
        raise _unreadable(name, f"record line names {record!r}", f"the file's name says {name!r}; fetch it again")
    if not 0 < rate < math.inf:
        raise _unreadable(name, f"rate {fields[3]} Hz", "a positive number is needed")
    if samples is not None and int(samples) == 0:
        samples = None  # in this format, 0 means that the length is not given
    if leads > LEADS:
        raise _unreadable(name, f"{leads} leads", f"at most {LEADS} are read: leave out those that are no ECG")
    if leads == 0 or len(lines) - 1 != leads:
        raise _unreadable(name, f"{len(lines) - 1} signal lines", f"the record line says {leads}")
    signals = tuple(_signal(line, name, gains) for line in lines[1:])
    if len({(signal.file, signal.offset) for signal in signals}) != 1:
        raise _unreadable(name, "signals in several files or formats", "one file for all leads is read")
    return Header(
        record=record,
        rate=rate,
        samples=None if samples is None else int(samples),
        signals=signals,
        comments=comments,
        notes=notes,
    )


def _record_line(line: str) -> re.Match[str] | None:
    """Match a record line whose optional time and date have the right form, or return None."""
    fields = _RECORD_LINE.fullmatch(line)
    return fields if fields is not None and _START.fullmatch(fields[5] or "") else None


def decode(header: Header, data: bytes) -> NDArray[np.float32]:
    """Return the samples of a signal file, float32 (leads, samples), millivolt, NaN for a missing sample.

    Raises RecordError if size, container, first values or checksums differ from the header.
    """
    leads, offset = len(header.signals), header.signals[0].offset
    name = header.signals[0].file
    frame = 2 * leads
    samples = (len(data) - offset) // frame if header.samples is None else header.samples
    if samples <= 0 or len(data) != offset + samples * frame:
        needed = "whole frames" if header.samples is None else f"{offset + samples * frame} bytes"
        raise RecordError(
            DropReason.WRONG_FILE_SIZE,
            f"{name}: {len(data)} bytes, {leads} leads need {needed} (16 bit, {offset} bytes ahead): fetch it again",
        )
    if offset == MAT_HEAD:
        _check_mat_head(data, leads, samples, name)
    d_TL = np.frombuffer(data, "<i2", offset=offset).reshape(samples, leads)
    d_LT = np.ascontiguousarray(d_TL.T)
    sums_L = d_LT.sum(axis=1, dtype=np.int64)
    for signal, first, total in zip(header.signals, d_LT[:, 0].tolist(), sums_L.tolist(), strict=True):
        if signal.first != first:
            raise _changed(name, signal, "first value", first, signal.first)
        # Signed and unsigned checksums are the same 16 bits.
        if (signal.checksum - total) % 65536:
            raise _changed(name, signal, "checksum", total % 65536, signal.checksum % 65536)
    for signal, d_T in zip(header.signals, d_LT, strict=True):
        if signal.gain > RECORDER_GAINS[1]:
            _check_scaled(d_T, signal, name)
    baseline_L = np.array([signal.baseline for signal in header.signals], np.float32)
    gain_L = np.array([signal.gain for signal in header.signals], np.float32)
    x_LT = d_LT.astype(np.float32)
    if baseline_L.any():
        x_LT -= baseline_L[:, None]
    x_LT /= gain_L[:, None]
    if d_LT.min() == MISSING:
        for x_T, d_T in zip(x_LT, d_LT, strict=True):
            x_T[d_T == MISSING] = np.nan
    return x_LT


def _signal(line: str, name: str, gains: tuple[float, float]) -> Signal:
    """Parse a signal line: `file format gain(baseline)/units resolution zero first checksum block lead`, all given."""
    fields = line.split(None, 8)
    if len(fields) < 9:
        raise _unreadable(name, f"signal line {_short(line)}", "nine fields are needed, the last names the lead")
    file, form, gain, _, zero, first, checksum, _, lead = fields
    if file not in (f"{name}.dat", f"{name}.mat"):
        raise _unreadable(name, f"signal file {_short(file)}", f"only {name}.dat or {name}.mat beside it is read")
    matched = _FORMAT.fullmatch(form)
    offset = int(matched[1] or 0) if matched else -1
    if offset != (MAT_HEAD if file.endswith(".mat") else 0):
        raise _unreadable(name, f"format {_short(form)} of {file}", "16 (.dat) and 16+24 (.mat) are read")
    integers = {"ADC zero": zero, "first value": first, "checksum": checksum}
    for field, text in integers.items():
        if not _INTEGER.fullmatch(text):
            raise _unreadable(name, f"{field} {_short(text)} of lead {lead}", "a whole number is needed")
    parsed = _GAIN.fullmatch(gain)
    if parsed is None:
        raise _unreadable(name, f"gain {_short(gain)} of lead {lead}", "it should be: number(baseline)/units")
    unit = parsed[3] or "mV"
    if unit.lower() not in UNITS:
        raise RecordError(
            DropReason.UNKNOWN_UNIT, f"{name}.hea: unit {_short(unit)} of lead {lead}: mV, uV and V are understood"
        )
    per_millivolt = float(parsed[1]) / UNITS[unit.lower()]
    low, high = gains
    if not low <= per_millivolt <= high:
        allowed = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
        raise RecordError(
            DropReason.IMPLAUSIBLE_GAIN,
            f"{name}.hea: gain {gain} of lead {lead}: {allowed} a millivolt is believed here; put the true gain into "
            "the header, or take a corrected one",
        )
    return Signal(
        file=file,
        offset=offset,
        gain=per_millivolt,
        baseline=int(zero if parsed[2] is None else parsed[2]),
        first=int(first),
        checksum=int(checksum),
        lead=lead,
    )


def _check_scaled(d_T: NDArray[np.int16], signal: Signal, name: str) -> None:
    """Raise RecordError if a lead (T,), whose gain is higher than a recorder's, was not scaled to 16 bits."""
    present = d_T[d_T != MISSING]
    span = int(present.max()) - int(present.min()) if present.size else 0
    if span < _SCALED:
        raise RecordError(
            DropReason.IMPLAUSIBLE_GAIN,
            f"{name}: gain {signal.gain:,.0f} a millivolt of lead {signal.lead}: above {RECORDER_GAINS[1]:,.0f} it is "
            f"believed of a lead that fills 16 bits, and its samples span {span:,}; put the true gain into the header",
        )


def _unmerged(lines: list[str]) -> list[str] | None:
    """Rebuild a header that lacks the line break after its record line. Returns None if it has another fault.

    The lost fields are taken from the other signal lines, if these agree, and the length from the signal file. The
    first lead's first value and checksum are still there and confirm the repair when the samples are read.
    """
    merged = _MERGED.fullmatch(lines[0])
    shared = {" ".join(line.split()[:3]) for line in lines[1:]}
    if merged is None or len(shared) != 1 or len(lines) != int(merged[2]):
        return None
    return [f"{merged[1]} {merged[2]} {merged[3]}", f"{shared.pop()} {merged[4]}", *lines[1:]]


def _check_mat_head(data: bytes, leads: int, samples: int, name: str) -> None:
    """Raise RecordError unless the data begin as a MATLAB 4 matrix `val` of little-endian int16 (type 30), real."""
    if data[:MAT_HEAD] != struct.pack("<5i4s", 30, leads, samples, 0, 4, b"val\0"):
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL,
            f"{name}: its head is not that of a MATLAB 4 matrix `val` of {leads} x {samples} int16: fetch it again",
        )


def _bytes_of(path: Path, most: int, reason: DropReason) -> bytes:
    require_size(path, most, "one record", "split it, or fetch it again", lambda what: RecordError(reason, what))
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(DropReason.FILE_MISSING, f"{path.name} is not there: download it again") from error


def _unreadable(name: str, what: str, remedy: str) -> RecordError:
    return RecordError(DropReason.UNREADABLE_HEADER, f"{name}.hea: {what}: {remedy}")


def _changed(file: str, signal: Signal, field: str, actual: Any, expected: Any) -> RecordError:
    return RecordError(
        DropReason.CHECKSUM_WRONG,
        f"{file}: {field} of lead {signal.lead} is {actual}, the header says {expected}: fetch both again",
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

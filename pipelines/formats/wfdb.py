"""WFDB records as the 12-lead collections use them: a text header and files of interleaved 16-bit samples.

Formats `16` and `16+N` (the same after N bytes, in .mat the 24 of a MATLAB 4 matrix's head); the header's format is
https://physionet.org/physiotools/wag/header-5.htm. File size, first values and checksums in the header are compared
with the samples, so that no changed sample is accepted. A record that is refused raises RecordError; a fault of the
disk raises OSError. Shapes: L leads, T samples; d is in ADC units, x in millivolt.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.limits import HEADER_BYTES, LEADS, RECORD_BYTES, require_size
from pipelines.records import DropReason, RecordError

MISSING = -32768  # the sample value that means "no value" in format 16
MAT_HEAD = 24
UNITS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}  # one unit in millivolt
_UNITS_IN_WORDS = {"millivolt": 1.0, "microvolt": 1e-3, "volt": 1e3}  # that headers write, also with an s
# ADC units per millivolt that a recorder can have: 16 bits that span from 0.6 mV to 6.5 V.
RECORDER_GAINS = (10.0, 100_000.0)
# A writer that scales each lead to all 16 bits gives a lead of low amplitude a higher gain: at this limit 65,534 units
# span 0.05 mV. The lead with the smallest span of 2,100 public records has 0.29 mV.
GAINS = (10.0, 1_300_000.0)
_NOT_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")
_SCALED = 32_768  # the smallest range of samples of a lead that was scaled to 16 bits

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
# Behind the rate: the frequency and base value of a counter. Behind the samples: time and date, in whatever form, since
# nothing here depends on them.
_RECORD_LINE = re.compile(
    rf"((?:[\w.+-]+/)*[\w.+-]+)\s+(\d{{1,4}})\s+({_NUMBER})(?:/{_NUMBER}(?:\(-?{_NUMBER}\))?)?"
    r"(?:\s+(\d{1,12})(?:\s+[\w:./+-]{1,40}){0,3})?",
    re.ASCII,
)
_SEGMENTS = re.compile(r"[\w.+-]+/\d+", re.ASCII)
_FILE = re.compile(r"[\w+-][\w.+-]{0,239}", re.ASCII)  # beside the header, never elsewhere; file systems take 255
_FORMAT = re.compile(r"16(?:x1)?(?:\+(\d{1,6}))?", re.ASCII)
_GAIN = re.compile(rf"\+?(-?{_NUMBER})(?:\(\+?(-?\d{{1,9}})(?:\.0*)?\))?(?:/(\S+))?", re.ASCII)
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

    @property
    def files(self) -> tuple[str, ...]:
        """The signal files, in order."""
        return tuple(dict.fromkeys(signal.file for signal in self.signals))

    @property
    def unchecked(self) -> bool:
        """Whether the header has no first values and checksums: all are 0."""
        return not any(signal.first or signal.checksum for signal in self.signals)


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
    # parse_header has checked that each is a plain name: a header cannot name a file elsewhere.
    total = sum(file.stat().st_size for file in map(path.with_name, header.files) if file.is_file())
    if total > RECORD_BYTES:
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL,
            f"{path.name}: its signal files have {total:,} bytes: at most {RECORD_BYTES:,} are read of one record: "
            "split it",
        )
    parts = [
        decode(
            replace(header, signals=tuple(signal for signal in header.signals if signal.file == file)),
            _bytes_of(path.with_name(file)),
        )
        for file in header.files
    ]
    if len({part.shape[1] for part in parts}) > 1:
        lengths = ", ".join(f"{file} {part.shape[1]:,}" for file, part in zip(header.files, parts, strict=True))
        raise RecordError(DropReason.WRONG_FILE_SIZE, f"{path.name}: its files have samples of their own: {lengths}")
    return WfdbRecord(header=header, signal_LT=parts[0] if len(parts) == 1 else np.concatenate(parts))


def read_header(path: Path, *, gains: tuple[float, float] = GAINS) -> Header:
    """Read the header of a record. Raises RecordError, as `parse_header` does, if it cannot be used."""
    return parse_header(_text_of(path), path.stem, gains=gains)


def signal_files(path: Path) -> tuple[str, ...]:
    """Return the names of the files that the signal lines of a header name, whether or not it can be used."""
    lines = [line.strip() for line in _text_of(path).splitlines()]
    names = dict.fromkeys(line.split()[0] for line in lines[1:] if line and not line.startswith("#"))
    return tuple(name for name in names if _FILE.fullmatch(name))


def _text_of(path: Path) -> str:
    """Return a header's text: UTF-8, with or without a byte order mark, else as Windows writes it."""
    require_size(
        path, HEADER_BYTES, "a header", "fetch it again", lambda what: RecordError(DropReason.UNREADABLE_HEADER, what)
    )
    data = _bytes_of(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Not with replacement characters: two patients' ids could become one.
        return data.decode("cp1252") if not _NOT_CP1252.intersection(data) else data.decode("latin-1")


def parse_header(text: str, name: str, *, gains: tuple[float, float] = GAINS) -> Header:
    """Parse the header of the record called `name`. Raises RecordError, with line and field, if it cannot be used."""
    lines = [line.strip() for line in text.splitlines()]
    comments = tuple(line[1:].strip() for line in lines if line.startswith("#"))
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise _unreadable(name, "no record line", "fetch the header again")
    notes: tuple[str, ...] = ()
    if _SEGMENTS.fullmatch(lines[0].split()[0]):
        raise _unreadable(name, "a record in several segments", "read are its segments, each a record with a header")
    fields = _RECORD_LINE.fullmatch(lines[0])
    if fields is None and (repaired := _unmerged(lines)) is not None:
        lines = repaired
        notes = ("header repaired: its record line and first signal line were one",)
        fields = _RECORD_LINE.fullmatch(lines[0])
    if fields is None:
        raise _unreadable(
            name, f"record line {_short(lines[0])}", "it should be: name, leads, rate, samples [time] [date]"
        )
    record, leads, rate, samples = fields[1].rsplit("/", 1)[-1], int(fields[2]), float(fields[3]), fields[4]
    if record != name:
        remedy = "without an ending" if record in (f"{name}.dat", f"{name}.mat") else "as the file is called"
        raise _unreadable(name, f"record line names {record!r}", f"it should be {name!r}, {remedy}")
    if not 0 < rate < math.inf:
        raise _unreadable(name, f"rate {fields[3]} Hz", "a positive number is needed")
    if samples is not None and int(samples) == 0:
        samples = None  # in this format, 0 means that the length is not given
    if leads > LEADS:
        raise _unreadable(name, f"{leads} leads", f"at most {LEADS} are read: leave out those that are no ECG")
    if leads == 0 or len(lines) - 1 != leads:
        raise _unreadable(name, f"{len(lines) - 1} signal lines", f"the record line says {leads}")
    signals = tuple(_signal(line, name, gains) for line in lines[1:])
    if len({(signal.file, signal.offset) for signal in signals}) != len({signal.file for signal in signals}):
        raise _unreadable(name, "signals of one file with several offsets", "one offset a file is read")
    header = Header(
        record=record,
        rate=rate,
        samples=None if samples is None else int(samples),
        signals=signals,
        comments=comments,
        notes=notes,
    )
    if header.unchecked:
        return replace(header, notes=(*notes, "samples not compared: the header has no first values and checksums"))
    return header


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
    if offset == MAT_HEAD and name.lower().endswith(".mat"):
        _check_mat_head(data, leads, samples, name)
    d_TL = np.frombuffer(data, "<i2", offset=offset).reshape(samples, leads)
    d_LT = np.ascontiguousarray(d_TL.T)
    sums_L = d_LT.sum(axis=1, dtype=np.int64)
    for signal, first, total in zip(header.signals, d_LT[:, 0].tolist(), sums_L.tolist(), strict=True):
        if header.unchecked:
            break
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
    if not _FILE.fullmatch(file):
        raise _unreadable(name, f"signal file {_short(file)}", "the name of a file beside the header is needed")
    matched = _FORMAT.fullmatch(form)
    if matched is None or (file.lower().endswith(".mat") and int(matched[1] or 0) != MAT_HEAD):
        raise _unreadable(
            name, f"format {_short(form)} of {file}", "16, 16+<bytes ahead> and, for .mat, 16+24 are read: convert it"
        )
    offset = int(matched[1] or 0)
    integers = {"ADC zero": zero, "first value": first, "checksum": checksum}
    for field, text in integers.items():
        if not _INTEGER.fullmatch(text):
            raise _unreadable(name, f"{field} {_short(text)} of lead {lead}", "a whole number is needed")
    parsed = _GAIN.fullmatch(gain)
    if parsed is None:
        raise _unreadable(name, f"gain {_short(gain)} of lead {lead}", "it should be: number(baseline)/units")
    unit = parsed[3] or "mV"
    millivolt = UNITS.get(unit.lower(), _UNITS_IN_WORDS.get(unit.lower().removesuffix("s")))
    if millivolt is None:
        raise RecordError(
            DropReason.UNKNOWN_UNIT, f"{name}.hea: unit {_short(unit)} of lead {lead}: mV, uV, nV and V are understood"
        )
    per_millivolt = float(parsed[1]) / millivolt
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


def _bytes_of(path: Path) -> bytes:
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

"""Headers of WFDB records, as people write them: https://physionet.org/physiotools/wag/header-5.htm.

A header states the format of its signal files, whoever decodes them, and names only files beside it. One that is
refused raises RecordError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from ecg_model.leads import known_leads
from pipelines.formats.limits import HEADER_BYTES, LEADS, require_size
from pipelines.records import DropReason, RecordError

UNITS = {"mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "v": 1e3, "nv": 1e-6}  # one unit in millivolt
_UNITS_IN_WORDS = {"millivolt": 1.0, "microvolt": 1e-3, "volt": 1e3}  # that headers write, also with an s
# ADC units per millivolt that a recorder can have: 16 bits that span from 0.6 mV to 6.5 V.
RECORDER_GAINS = (10.0, 100_000.0)
# A writer that scales each lead to all 16 bits gives a lead of low amplitude a higher gain: at this limit 65,534 units
# span 0.05 mV. The lead with the smallest span of 2,100 public records has 0.29 mV.
GAINS = (10.0, 1_300_000.0)
_MOST_RATE = 1e9  # Hz
_MOST_SEGMENTS = 10_000
_NOT_CP1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")

_NUMBER = r"\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
# Behind the rate: the frequency and base value of a counter. Behind the samples: time and date, in whatever form, since
# nothing here depends on them.
_RATE = rf"\s+(\d{{1,4}})\s+({_NUMBER})(?:/{_NUMBER}(?:\(-?{_NUMBER}\))?)?"
_START = r"(?:\s+[\w:./+-]{1,40}){0,3}"
_RECORD_LINE = re.compile(rf"((?:[\w.+-]+/)*[\w.+-]+){_RATE}(?:\s+(\d{{1,12}}){_START})?", re.ASCII)
_MASTER_LINE = re.compile(rf"([\w.+-]+)/(\d{{1,6}}){_RATE}(?:\s+(\d{{1,12}}){_START})?", re.ASCII)
_SEGMENTS = re.compile(r"[\w.+-]+/\d+", re.ASCII)
_SEGMENT_LINE = re.compile(r"(~|[\w+-][\w.+-]{0,239})\s+(\d{1,12})", re.ASCII)
_FILE = re.compile(r"[\w+-][\w.+-]{0,239}", re.ASCII)  # beside the header, never elsewhere; file systems take 255
_FORMAT = re.compile(r"(\d{1,3})(?:x(\d{1,4}))?(?::(\d{1,6}))?(?:\+(\d{1,6}))?", re.ASCII)
_GAIN = re.compile(rf"\+?(-?{_NUMBER})(?:\(\+?(-?\d{{1,10}})(?:\.0*)?\))?(?:/(\S+))?", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,10}", re.ASCII)
# A record line and the first signal line without the line break: `JS01052 12 500 5000` + `00/mV 16 0 15 31255 0 I`. The
# file's name, its format and the gain's first digits are lost.
_MERGED = re.compile(
    rf"([\w-]+)\s+(\d{{1,4}})\s+({_NUMBER})\s+\d+/\w+\s+(-?\d+\s+-?\d+\s+-?\d+\s+-?\d+\s+\d+\s+\S+)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Format:
    """How a signal file holds samples: https://physionet.org/physiotools/wag/signal-5.htm."""

    bits: int  # of a sample's range
    bytes: int = 0  # of a block; 0 for FLAC
    samples: int = 1  # of a block
    missing: int | None = None  # the sample value that means "no value"
    mat: int | None = None  # the type that a MATLAB 4 matrix of such samples has

    @property
    def packed(self) -> bool:
        """Whether a file's size does not tell how many samples it has."""
        return self.bytes == 0


FORMATS = {
    "8": Format(16, 1),  # differences, so a sample may have more bits; none is missing
    "16": Format(16, 2, missing=-(1 << 15), mat=30),
    "24": Format(24, 3, missing=-(1 << 23)),
    "32": Format(32, 4, missing=-(1 << 31), mat=20),
    "61": Format(16, 2, missing=-(1 << 15)),
    "80": Format(8, 1, missing=-(1 << 7), mat=50),
    "160": Format(16, 2, missing=-(1 << 15)),
    "212": Format(12, 3, 2, missing=-(1 << 11)),
    "310": Format(10, 4, 3, missing=-(1 << 9)),
    "311": Format(10, 4, 3, missing=-(1 << 9)),
    "508": Format(8, missing=-(1 << 7)),
    "516": Format(16, missing=-(1 << 15)),
    "524": Format(24, missing=-(1 << 23)),
}
MAT_HEAD = 24


class Signal(NamedTuple):  # a dataclass takes four times as long to make, and a record has twelve
    """A signal line of a header."""

    file: str
    format: str  # of FORMATS
    per_frame: int  # samples
    skew: int  # frames by which it is late
    offset: int  # of the samples in the file, bytes; samples in FLAC
    gain: float  # ADC units per millivolt; NaN of a channel in another unit, which is no lead
    baseline: int  # ADC units at zero millivolt
    first: int  # the value of sample 0
    checksum: int  # the sum of the samples, modulo 65536
    lead: str


@dataclass(frozen=True, kw_only=True)
class Header:
    """A parsed header."""

    record: str
    frames_per_second: float
    frames: int | None  # of the record; None if the signal files' size decides
    signals: tuple[Signal, ...]
    comments: tuple[str, ...]  # the lines after `#`, stripped
    notes: tuple[str, ...] = ()  # what was repaired or left out, in words

    @property
    def files(self) -> tuple[str, ...]:
        """The signal files, in order."""
        return tuple(dict.fromkeys(signal.file for signal in self.signals))

    @property
    def unchecked(self) -> bool:
        """Whether the header has no first values and checksums: all are 0."""
        return not any(signal.first or signal.checksum for signal in self.signals)

    @cached_property
    def per_frame(self) -> int:
        """Samples per frame of the leads that are read: those of the ECG, of which the fastest count."""
        counts = [signal.per_frame for signal in self.signals]
        known = known_leads(tuple(signal.lead for signal in self.signals)) if len(set(counts)) > 1 else ()
        return max([count for count, lead in zip(counts, known, strict=False) if lead] or counts)

    @property
    def rate(self) -> float:
        """Samples per second of the leads that are read."""
        return self.frames_per_second * self.per_frame


@dataclass(frozen=True, kw_only=True)
class Master:
    """The header of a record in several segments, each with a header of its own."""

    record: str
    frames_per_second: float
    segments: tuple[tuple[str | None, int], ...]  # name and frames; None: nothing was recorded
    comments: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """The files beside it that a header names."""

    signals: tuple[str, ...]
    """Signal files."""
    segments: tuple[str, ...]
    """Segments, without ending: a record's own, if it is in several."""


def text_of(path: Path) -> str:
    """Return a header's text: UTF-8, with or without a byte order mark, else as Windows writes it."""
    size = require_size(
        path, HEADER_BYTES, "a header", "fetch it again", lambda what: RecordError(DropReason.UNREADABLE_HEADER, what)
    )
    if size is None:
        raise absent(path)
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Not with replacement characters: two patients' ids could become one.
        return data.decode("cp1252") if not _NOT_CP1252.intersection(data) else data.decode("latin-1")


def absent(path: Path) -> RecordError:
    """Return the error of a file that is not there, or is none: a folder or a pipe of its name is not opened."""
    return RecordError(
        DropReason.FILE_MISSING, f"{path.name} is not there: put it beside the others, or fetch it again"
    )


def named_files(path: Path) -> Named:
    """Return what a header names, whether or not it can be used. Raises RecordError if it cannot be read at all."""
    lines, _ = _lines(text_of(path))
    words = dict.fromkeys(line.split()[0] for line in lines[1:])
    if lines and _SEGMENTS.fullmatch(lines[0].split()[0]):
        return Named((), tuple(word for word in words if _FILE.fullmatch(word)))
    return Named(tuple(word for word in words if _FILE.fullmatch(word)), ())


def parse_master(text: str, name: str) -> Master | None:
    """Parse the header of the record called `name` in several segments; None if it is not in several."""
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "-")
    if not _SEGMENTS.fullmatch(first.split()[0]):
        return None
    lines, comments = _lines(text)
    fields = _MASTER_LINE.fullmatch(lines[0])
    if fields is None:
        raise unreadable(
            name, f"record line {_short(lines[0])}", "it should be: name/segments, leads, rate, samples [time] [date]"
        )
    record, segments, leads, rate, samples = fields.groups()
    _check_name(record, name)
    _check_leads(int(leads), name)
    if int(segments) > _MOST_SEGMENTS:
        raise unreadable(name, f"{int(segments):,} segments", f"at most {_MOST_SEGMENTS:,} are read")
    if len(lines) - 1 != int(segments):
        raise unreadable(name, f"{len(lines) - 1} lines of segments", f"the record line says {int(segments)}")
    parsed = []
    for line in lines[1:]:
        if (match := _SEGMENT_LINE.fullmatch(line.partition(" #")[0].strip())) is None:
            raise unreadable(name, f"segment line {_short(line)}", "it should be: name, samples")
        parsed.append((None if match[1] == "~" else match[1], int(match[2])))
    total = sum(frames for _, frames in parsed)
    if total == 0 or int(samples or 0) not in (0, total):
        raise unreadable(name, f"segments of {total:,} samples", f"the record line says {int(samples or 0):,}")
    return Master(record=record, frames_per_second=_rate(rate, name), segments=tuple(parsed), comments=comments)


def parse_header(text: str, name: str, *, gains: tuple[float, float] = GAINS) -> Header:
    """Parse the header of the record called `name`.

    gains: the lowest and highest accepted ADC units per millivolt. Raises RecordError, with line and field, if it
    cannot be used.
    """
    lines, comments = _lines(text)
    if not lines:
        raise unreadable(name, "no record line", "fetch the header again")
    notes: tuple[str, ...] = ()
    if _SEGMENTS.fullmatch(lines[0].split()[0]):
        raise unreadable(name, "a record in several segments", "it cannot be a segment of another one")
    fields = _RECORD_LINE.fullmatch(lines[0])
    if fields is None and (repaired := _unmerged(lines)) is not None:
        lines = repaired
        notes = ("header repaired: its record line and first signal line were one",)
        fields = _RECORD_LINE.fullmatch(lines[0])
    if fields is None:
        raise unreadable(
            name, f"record line {_short(lines[0])}", "it should be: name, leads, rate, samples [time] [date]"
        )
    record, leads, samples = fields[1].rsplit("/", 1)[-1], int(fields[2]), int(fields[4] or 0)
    _check_name(record, name)
    rate = _rate(fields[3], name)
    _check_leads(leads, name)
    if leads == 0 or len(lines) - 1 != leads:
        raise unreadable(name, f"{len(lines) - 1} signal lines", f"the record line says {leads}")
    may_be_lead = zip(lines[1:], _may_be_leads(lines[1:]), strict=True)
    signals = tuple(_signal(line, name, gains if is_lead else None) for line, is_lead in may_be_lead)
    if len({(signal.file, signal.format, signal.offset) for signal in signals}) != len({s.file for s in signals}):
        raise unreadable(
            name, "signals of one file with several formats or offsets", "one format and offset a file is read"
        )
    header = Header(
        record=record,
        frames_per_second=rate,
        frames=samples or None,  # in this format, 0 means that the length is not given
        signals=signals,
        comments=comments,
        notes=notes,
    )
    if header.unchecked:
        return replace(header, notes=(*notes, "samples not compared: the header has no first values and checksums"))
    return header


def unreadable(name: str, what: str, remedy: str) -> RecordError:
    """Return the error of a header that cannot be used."""
    return RecordError(DropReason.UNREADABLE_HEADER, f"{name}.hea: {what}: {remedy}")


def _lines(text: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the lines that state something, and the comments."""
    lines = [line.strip() for line in text.splitlines()]
    comments = tuple(line[1:].strip() for line in lines if line.startswith("#"))
    return [line for line in lines if line and not line.startswith("#")], comments


def _check_name(record: str, name: str) -> None:
    if record != name:
        remedy = "without an ending" if record in (f"{name}.dat", f"{name}.mat") else "as the file is called"
        raise unreadable(name, f"record line names {record!r}", f"it should be {name!r}, {remedy}")


def _check_leads(leads: int, name: str) -> None:
    if leads > LEADS:
        raise unreadable(name, f"{leads} leads", f"at most {LEADS} are read: leave out those that are no ECG")


def _rate(text: str, name: str) -> float:
    if not 0 < float(text) < _MOST_RATE:
        raise unreadable(name, f"rate {text} Hz", "a positive number is needed")
    return float(text)


def _may_be_leads(lines: Sequence[str]) -> list[bool]:
    """Return which signal lines may be those of an ECG's leads: all, if no name is a lead's."""
    known = known_leads(tuple(line.split(None, 8)[-1] for line in lines))
    return [lead is not None or not any(known) for lead in known]


def _signal(line: str, name: str, gains: tuple[float, float] | None) -> Signal:
    """Parse a signal line: `file format gain(baseline)/units resolution zero first checksum block lead`, all given.

    gains: None for a channel that is no lead, such as ABP in mmHg: its gain is NaN unless it is in volt.
    """
    fields = line.split(None, 8)
    if len(fields) < 9:
        raise unreadable(name, f"signal line {_short(line)}", "nine fields are needed, the last names the lead")
    file, form, gain, _, zero, first, checksum, _, lead = fields
    if not _FILE.fullmatch(file):
        raise unreadable(name, f"signal file {_short(file)}", "the name of a file beside the header is needed")
    number, per_frame, skew, offset = _format(form, file, name)
    integers = {"ADC zero": zero, "first value": first, "checksum": checksum}
    for field, text in integers.items():
        if not _INTEGER.fullmatch(text):
            raise unreadable(name, f"{field} {_short(text)} of lead {lead}", "a whole number is needed")
    scale = _scale(gain)
    if scale is None:
        raise unreadable(name, f"gain {_short(gain)} of lead {lead}", "it should be: number(baseline)/units")
    per_millivolt, baseline, unit = scale
    if gains is None:
        low, high = RECORDER_GAINS
        per_millivolt = per_millivolt if per_millivolt is not None and low <= per_millivolt <= high else math.nan
    elif per_millivolt is None:
        raise RecordError(
            DropReason.UNKNOWN_UNIT, f"{name}.hea: unit {_short(unit)} of lead {lead}: mV, uV, nV and V are understood"
        )
    else:
        refusal = _gain_refusal(per_millivolt, gains, FORMATS[number].bits)
        if refusal is not None:
            raise RecordError(DropReason.IMPLAUSIBLE_GAIN, f"{name}.hea: gain {gain} of lead {lead}: {refusal}")
    return Signal(
        file=file,
        format=number,
        per_frame=per_frame,
        skew=skew,
        offset=offset,
        gain=per_millivolt,
        baseline=int(zero) if baseline is None else baseline,
        first=int(first),
        checksum=int(checksum),
        lead=lead,
    )


def _gain_refusal(per_millivolt: float, gains: tuple[float, float], bits: int) -> str | None:
    """Say which gains are believed if this one is not; None if it is."""
    low, high = gains
    if low < high and bits > 16:  # more bits scale a lead finer
        high *= 1 << (bits - 16)
    if low <= per_millivolt <= high:
        return None
    allowed = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    return f"{allowed} a millivolt is believed; put the true gain into the header, or take a corrected one"


@lru_cache(maxsize=1024)  # a record's lines, and a collection's records, mostly have the same
def _scale(gain: str) -> tuple[float | None, int | None, str] | None:
    """Return ADC units per millivolt (None if the unit is not known), baseline and unit of `200(1024)/mV`."""
    parsed = _GAIN.fullmatch(gain)
    if parsed is None:
        return None
    unit = parsed[3] or "mV"
    millivolt = UNITS.get(unit.lower(), _UNITS_IN_WORDS.get(unit.lower().removesuffix("s")))
    baseline = None if parsed[2] is None else int(parsed[2])
    return None if millivolt is None else float(parsed[1]) / millivolt, baseline, unit


@lru_cache(maxsize=1024)
def _parts(form: str) -> tuple[str, int, int, int] | None:
    """Return the format's number, samples per frame, skew and offset of a field such as `16x2:5+24`."""
    matched = _FORMAT.fullmatch(form)
    if matched is None or matched[1] not in FORMATS:
        return None
    return matched[1], int(matched[2] or 1), int(matched[3] or 0), int(matched[4] or 0)


def _format(form: str, file: str, name: str) -> tuple[str, int, int, int]:
    """Return what `_parts` does. Raises RecordError if the file cannot have such a format."""
    parts = _parts(form)
    if parts is None:
        raise unreadable(name, f"format {_short(form)} of {file}", f"{', '.join(FORMATS)} are read: convert it")
    number, per_frame, _, offset = parts
    if per_frame == 0:
        raise unreadable(name, f"format {_short(form)} of {file}", "a frame has at least one sample")
    if file.lower().endswith(".mat") and (FORMATS[number].mat is None or per_frame > 1 or offset != MAT_HEAD):
        raise unreadable(
            name, f"format {_short(form)} of {file}", "16+24, 32+24 and 80+24 are read of a .mat: convert it"
        )
    return parts


def _unmerged(lines: Sequence[str]) -> list[str] | None:
    """Rebuild a header that lacks the line break after its record line. Returns None if it has another fault.

    The lost fields are taken from the other signal lines, if these agree, and the length from the signal file. The
    first lead's first value and checksum are still there and confirm the repair when the samples are read.
    """
    merged = _MERGED.fullmatch(lines[0])
    shared = {" ".join(line.split()[:3]) for line in lines[1:]}
    if merged is None or len(shared) != 1 or len(lines) != int(merged[2]):
        return None
    return [f"{merged[1]} {merged[2]} {merged[3]}", f"{shared.pop()} {merged[4]}", *lines[1:]]


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")

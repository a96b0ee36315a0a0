"""WFDB records: a text header and the signal files that it names, or segments with headers of their own.

A record that is refused raises RecordError; a fault of the disk raises OSError. Shapes: L leads, T samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.limits import LEADS, RECORD_BYTES
from pipelines.formats.wfdb_header import GAINS, Header, Master, Signal, parse_header, parse_master, text_of, unreadable
from pipelines.formats.wfdb_signals import read_signals
from pipelines.records import DropReason, RecordError

_MOST_VALUES = RECORD_BYTES // 4  # of all segments together


@dataclass(frozen=True, kw_only=True)
class WfdbRecord:
    """A header and its samples."""

    header: Header
    """Its signals are the rows of `signal_LT`."""
    signal_LT: NDArray[np.float32]
    """float32 (L, T), millivolt; NaN for a missing sample."""

    @property
    def leads(self) -> tuple[str, ...]:
        """The leads' names, as the header writes them."""
        return tuple(signal.lead for signal in self.header.signals)


def read_wfdb(path: Path, *, gains: tuple[float, float] = GAINS) -> WfdbRecord:
    """Read the record whose header is `path` and whose files lie in the same folder.

    gains: the lowest and highest accepted ADC units per millivolt. Raises RecordError if the record cannot be used.
    """
    text = text_of(path)
    master = parse_master(text, path.stem)
    if master is not None:
        return _joined(path, master, gains)
    header, signal_LT = read_signals(path, parse_header(text, path.stem, gains=gains))
    return WfdbRecord(header=header, signal_LT=signal_LT)


def _joined(path: Path, master: Master, gains: tuple[float, float]) -> WfdbRecord:
    """Read the segments of a record one after another; what a segment lacks is missing."""
    starts = accumulate((frames for _, frames in master.segments), initial=0)
    # A segment without samples is the layout of the others: it names all signals, and they do so again.
    named = dict.fromkeys((name, frames) for name, frames in master.segments if name is not None and frames > 0)
    found = {(name, frames): _segment(path, master, name, frames, gains) for name, frames in named}
    segments = [
        (start, *found[name, frames])
        for start, (name, frames) in zip(starts, master.segments, strict=False)
        if name is not None and frames > 0
    ]
    if not segments:
        raise unreadable(master.record, "no segment with samples", "drop the record, or fetch it again")
    headers = [header for _, _, header in segments]
    rates = sorted({header.rate for header in headers})
    if len(rates) > 1:
        raise unreadable(
            master.record, f"segments at {rates[0]:g} and {rates[-1]:g} Hz", "make each a record of its own"
        )
    rows = _rows(headers)
    if len(rows) > LEADS:
        raise unreadable(master.record, f"{len(rows)} leads", f"at most {LEADS} are read")
    per_frame = headers[0].per_frame
    total = per_frame * sum(frames for _, frames in master.segments)
    _check_values(master, sum(len(header.signals) * (header.frames or 0) * per_frame for header in headers), "samples")
    _check_values(master, len(rows) * total, "samples with gaps")
    x_LT = np.full((len(rows), total), np.nan, np.float32)
    order = {key: row for row, key in enumerate(rows)}
    notes: list[str] = []
    for start, file, header in segments:
        header, part_LT = read_signals(file, header)
        notes += header.notes
        begin = start * per_frame
        for key, x_T in zip(_keys(header.signals), part_LT, strict=True):
            x_LT[order[key], begin : begin + len(x_T)] = x_T
    return WfdbRecord(header=_header_of(master, headers, tuple(rows.values()), notes), signal_LT=x_LT)


def _segment(path: Path, master: Master, name: str, frames: int, gains: tuple[float, float]) -> tuple[Path, Header]:
    """Return the header of a segment. Raises RecordError if it is not as the master says."""
    endings = (".hea", ".HEA") if path.suffix == ".hea" else (".HEA", ".hea")
    files = [path.with_name(f"{name}{ending}") for ending in endings]
    file = next((file for file in files if file.is_file()), files[0])
    header = parse_header(text_of(file), name, gains=gains)
    if (header.frames or frames, header.frames_per_second) != (frames, master.frames_per_second):
        raise unreadable(
            master.record,
            f"segment {name} of {frames:,} samples at {master.frames_per_second:g} Hz",
            f"its own header says {header.frames or frames:,} at {header.frames_per_second:g} Hz",
        )
    return file, replace(header, frames=frames)


def _keys(signals: Sequence[Signal]) -> list[tuple[str, int]]:
    """Return what tells signals of a segment apart: their names, and which of that name they are."""
    seen: Counter[str] = Counter()
    keys = []
    for signal in signals:
        keys.append((signal.lead, seen[signal.lead]))
        seen[signal.lead] += 1
    return keys


def _rows(headers: Iterable[Header]) -> dict[tuple[str, int], Signal]:
    """Return the signals that segments have between them, in order, each as the first segment with it describes it."""
    rows: dict[tuple[str, int], Signal] = {}
    for header in headers:
        read = [signal for signal in header.signals if signal.per_frame == header.per_frame]
        for key, signal in zip(_keys(read), read, strict=True):
            rows.setdefault(key, signal)
    return rows


def _check_values(master: Master, values: int, what: str) -> None:
    if values > _MOST_VALUES:
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL,
            f"{master.record}.hea: {values:,} {what}: at most {_MOST_VALUES:,} are read of a record in segments: split "
            "it",
        )


def _header_of(master: Master, headers: Sequence[Header], signals: tuple[Signal, ...], notes: Sequence[str]) -> Header:
    """Return a header of the whole record."""
    joined = f"joined from {len(headers)} segments" if len(headers) > 1 else "read from its segment"
    return Header(
        record=master.record,
        frames_per_second=master.frames_per_second,
        frames=sum(frames for _, frames in master.segments),
        signals=signals,
        comments=tuple(dict.fromkeys((*master.comments, *(line for header in headers for line in header.comments)))),
        notes=tuple(dict.fromkeys((joined, *notes))),
    )

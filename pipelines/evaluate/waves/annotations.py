"""P, QRS and T waves of ECGs by their boundaries: as a table, as a class a sample, as intervals. Pure.

Times are samples at 250 Hz of the harmonized window: output k of `ecg_model.signal.prepare` lies at k / 250 s from the
recording's first sample, so a mark at sample s of a recording of `rate` Hz lies at 250 * s / rate.
Shapes: N records, L leads, T samples, W waves.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.formats.shard import LEADS, RATE, SAMPLES

MILLISECONDS = 1000 / RATE
"""Of a sample."""


class Wave(IntEnum):
    """What a sample can belong to; the numbers are those of class maps."""

    BACKGROUND = 0
    P = 1
    QRS = 2
    T = 3


UNKNOWN = -1
"""In class maps: samples of which nothing is known, which neither teach nor count."""
WAVES = (Wave.P, Wave.QRS, Wave.T)
CLASSES = tuple(Wave)

_REFRACTORY = RATE / 4

SCHEMA = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("lead", pa.string(), nullable=False),
        pa.field("wave", pa.string(), nullable=False),
        *(pa.field(name, pa.float32()) for name in ("onset", "peak", "offset")),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Waves:
    """W waves, in no order. record_W: row of the record; lead_W: row in LEADS; wave_W: values of `Wave`.

    onset_W, peak_W, offset_W: float32, samples at 250 Hz; the first and the last sample of a wave belong to it. NaN
    where a boundary was not marked or lies outside the window.
    """

    record_W: NDArray[np.int64]
    lead_W: NDArray[np.int64]
    wave_W: NDArray[np.int64]
    onset_W: NDArray[np.float32]
    peak_W: NDArray[np.float32]
    offset_W: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.record_W)

    def __getitem__(self, chosen: NDArray[Any]) -> Waves:
        """The waves of these places, or those where a mask is true."""
        return Waves(**{name: values[chosen] for name, values in vars(self).items()})

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, float, float, float]]) -> Waves:
        """From rows (record, lead, wave, onset, peak, offset)."""
        columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        whole = [column.astype(np.int64) for column in columns[:3]]
        onset, peak, offset = (column.astype(np.float32) for column in columns[3:])
        return cls(record_W=whole[0], lead_W=whole[1], wave_W=whole[2], onset_W=onset, peak_W=peak, offset_W=offset)

    @classmethod
    def joined(cls, parts: Sequence[Waves]) -> Waves:
        """All waves of several tables, as they are numbered."""
        parts = [cls.of([]), *parts]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def of_records(self, rows: NDArray[np.integer[Any]]) -> Waves:
        """The waves of some records, whose numbers become their places in `rows`."""
        place = {int(row): at for at, row in enumerate(rows)}
        kept = self[np.isin(self.record_W, rows)]
        renumbered = np.array([place[row] for row in kept.record_W.tolist()], dtype=np.int64)
        return replace(kept, record_W=renumbered)

    def to_table(self, record_id: Sequence[str]) -> pa.Table:
        """A table of SCHEMA, null where a boundary is not there. record_id: of each record."""
        names = {
            "record_id": [record_id[record] for record in self.record_W.tolist()],
            "lead": [LEADS[lead] for lead in self.lead_W.tolist()],
            "wave": [Wave(wave).name for wave in self.wave_W.tolist()],
        }
        times = {"onset": self.onset_W, "peak": self.peak_W, "offset": self.offset_W}
        marks = {name: pa.array(values, pa.float32(), from_pandas=True) for name, values in times.items()}
        return pa.table({**names, **marks}, schema=SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table, record_id: Sequence[str]) -> Waves:
        """The inverse of `to_table`. Raises ValueError for a record that is not among `record_id`."""
        place = {name: at for at, name in enumerate(record_id)}
        named = table.column("record_id").to_pylist()
        strangers = sorted({name for name in named if name not in place})
        if strangers:
            raise ValueError(
                f"{len(strangers)} records of the waves are not among the ECGs, such as {strangers[0]!r}: delineate "
                "the ECGs again"
            )
        onset, peak, offset = (
            table.column(name).fill_null(float("nan")).to_numpy() for name in ("onset", "peak", "offset")
        )
        return cls(
            record_W=np.array([place[name] for name in named], dtype=np.int64),
            lead_W=np.array([LEADS.index(name) for name in table.column("lead").to_pylist()], dtype=np.int64),
            wave_W=np.array([Wave[name] for name in table.column("wave").to_pylist()], dtype=np.int64),
            onset_W=onset,
            peak_W=peak,
            offset_W=offset,
        )


def inside_window(waves: Waves) -> Waves:
    """The waves that the window holds, at least in part; a boundary that it does not hold becomes NaN."""
    marks = {}
    for name in ("onset_W", "peak_W", "offset_W"):
        time_W = getattr(waves, name)
        marks[name] = np.where((time_W >= 0) & (time_W <= SAMPLES - 1), time_W, np.nan).astype(np.float32)
    known_W = np.flatnonzero(~np.isnan(np.stack(list(marks.values()))).all(axis=0))
    return replace(waves, **marks)[known_W]


def class_map(waves: Waves, records: int) -> NDArray[np.int8]:
    """The class of each sample, int8 (records, 8, 2500): values of `Wave`, UNKNOWN where nothing is known.

    A lead is known from its first whole wave to its last whole one: annotators leave out the first and the last beats,
    and a wave that the window cuts cannot be told. A wave that lacks a boundary hides what lies between it and its
    neighbour on that side. Where waves overlap (P in T, at high rates) the one that began first keeps the sample.
    """
    map_NLT = np.full((records, len(LEADS), SAMPLES), UNKNOWN, np.int8)
    whole_W = ~np.isnan(waves.onset_W) & ~np.isnan(waves.offset_W)
    whole = waves[whole_W]
    first_W, last_W = (np.rint(time_W).astype(np.int64) for time_W in (whole.onset_W, whole.offset_W))
    for of_lead in _by_lead(whole, first_W):
        w = of_lead[0]
        map_T = map_NLT[whole.record_W[w], whole.lead_W[w]]
        map_T[first_W[w] : last_W[of_lead].max() + 1] = Wave.BACKGROUND
        for w in of_lead[::-1]:  # the earlier ones last, over what overlaps them
            map_T[first_W[w] : last_W[w] + 1] = whole.wave_W[w]
    for w in np.flatnonzero(~whole_W):
        marks = (float(time_W[w]) for time_W in (waves.onset_W, waves.peak_W, waves.offset_W))
        _hide(map_NLT[waves.record_W[w], waves.lead_W[w]], *marks)
    return map_NLT


def waves_of(map_NLT: NDArray[np.int8], *, least: int = 5) -> Waves:
    """The waves of class maps (N, 8, 2500), ascending in each lead; peaks are not known.

    A run of a class shorter than `least` samples (5: 20 ms, less than any wave lasts) is noise and left out; what then
    lies less than that apart and is of one class is one wave.
    """
    samples = map_NLT.shape[-1]
    flat_S = np.pad(map_NLT.reshape(-1, samples), ((0, 0), (0, 1))).ravel()  # background keeps leads apart
    starts = np.flatnonzero(np.diff(flat_S, prepend=Wave.BACKGROUND))
    ends = np.append(starts[1:], len(flat_S)) - 1
    kept = (flat_S[starts] > Wave.BACKGROUND) & (ends - starts + 1 >= least)
    starts, ends = starts[kept], ends[kept]
    class_R, place_R = flat_S[starts].astype(np.int64), starts // (samples + 1)
    goes_on = (np.diff(class_R) == 0) & (np.diff(place_R) == 0) & (starts[1:] - ends[:-1] - 1 < least)
    begins = np.concatenate([[True], ~goes_on])[: len(starts)]
    stops = np.concatenate([~goes_on, [True]])[: len(starts)]
    place_W = place_R[begins]
    return Waves(
        record_W=place_W // len(LEADS),
        lead_W=place_W % len(LEADS),
        wave_W=class_R[begins],
        onset_W=(starts[begins] % (samples + 1)).astype(np.float32),
        peak_W=np.full(len(place_W), np.nan, np.float32),
        offset_W=(ends[stops] % (samples + 1)).astype(np.float32),
    )


@dataclass(frozen=True, kw_only=True)
class IntervalDefinition:
    """A figure of an ECG that its boundaries give. name: for files; title, unit: for people."""

    name: str
    title: str
    unit: str


INTERVALS = (
    IntervalDefinition(name="heart_rate", title="heart rate", unit="bpm"),
    IntervalDefinition(name="p", title="P duration", unit="ms"),
    IntervalDefinition(name="pr", title="PR interval", unit="ms"),
    IntervalDefinition(name="qrs", title="QRS duration", unit="ms"),
    IntervalDefinition(name="qt", title="QT interval", unit="ms"),
)

IEC_MS: dict[str, tuple[float, float]] = {"p": (10, 15), "pr": (10, 10), "qrs": (10, 10), "qt": (25, 30)}
"""By the interval's name, the mean difference and its standard deviation that IEC 60601-2-25 accepts of an
electrocardiograph on recorded ECGs. The standard itself could not be read: these are its figures as a transcript has
them of table 1 of Macfarlane et al. (Computers in Cardiology, 2005, doi 10.1109/CIC.2005.1588134), then of IEC
60601-2-51, which is part of it since 2011. They are of intervals over all leads, in 100 ECGs of the CSE database."""


def intervals(waves: Waves, records: int) -> NDArray[np.float64]:
    """(records, 5), the figures of INTERVALS: the median over beats of each lead, and of these the median over leads.

    NaN where no lead has it. Heart rate: 60 s over the time from one QRS peak (its middle, where no peak is known) to
    the next. P: from its onset to its offset. PR: from the onset of the last P between two QRS to the onset of the QRS
    behind it. QRS: from its onset to its offset. QT: from the onset of a QRS to the offset of the first T behind it, if
    that comes before the next QRS. What looks like a QRS within 250 ms of one is no beat of its own, so 240 bpm are the
    most that is measured.
    The definitions are those of the AHA, ACC and HRS (Kligfield et al., Circulation 115, 2007, 1306-1324), which
    measure from the earliest onset to the latest offset in any lead; a median over leads is some milliseconds shorter.
    """
    place_W = waves.record_W * len(LEADS) + waves.lead_W
    beat_W = np.where(np.isnan(waves.peak_W), (waves.onset_W + waves.offset_W) / 2, waves.peak_W)
    at_W = np.where(np.isnan(beat_W), np.fmax(waves.onset_W, waves.offset_W), beat_W)
    order = np.lexsort((at_W, place_W))
    columns = (place_W, waves.wave_W, waves.onset_W, beat_W, waves.offset_W)
    found: tuple[list[tuple[int, float]], ...] = ([], [], [], [], [])
    rr, p, pr, qrs, qt = found
    here, p_onset, last_qrs, t_due = -1, None, None, False
    for place, wave, onset, beat, offset in zip(*(column[order].tolist() for column in columns), strict=True):
        if place != here:
            here, p_onset, last_qrs = place, None, None
        if wave == Wave.QRS and last_qrs is not None and beat - last_qrs[1] < _REFRACTORY:
            continue
        if wave == Wave.P:
            p_onset = onset
            p.append((place, offset - onset))
        elif wave == Wave.QRS:
            if last_qrs is not None:
                rr.append((place, beat - last_qrs[1]))
            if p_onset is not None:
                pr.append((place, onset - p_onset))
            qrs.append((place, offset - onset))
            p_onset, last_qrs, t_due = None, (onset, beat), True
        elif last_qrs is not None and t_due:
            qt.append((place, offset - last_qrs[0]))
            t_due = False
    median_NI = np.full((records, len(INTERVALS)), np.nan)
    for column, pairs in enumerate(found):
        of_leads = [(place // len(LEADS), median) for place, median in _medians(pairs).items()]
        for record, median in _medians(of_leads).items():
            median_NI[record, column] = median
    median_NI[:, 0] = 60 * RATE / median_NI[:, 0]
    median_NI[:, 1:] *= MILLISECONDS
    return median_NI


def _medians(pairs: Sequence[tuple[int, float]]) -> dict[int, float]:
    """The median of the values of each key that are not NaN."""
    values: dict[int, list[float]] = {}
    for key, value in pairs:
        if not math.isnan(value):
            values.setdefault(key, []).append(value)
    return {key: statistics.median(of_key) for key, of_key in values.items()}


def _by_lead(waves: Waves, first_W: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The places of the waves of each lead of each record, in the order of `first_W`."""
    place_W = waves.record_W * len(LEADS) + waves.lead_W
    order = np.lexsort((first_W, place_W))
    bounds = np.flatnonzero(np.diff(place_W[order], prepend=-1, append=-1))
    for begin, end in itertools.pairwise(bounds.tolist()):
        yield order[begin:end]


def _hide(map_T: NDArray[np.int8], onset: float, peak: float, offset: float) -> None:
    """Nothing is known from a wave that lacks a boundary to its neighbour on that side."""
    waves_T = map_T > Wave.BACKGROUND
    within = round(next(time for time in (peak, onset, offset) if not math.isnan(time)))
    first = round(onset) if not math.isnan(onset) else int(np.max(np.flatnonzero(waves_T[:within]), initial=-1)) + 1
    behind = np.flatnonzero(waves_T[within + 1 :])
    last = round(offset) if not math.isnan(offset) else within + int(np.min(behind, initial=len(map_T)))
    map_T[first : last + 1] = UNKNOWN

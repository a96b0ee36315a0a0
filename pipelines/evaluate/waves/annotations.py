"""P, QRS and T waves of ECGs as a table of boundaries, as a class of each sample, and as intervals. Pure functions.

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
"""The duration of a sample, in milliseconds."""


class Wave(IntEnum):
    """The class of a sample; the values are those of class maps."""

    BACKGROUND = 0
    P = 1
    QRS = 2
    T = 3


UNKNOWN = -1
"""In class maps: a sample whose class is not known. It is neither trained on nor scored."""
WAVES = (Wave.P, Wave.QRS, Wave.T)
CLASSES = tuple(Wave)

_REFRACTORY = RATE / 4  # samples: a QRS that follows another within 250 ms is not counted as a beat

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
    """A table of W waves, in no order.

    Times are samples at 250 Hz, NaN if a boundary was not marked or lies outside the window.
    """

    record_W: NDArray[np.int64]
    """Row of the record."""
    lead_W: NDArray[np.int64]
    """Row in LEADS."""
    wave_W: NDArray[np.int64]
    """Values of `Wave`."""
    onset_W: NDArray[np.float32]
    """The first sample that belongs to the wave."""
    peak_W: NDArray[np.float32]
    offset_W: NDArray[np.float32]
    """The last sample that belongs to the wave."""

    def __len__(self) -> int:
        return len(self.record_W)

    def __getitem__(self, chosen: NDArray[Any]) -> Waves:
        """Return the waves at these places, or those whose entry in a mask is true."""
        return Waves(**{name: values[chosen] for name, values in vars(self).items()})

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, float, float, float]]) -> Waves:
        """Build the table from rows (record, lead, wave, onset, peak, offset)."""
        columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
        record, lead, wave = (column.astype(np.int64) for column in columns[:3])
        onset, peak, offset = (column.astype(np.float32) for column in columns[3:])
        return cls(record_W=record, lead_W=lead, wave_W=wave, onset_W=onset, peak_W=peak, offset_W=offset)

    @classmethod
    def joined(cls, parts: Sequence[Waves]) -> Waves:
        """Concatenate tables; their record numbers stay as they are."""
        parts = [cls.of([]), *parts]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def of_records(self, rows: NDArray[np.integer[Any]]) -> Waves:
        """Return the waves of some records, each record renumbered to its place in `rows`."""
        place = {int(row): at for at, row in enumerate(rows)}
        chosen = self[np.isin(self.record_W, rows)]
        renumbered = np.array([place[row] for row in chosen.record_W.tolist()], dtype=np.int64)
        return replace(chosen, record_W=renumbered)

    def to_table(self, record_id: Sequence[str]) -> pa.Table:
        """Return a table of SCHEMA, with null for a NaN. record_id: the id of each record, by its number."""
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
        """Read a table that `to_table` wrote. Raises ValueError if a record is not in `record_id`."""
        place = {name: at for at, name in enumerate(record_id)}
        names = table.column("record_id").to_pylist()
        unknown = sorted({name for name in names if name not in place})
        if unknown:
            raise ValueError(
                f"{len(unknown)} records of the waves are not among the ECGs, such as {unknown[0]!r}: delineate "
                "the ECGs again"
            )
        onset, peak, offset = (
            table.column(name).fill_null(float("nan")).to_numpy() for name in ("onset", "peak", "offset")
        )
        return cls(
            record_W=np.array([place[name] for name in names], dtype=np.int64),
            lead_W=np.array([LEADS.index(name) for name in table.column("lead").to_pylist()], dtype=np.int64),
            wave_W=np.array([Wave[name] for name in table.column("wave").to_pylist()], dtype=np.int64),
            onset_W=onset,
            peak_W=peak,
            offset_W=offset,
        )


def inside_window(waves: Waves) -> Waves:
    """Return the waves that lie in the window at least in part; a boundary outside it becomes NaN."""
    marks = {}
    for name in ("onset_W", "peak_W", "offset_W"):
        time_W = getattr(waves, name)
        marks[name] = np.where((time_W >= 0) & (time_W <= SAMPLES - 1), time_W, np.nan).astype(np.float32)
    known_W = np.flatnonzero(~np.isnan(np.stack(list(marks.values()))).all(axis=0))
    return replace(waves, **marks)[known_W]


def class_map(waves: Waves, records: int) -> NDArray[np.int8]:
    """Return the class of each sample, int8 (records, 8, 2500): values of `Wave`, or UNKNOWN.

    A lead is known from its first complete wave to its last complete one: annotators leave out the first and the last
    beats, and a wave that the window cuts has no certain extent. If a wave lacks a boundary, the samples between it and
    its neighbour on that side are UNKNOWN. If waves overlap (P in T, at high rates), the one that began first keeps the
    sample.
    """
    map_NLT = np.full((records, len(LEADS), SAMPLES), UNKNOWN, np.int8)
    whole_W = ~np.isnan(waves.onset_W) & ~np.isnan(waves.offset_W)
    whole = waves[whole_W]
    first_W, last_W = (np.rint(time_W).astype(np.int64) for time_W in (whole.onset_W, whole.offset_W))
    for of_lead in _places_by_lead(whole, first_W):
        w = of_lead[0]
        map_T = map_NLT[whole.record_W[w], whole.lead_W[w]]
        map_T[first_W[w] : last_W[of_lead].max() + 1] = Wave.BACKGROUND
        for w in of_lead[::-1]:  # the earlier waves last, so that they overwrite those that overlap them
            map_T[first_W[w] : last_W[w] + 1] = whole.wave_W[w]
    for w in np.flatnonzero(~whole_W):
        marks = (float(time_W[w]) for time_W in (waves.onset_W, waves.peak_W, waves.offset_W))
        _hide(map_NLT[waves.record_W[w], waves.lead_W[w]], *marks)
    return map_NLT


def waves_of(map_NLT: NDArray[np.int8], *, least: int = 5) -> Waves:
    """Return the waves of class maps int8 (N, 8, 2500), ascending in each lead, with NaN peaks.

    A run of a class shorter than `least` samples (5: 20 ms, shorter than any wave) is noise and left out. Of the
    others, runs of one class that are less than `least` samples apart are one wave.
    """
    samples = map_NLT.shape[-1]
    # One background sample behind each lead keeps runs of neighbouring leads apart.
    flat_S = np.pad(map_NLT.reshape(-1, samples), ((0, 0), (0, 1))).ravel()
    starts = np.flatnonzero(np.diff(flat_S, prepend=Wave.BACKGROUND))
    ends = np.append(starts[1:], len(flat_S)) - 1
    is_wave = (flat_S[starts] > Wave.BACKGROUND) & (ends - starts + 1 >= least)
    starts, ends = starts[is_wave], ends[is_wave]
    class_R, place_R = flat_S[starts].astype(np.int64), starts // (samples + 1)
    # Join a run to the next one if both are of one class and lead and the gap is short.
    continues = (np.diff(class_R) == 0) & (np.diff(place_R) == 0) & (starts[1:] - ends[:-1] - 1 < least)
    begins = np.concatenate([[True], ~continues])[: len(starts)]
    stops = np.concatenate([~continues, [True]])[: len(starts)]
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
    """A measurement of an ECG that follows from its boundaries: an interval, or the heart rate."""

    name: str
    """In files."""
    title: str
    """On pages and in tables."""
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
electrocardiograph on recorded ECGs. The standard itself could not be read. The figures are from a transcript of table 1
of Macfarlane et al. (Computers in Cardiology, 2005, doi 10.1109/CIC.2005.1588134), which gives them for IEC 60601-2-51,
part of IEC 60601-2-25 since 2011. They hold for intervals over all leads, in 100 ECGs of the CSE database."""


def intervals(waves: Waves, records: int) -> NDArray[np.float64]:
    """Measure INTERVALS, float64 (records, 5): the median over the beats of a lead, then the median over leads.

    NaN if no lead has the interval.

    - Heart rate: 60 s over the time from one QRS peak to the next. If the peak is not known, the middle of the QRS.
    - P: from its onset to its offset.
    - PR: from the onset of the last P between two QRS to the onset of the QRS behind it.
    - QRS: from its onset to its offset.
    - QT: from the onset of a QRS to the offset of the first T behind it, if that comes before the next QRS.

    A QRS within 250 ms of another is not counted as a beat, so 240 bpm are the most that is measured.
    The definitions are those of the AHA, ACC and HRS (Kligfield et al., Circulation 115, 2007, 1306-1324), which
    measure from the earliest onset to the latest offset in any lead; a median over leads is some milliseconds shorter.
    """
    place_W = waves.record_W * len(LEADS) + waves.lead_W
    beat_W = np.where(np.isnan(waves.peak_W), (waves.onset_W + waves.offset_W) / 2, waves.peak_W)
    at_W = np.where(np.isnan(beat_W), np.fmax(waves.onset_W, waves.offset_W), beat_W)
    order = np.lexsort((at_W, place_W))
    columns = (place_W, waves.wave_W, waves.onset_W, beat_W, waves.offset_W)
    # (place, length in samples) of each measured interval, in the order of INTERVALS
    measured: tuple[list[tuple[int, float]], ...] = ([], [], [], [], [])
    rr, p, pr, qrs, qt = measured
    last_place, p_onset, last_qrs, t_due = -1, None, None, False
    for place, wave, onset, beat, offset in zip(*(column[order].tolist() for column in columns), strict=True):
        if place != last_place:  # another lead: nothing is measured across leads
            last_place, p_onset, last_qrs = place, None, None
        if wave == Wave.QRS and last_qrs is not None and beat - last_qrs[1] < _REFRACTORY:
            continue
        if wave == Wave.P:
            p_onset = onset  # a later P before the QRS replaces this one
            p.append((place, offset - onset))
        elif wave == Wave.QRS:
            if last_qrs is not None:
                rr.append((place, beat - last_qrs[1]))
            if p_onset is not None:
                pr.append((place, onset - p_onset))
            qrs.append((place, offset - onset))
            p_onset, last_qrs, t_due = None, (onset, beat), True
        elif last_qrs is not None and t_due:  # the first T behind a QRS
            qt.append((place, offset - last_qrs[0]))
            t_due = False
    median_NI = np.full((records, len(INTERVALS)), np.nan)
    for column, pairs in enumerate(measured):
        of_leads = [(place // len(LEADS), median) for place, median in _medians(pairs).items()]
        for record, median in _medians(of_leads).items():
            median_NI[record, column] = median
    median_NI[:, 0] = 60 * RATE / median_NI[:, 0]
    median_NI[:, 1:] *= MILLISECONDS
    return median_NI


def _medians(pairs: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Return the median of each key's values, leaving out NaN."""
    values: dict[int, list[float]] = {}
    for key, value in pairs:
        if not math.isnan(value):
            values.setdefault(key, []).append(value)
    return {key: statistics.median(of_key) for key, of_key in values.items()}


def _places_by_lead(waves: Waves, first_W: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield, for each lead of each record, the places of its waves in the order of `first_W`."""
    place_W = waves.record_W * len(LEADS) + waves.lead_W
    order = np.lexsort((first_W, place_W))
    bounds = np.flatnonzero(np.diff(place_W[order], prepend=-1, append=-1))
    for begin, end in itertools.pairwise(bounds.tolist()):
        yield order[begin:end]


def _hide(map_T: NDArray[np.int8], onset: float, peak: float, offset: float) -> None:
    """Set the samples from a wave that lacks a boundary to its neighbour on that side to UNKNOWN."""
    waves_T = map_T > Wave.BACKGROUND
    within = round(next(time for time in (peak, onset, offset) if not math.isnan(time)))
    first = round(onset) if not math.isnan(onset) else int(np.max(np.flatnonzero(waves_T[:within]), initial=-1)) + 1
    behind = np.flatnonzero(waves_T[within + 1 :])
    last = round(offset) if not math.isnan(offset) else within + int(np.min(behind, initial=len(map_T)))
    map_T[first : last + 1] = UNKNOWN

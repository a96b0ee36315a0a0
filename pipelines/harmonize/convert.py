"""A shard's records, of any rate, length and lead order, to one array and two tables, with no record lost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.signal import (
    LEADS,
    RATE_MAX,
    RATE_MIN,
    SECONDS,
    LeadMissing,
    LeadRepeated,
    canonical_lead,
    lead_rows,
    prepare,
    window_reach,
    window_samples,
)
from pipelines.formats.shard import ShardWriter, content_hash
from pipelines.formats.simhash import signatures
from pipelines.harmonize.quality import Figures, QualityLimits, figures, missing_share, verdict
from pipelines.records import DroppedRecord, DropReason, Record, RecordError, absent_note

BATCH = 32  # of 64 the arrays no longer fit the cache: a sixth more processor time
SHORTEST = 5.0

OnConverted = Callable[[int], None]
_Batch = list[Record | DroppedRecord]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What came of a shard. entered == kept + the sum of dropped; rates: kept records by their original rate."""

    entered: int
    kept: int
    dropped: dict[str, int]
    rates: dict[str, int]

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "hours": round(self.kept * SECONDS / 3600, 4)}


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    """What becomes of records that lack time or leads. The defaults drop them: published sources are complete.

    A record's notes say that it was repeated, and which leads it lacks.
    """

    repeat_from: float = field(default=SECONDS, metadata={"ge": SHORTEST, "le": SECONDS})
    """Records that last at least this many seconds, and less than ten, are repeated until they fill ten. 10: they are
    dropped."""
    mark_leads: bool = False
    """Keep records that lack some, but not all, of the eight leads, with zeros in their place and a note. The corpus
    leaves them out. Off: they are dropped."""

    def __post_init__(self) -> None:
        if not SHORTEST <= self.repeat_from <= SECONDS:
            raise ValueError(f"repeat_from {self.repeat_from}: use seconds, from {SHORTEST:g} to {SECONDS} (none)")


COMPLETE = Incomplete()


@dataclass(frozen=True)
class Kept:
    """A harmonized record: int16 (8, 2500) microvolt and its row of the table."""

    signal_LT: NDArray[np.int16]
    row: dict[str, Any]


def harmonize(
    records: Iterable[Record | DroppedRecord],
    out: Path,
    *,
    source: str,
    limits: QualityLimits,
    incomplete: Incomplete = COMPLETE,
    progress: OnConverted | None = None,
) -> Counts:
    """Write what the reader yields into the directory `out` as pipelines.formats.shard lays it out.

    Each record is reduced to the eight leads, ten seconds and 250 Hz by `ecg_model.signal.prepare`, rounded to
    microvolt, and judged by `limits`; what is not kept goes to the table of drops with its reason. Rows keep the
    reader's order, and the same records give the same bytes. progress is told the number of records entered so far.
    Raises ValueError where the reader yields nothing.
    """
    entered = kept = 0
    dropped: Counter[DropReason] = Counter()
    rates: Counter[str] = Counter()
    writer = ShardWriter(out)
    for batch in _batches(_once(records)):
        for result in _harmonized(batch, source=source, limits=limits, incomplete=incomplete):
            if isinstance(result, DroppedRecord):
                dropped[result.reason] += 1
                writer.add_dropped(result, source)
            else:
                kept += 1
                rates[f"{result.row['rate']:g}"] += 1
                writer.append(result.signal_LT, result.row)
        entered += len(batch)
        if progress is not None:
            progress(entered)
    if entered == 0:
        raise ValueError(
            f"{source}: the partition holds no records: check that the mirror has its files, then download"
        )
    writer.close()
    assert entered == kept + dropped.total()
    return Counts(
        entered=entered,
        kept=kept,
        dropped={reason.value: dropped[reason] for reason in DropReason if dropped[reason]},
        rates=dict(sorted(rates.items(), key=lambda item: float(item[0]))),
    )


def judge(
    records: Iterable[Record | DroppedRecord], *, source: str, limits: QualityLimits, incomplete: Incomplete = COMPLETE
) -> Iterator[Kept | DroppedRecord]:
    """What `harmonize` would write of each item, in order, without writing it."""
    for batch in _batches(_once(records)):
        yield from _harmonized(batch, source=source, limits=limits, incomplete=incomplete)


def _once(records: Iterable[Record | DroppedRecord]) -> Iterator[Record | DroppedRecord]:
    """The same items; a record whose id came before is a drop."""
    seen: set[str] = set()
    for item in records:
        if isinstance(item, Record) and item.record_id in seen:
            yield DroppedRecord(
                item.record_id, DropReason.DUPLICATE_ID, f"record {item.record_id} came before; the first counts"
            )
            continue
        if isinstance(item, Record):
            seen.add(item.record_id)
        yield item


def _batches(items: Iterator[Record | DroppedRecord]) -> Iterator[_Batch]:
    while batch := list(islice(items, BATCH)):
        yield batch


def _harmonized(
    batch: _Batch, *, source: str, limits: QualityLimits, incomplete: Incomplete
) -> list[Kept | DroppedRecord]:
    """One result an item, in order. Records of one form (leads, rate, samples) go through the filters together."""
    results: list[Kept | DroppedRecord | None] = [None] * len(batch)
    forms: dict[tuple[tuple[str, ...], float, int], list[tuple[int, Record, NDArray[np.float32]]]] = {}
    for at, item in enumerate(batch):
        if isinstance(item, DroppedRecord):
            results[at] = item
            continue
        try:
            window_LT = _window(item, incomplete)
        except RecordError as error:
            results[at] = error.dropped(item.record_id)
            continue
        forms.setdefault((item.leads, item.rate, window_LT.shape[-1]), []).append((at, item, window_LT))
    for (leads, rate, _), members in forms.items():
        raw_NLT = np.stack([window_LT for _, _, window_LT in members])
        absent = _absent(leads)
        x_NLT = prepare(_zeros_below(raw_NLT, len(absent)), leads=(*leads, *absent), rate=rate)
        given_NLT = x_NLT[:, [lead not in absent for lead in LEADS]] if absent else x_NLT
        found = figures(raw_NLT[..., : window_samples(rate)], given_NLT, leads=leads, rate=rate, limits=limits)
        kept: list[tuple[int, Record, int]] = []
        for row, (at, record, _) in enumerate(members):
            judged = verdict(found, row, limits)
            if judged is not None:
                results[at] = DroppedRecord(record.record_id, *judged)
                continue
            kept.append((at, record, row))
        signal_NLT = np.rint(x_NLT[[row for _, _, row in kept]] * 1000).astype("<i2")
        for (at, record, row), signal_LT, signature_B in zip(kept, signal_NLT, signatures(signal_NLT), strict=True):
            results[at] = Kept(signal_LT, _row(record, source, signal_LT, signature_B, found, row))
    assert all(result is not None for result in results)
    return [result for result in results if result is not None]


def _window(record: Record, incomplete: Incomplete) -> NDArray[np.float32]:
    """The part of a record that `prepare` looks at, contiguous; RecordError where it cannot be used."""
    x_LT = record.signal_LT
    if x_LT.ndim != 2 or x_LT.shape[0] != len(record.leads):
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL, f"signal of shape {x_LT.shape} does not fit {len(record.leads)} lead names"
        )
    _check_leads(record.leads, incomplete.mark_leads)
    if not RATE_MIN <= record.rate <= RATE_MAX:
        raise RecordError(
            DropReason.UNREADABLE_HEADER, f"rate {record.rate} Hz: {RATE_MIN:g} to {RATE_MAX:g} can be resampled"
        )
    needed = window_samples(record.rate)
    if x_LT.shape[1] < min(needed, math.ceil(incomplete.repeat_from * record.rate - 1e-6)):
        raise RecordError(
            DropReason.TOO_SHORT,
            f"{x_LT.shape[1]} samples at {record.rate:g} Hz: the window of {SECONDS} s needs {needed}",
        )
    if x_LT.shape[1] < needed:
        x_LT = np.tile(x_LT, -(-needed // x_LT.shape[1]))[:, :needed]
    share = missing_share(x_LT[:, :needed])
    if share > 0:
        raise RecordError(
            DropReason.MISSING_SAMPLES, f"{share:.2%} of the samples of the first {SECONDS} s are missing"
        )
    reach_LT = x_LT[:, : window_reach(record.rate)]
    if not np.isfinite(reach_LT[:, needed:]).all():
        reach_LT = x_LT[:, :needed]
    return np.ascontiguousarray(reach_LT, np.float32)


def _zeros_below(x_NLT: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    return np.pad(x_NLT, ((0, 0), (0, rows), (0, 0))) if rows else x_NLT


@lru_cache(maxsize=256)
def _absent(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the eight leads that are not among `names`, which are names of leads."""
    canonical = {canonical_lead(name) for name in names}
    return tuple(lead for lead in LEADS if lead not in canonical)


@lru_cache(maxsize=256)
def _check_leads(names: tuple[str, ...], some: bool) -> None:
    """some: one of the eight leads is enough."""
    try:
        absent = _absent(names)
        lead_rows(names, [lead for lead in LEADS if lead not in absent] if some and len(absent) < len(LEADS) else LEADS)
    except LeadMissing as error:
        raise RecordError(DropReason.LEAD_MISSING, str(error)) from error
    except LeadRepeated as error:
        raise RecordError(DropReason.LEAD_REPEATED, str(error)) from error
    except ValueError as error:
        raise RecordError(DropReason.UNREADABLE_HEADER, str(error)) from error


def _row(
    record: Record,
    source: str,
    signal_LT: NDArray[np.int16],
    signature_B: NDArray[np.uint8],
    found: Figures,
    row: int,
) -> dict[str, Any]:
    quality = {f"quality_{field.name}": _or_none(float(getattr(found, field.name)[row])) for field in fields(Figures)}
    return {
        "source": source,
        "record_id": record.record_id,
        "patient_id": record.patient_id,
        "age": None if record.age is None else _or_none(record.age),
        "sex": record.sex,
        "rate": record.rate,
        "samples": record.signal_LT.shape[1],
        "labels": list(record.labels),
        "fold": record.fold,
        "notes": [*record.notes, *_completed(record)],
        "content_hash": content_hash(signal_LT),
        "signature": signature_B.tobytes(),
        "quality_missing_share": missing_share(record.signal_LT),
        **quality,
    }


def _completed(record: Record) -> Iterator[str]:
    """How a record that is kept was brought to eight leads and ten seconds, in words."""
    samples = record.signal_LT.shape[1]
    if samples < window_samples(record.rate):
        yield f"repeated to fill the window: {samples / record.rate:.2f} s were recorded"
    if absent := _absent(record.leads):
        yield absent_note(absent)


def _or_none(value: float) -> float | None:
    """NaN is no value: a table says null."""
    return None if math.isnan(value) else value

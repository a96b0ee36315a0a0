"""Convert one partition's records to a uniform array, a table of kept records and a table of dropped ones.

Every record is in one of the two tables. Shapes: N records, L leads as the source gives them, T samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import SECONDS, prepare, window_samples
from pipelines.formats.shard import ShardWriter, content_hash
from pipelines.formats.simhash import signatures
from pipelines.harmonize.quality import Figures, QualityLimits, figures, verdict
from pipelines.harmonize.window import COMPLETE, SHORTEST, Incomplete, Leads, Window, absent_from, leads_of, window_of
from pipelines.records import DroppedRecord, DropReason, Record, RecordError

BATCH = 32  # records; with 64 the arrays no longer fit the cache, which takes a sixth more processor time
_BATCH_BYTES = 64 << 20

OnConverted = Callable[[int], None]
_Batch = list[Record | DroppedRecord]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a harmonized shard. entered == kept + the sum of dropped."""

    entered: int
    kept: int
    dropped: dict[str, int]  # by reason
    rates: dict[str, int]  # kept records by their original sampling rate
    trimmed: int  # records with padding around them
    missing: dict[str, float]  # by lead: share of its samples that are missing, mean over the entered records

    def facts(self) -> dict[str, Any]:
        """Return the counts as `pipelines.harmonize.shards.HarmonizedFacts` names them, with the hours of kept ECGs."""
        return {**asdict(self), "hours": round(self.kept * SECONDS / 3600, 4)}


@dataclass(frozen=True)
class Kept:
    """A harmonized record: int16 (8, 2500) microvolt and its row of the table."""

    signal_LT: NDArray[np.int16]
    row: dict[str, Any]


class _Tally:
    """Counts of a shard while its records come in."""

    def __init__(self) -> None:
        self.entered = 0
        self._dropped: Counter[DropReason] = Counter()
        self._rates: Counter[str] = Counter()
        self._trimmed = 0
        self._missing: Counter[str] = Counter()

    def add(self, result: Kept | DroppedRecord, leads: Leads | None) -> None:
        """Count a record. leads: those of it that can be used, if it has any."""
        self.entered += 1
        if leads is not None:
            self._trimmed += leads.trimmed
            self._missing.update(leads.missing)
        if isinstance(result, DroppedRecord):
            self._dropped[result.reason] += 1
        else:
            self._rates[f"{result.row['rate']:g}"] += 1

    def counts(self) -> Counts:
        """Return the counts of all records so far."""
        return Counts(
            entered=self.entered,
            kept=self._rates.total(),
            dropped={reason.value: self._dropped[reason] for reason in DropReason if self._dropped[reason]},
            rates=dict(sorted(self._rates.items(), key=lambda item: float(item[0]))),
            trimmed=self._trimmed,
            missing={lead: self._missing[lead] / self.entered for lead in LEADS_12 if lead in self._missing},
        )


def harmonize(
    records: Iterable[Record | DroppedRecord],
    out: Path,
    *,
    source: str,
    limits: QualityLimits,
    incomplete: Incomplete = COMPLETE,
    progress: OnConverted | None = None,
) -> Counts:
    """Write the records of a reader into the directory `out`, laid out as in pipelines.formats.shard.

    progress: called with the number of records entered so far.

    Each record is reduced to eight leads, ten seconds and 250 Hz by `ecg_model.signal.prepare`, rounded to microvolt,
    and judged by `limits`; a record that is not kept goes to the table of dropped records with its reason. Rows keep
    the reader's order, and the same records give the same bytes. Raises ValueError if the reader yields no record.
    """
    tally = _Tally()
    writer = ShardWriter(out)
    for batch in _batches(_once(records)):
        for result, leads in _harmonized(batch, source=source, limits=limits, incomplete=incomplete):
            tally.add(result, leads)
            if isinstance(result, DroppedRecord):
                writer.add_dropped(result, source)
            else:
                writer.append(result.signal_LT, result.row)
        if progress is not None:
            progress(tally.entered)
    if tally.entered == 0:
        raise ValueError(
            f"{source}: the partition holds no records: check that the mirror has its files, then download it again"
        )
    writer.close()
    return tally.counts()


def judge(
    records: Iterable[Record | DroppedRecord], *, source: str, limits: QualityLimits, incomplete: Incomplete = COMPLETE
) -> Iterator[Kept | DroppedRecord]:
    """Yield what `harmonize` would write of each item, in order, without writing it."""
    for batch in _batches(_once(records)):
        for result, _ in _harmonized(batch, source=source, limits=limits, incomplete=incomplete):
            yield result


def encodable(record: Record) -> Record | DroppedRecord:
    """Return a record as a registered model takes it: LEADS alone, and nothing from a gap behind the window on.

    What harmonization drops by its default limits is dropped here, too, except for its length: a model encodes shorter
    recordings as they are.
    """
    incomplete = Incomplete(repeat_from=SHORTEST)
    ((result, leads),) = _harmonized([record], source="", limits=QualityLimits(), incomplete=incomplete)
    if isinstance(result, DroppedRecord) and (leads is None or result.reason is not DropReason.TOO_SHORT):
        return result
    assert leads is not None
    x_8T = leads.signal_LT[[leads.names.index(lead) for lead in LEADS]]
    gaps = np.flatnonzero(~np.isfinite(x_8T).all(axis=0))
    end = gaps[0] if len(gaps) and gaps[0] >= window_samples(record.rate) else x_8T.shape[1]
    return replace(record, signal_LT=x_8T[:, :end], leads=LEADS)


def _once(records: Iterable[Record | DroppedRecord]) -> Iterator[Record | DroppedRecord]:
    """Yield the same items; a record whose id came before becomes a dropped record."""
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
    """Yield the items by BATCH, or fewer if they are recordings of hours."""
    batch: _Batch = []
    size = 0
    for item in items:
        batch.append(item)
        size += item.signal_LT.nbytes if isinstance(item, Record) else 0
        if len(batch) == BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _harmonized(
    batch: _Batch, *, source: str, limits: QualityLimits, incomplete: Incomplete
) -> list[tuple[Kept | DroppedRecord, Leads | None]]:
    """Return one result per item, in order, and the leads of those that have any that can be used.

    Records with the same leads, rate and number of samples go through the filters together.
    """
    results: list[Kept | DroppedRecord | None] = [None] * len(batch)
    used: list[Leads | None] = [None] * len(batch)
    forms: dict[tuple[Any, ...], list[_Member]] = {}
    for at, item in enumerate(batch):
        if isinstance(item, DroppedRecord):
            results[at] = item
            continue
        try:
            leads = used[at] = leads_of(item)
            window = window_of(leads, incomplete)
        except RecordError as error:
            results[at] = error.dropped(item.record_id)
            continue
        form = (leads.names, leads.computed, item.rate, window.signal_LT.shape[-1])
        forms.setdefault(form, []).append(_Member(at, item, leads, window))
    for (names, computed, rate, _), members in forms.items():
        # Absent leads enter the filters as zeros, below the recorded ones, so that all eight come out.
        raw_NLT = np.stack([member.window.signal_LT for member in members])
        absent = absent_from(names)
        x_NLT = prepare(_zeros_below(raw_NLT, len(absent)), leads=(*names, *absent), rate=rate)
        given_NLT = x_NLT[:, [lead not in absent for lead in LEADS]] if absent else x_NLT
        # The quality of what the source recorded: without the zeros of absent leads, without the filters' margin.
        recorded_NLT = raw_NLT[..., : window_samples(rate)]
        batch_figures = figures(recorded_NLT, given_NLT, leads=names, computed=computed, rate=rate, limits=limits)
        kept_rows: list[int] = []
        for row, member in enumerate(members):
            reason = verdict(batch_figures, row, limits)
            if reason is not None:
                results[member.at] = DroppedRecord(member.record.record_id, *reason)
                continue
            kept_rows.append(row)
        signal_NLT = np.rint(x_NLT[kept_rows] * 1000).astype("<i2")
        quality = _quality_columns(batch_figures)
        for row, signal_LT, signature_B in zip(kept_rows, signal_NLT, signatures(signal_NLT), strict=True):
            columns = _row(members[row], source, signal_LT, signature_B)
            columns |= {name: values[row] for name, values in quality.items()}
            results[members[row].at] = Kept(signal_LT, columns)
    assert all(result is not None for result in results)
    return [(result, leads) for result, leads in zip(results, used, strict=True) if result is not None]


@dataclass(frozen=True)
class _Member:
    """A record of a batch that can be used. at: its place in the batch."""

    at: int
    record: Record
    leads: Leads
    window: Window


def _zeros_below(x_NLT: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    return np.pad(x_NLT, ((0, 0), (0, rows), (0, 0))) if rows else x_NLT


def _row(member: _Member, source: str, signal_LT: NDArray[np.int16], signature_B: NDArray[np.uint8]) -> dict[str, Any]:
    """Return a record's row of the table without its quality figures."""
    record = member.record
    return {
        "source": source,
        "record_id": record.record_id,
        "patient_id": record.patient_id,
        "age": None if record.age is None else _or_none(record.age),
        "sex": record.sex,
        "rate": record.rate,
        "samples": member.leads.signal_LT.shape[1],
        "labels": list(record.labels),
        "fold": record.fold,
        "notes": [*record.notes, *member.window.notes],
        "content_hash": content_hash(signal_LT),
        "signature": signature_B.tobytes(),
        "quality_missing_share": member.leads.missing_share,
    }


def _quality_columns(batch: Figures) -> dict[str, list[float | None]]:
    """Return the figures of a batch as columns of the table, a value for each of its records."""
    return {
        f"quality_{field.name}": [_or_none(value) for value in getattr(batch, field.name).tolist()]
        for field in fields(Figures)
    }


def _or_none(value: float) -> float | None:
    """Return None for NaN, as a table holds null."""
    return None if math.isnan(value) else value

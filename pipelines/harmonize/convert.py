"""Convert one partition's records to a uniform array, a table of kept records and a table of dropped ones.

Every record is in one of the two tables. Shapes: N records, L leads as the source gives them, T samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import DERIVED, LEADS, LIMB, LeadRepeated, complete_limb_leads, select_leads
from ecg_model.quality import MOST_MILLIVOLT, missing_samples
from ecg_model.signal import RATE_MAX, RATE_MIN, SECONDS, prepare, window_reach, window_samples
from pipelines.formats.shard import ShardWriter, content_hash
from pipelines.formats.simhash import signatures
from pipelines.harmonize.quality import Figures, QualityLimits, figures, missing_share, verdict
from pipelines.records import DroppedRecord, DropReason, Record, RecordError, absent_note

BATCH = 32  # records; with 64 the arrays no longer fit the cache, which takes a sixth more processor time
_BATCH_BYTES = 64 << 20
SHORTEST = 5.0

OnConverted = Callable[[int], None]
_Batch = list[Record | DroppedRecord]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a harmonized shard. entered == kept + the sum of dropped."""

    entered: int
    kept: int
    dropped: dict[str, int]  # by reason
    rates: dict[str, int]  # kept records by their original sampling rate

    def facts(self) -> dict[str, Any]:
        """Return the counts as `pipelines.harmonize.shards.HarmonizedFacts` names them, with the hours of kept ECGs."""
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
    """Write the records of a reader into the directory `out`, laid out as in pipelines.formats.shard.

    progress: called with the number of records entered so far.

    Each record is reduced to eight leads, ten seconds and 250 Hz by `ecg_model.signal.prepare`, rounded to microvolt,
    and judged by `limits`; a record that is not kept goes to the table of dropped records with its reason. Rows keep
    the reader's order, and the same records give the same bytes. Raises ValueError if the reader yields no record.
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
            f"{source}: the partition holds no records: check that the mirror has its files, then download it again"
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
    """Yield what `harmonize` would write of each item, in order, without writing it."""
    for batch in _batches(_once(records)):
        yield from _harmonized(batch, source=source, limits=limits, incomplete=incomplete)


def encodable(record: Record) -> Record | DroppedRecord:
    """Return a record as a registered model takes it: LEADS alone, and nothing from a gap behind the window on.

    What harmonization drops by its default limits is dropped here, too, except for its length: a model encodes shorter
    recordings as they are.
    """
    (result,) = judge([record], source="", limits=QualityLimits(), incomplete=Incomplete(repeat_from=SHORTEST))
    if isinstance(result, DroppedRecord) and result.reason is not DropReason.TOO_SHORT:
        return result
    x_LT, leads, *_ = _leads_of(record, window_samples(record.rate))
    x_8T = x_LT[[leads.index(lead) for lead in LEADS]]
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
) -> list[Kept | DroppedRecord]:
    """Return one result per item, in order.

    Records with the same leads, rate and number of samples go through the filters together.
    """
    results: list[Kept | DroppedRecord | None] = [None] * len(batch)
    forms: dict[tuple[Any, ...], list[tuple[int, Record, _Window]]] = {}
    for at, item in enumerate(batch):
        if isinstance(item, DroppedRecord):
            results[at] = item
            continue
        try:
            window = _window(item, incomplete)
        except RecordError as error:
            results[at] = error.dropped(item.record_id)
            continue
        form = (window.leads, window.computed, item.rate, window.signal_LT.shape[-1])
        forms.setdefault(form, []).append((at, item, window))
    for (leads, computed, rate, _), members in forms.items():
        # Absent leads enter the filters as zeros, below the recorded ones, so that all eight come out.
        raw_NLT = np.stack([window.signal_LT for _, _, window in members])
        absent = _absent(leads)
        x_NLT = prepare(_zeros_below(raw_NLT, len(absent)), leads=(*leads, *absent), rate=rate)
        given_NLT = x_NLT[:, [lead not in absent for lead in LEADS]] if absent else x_NLT
        # The quality of what the source recorded: without the zeros of absent leads, without the filters' margin.
        recorded_NLT = raw_NLT[..., : window_samples(rate)]
        batch_figures = figures(recorded_NLT, given_NLT, leads=leads, computed=computed, rate=rate, limits=limits)
        kept_members: list[tuple[int, Record, _Window, int]] = []
        for row, (at, record, window) in enumerate(members):
            reason = verdict(batch_figures, row, limits)
            if reason is not None:
                results[at] = DroppedRecord(record.record_id, *reason)
                continue
            kept_members.append((at, record, window, row))
        signal_NLT = np.rint(x_NLT[[row for *_, row in kept_members]] * 1000).astype("<i2")
        for (at, record, window, row), signal_LT, signature_B in zip(
            kept_members, signal_NLT, signatures(signal_NLT), strict=True
        ):
            columns = _row(record, window.notes, source, signal_LT, signature_B, batch_figures, row)
            results[at] = Kept(signal_LT, columns)
    assert all(result is not None for result in results)
    return [result for result in results if result is not None]


@dataclass(frozen=True)
class _Window:
    """The part of a record that `prepare` needs: float32 (L, T), contiguous, with leads as LEADS_12 names them."""

    signal_LT: NDArray[np.float32]
    leads: tuple[str, ...]
    computed: tuple[str, ...]
    notes: tuple[str, ...]


def _window(record: Record, incomplete: Incomplete) -> _Window:
    """Return the part of a record that is used. Raises RecordError if the record cannot be used."""
    if not RATE_MIN <= record.rate <= RATE_MAX:
        raise RecordError(
            DropReason.UNREADABLE_HEADER, f"rate {record.rate} Hz: {RATE_MIN:g} to {RATE_MAX:g} can be resampled"
        )
    needed = window_samples(record.rate)
    x_LT, leads, computed, notes = _leads_of(record, needed)
    absent = _absent(leads)
    if absent and not (incomplete.mark_leads and len(absent) < len(LEADS)):
        raise RecordError(
            DropReason.LEAD_MISSING,
            f"leads {', '.join(absent)} are missing among {', '.join(record.leads)}: give I, II and V1 to V6; "
            "names that are others' can be mapped by `lead_names` in the drop's JSON",
        )
    if x_LT.shape[1] < min(needed, math.ceil(incomplete.repeat_from * record.rate - 1e-6)):
        raise RecordError(DropReason.TOO_SHORT, _too_short(x_LT.shape[1], record.rate, needed))
    if x_LT.shape[1] < needed:
        notes += (f"repeated to fill the window: {x_LT.shape[1] / record.rate:.2f} s were recorded",)
        x_LT = np.tile(x_LT, -(-needed // x_LT.shape[1]))[:, :needed]
    if (missing := missing_samples(x_LT[:, :needed], leads, record.rate)) is not None:
        raise RecordError(DropReason.MISSING_SAMPLES, missing)
    # The filters look a little beyond the window, if the samples there are all present.
    reach_LT = x_LT[:, : window_reach(record.rate)]
    if not np.isfinite(reach_LT[:, needed:]).all():
        reach_LT = x_LT[:, :needed]
    # Larger numbers would overflow in the filters, and what is no number passes every limit.
    highest = float(np.abs(reach_LT).max())
    if highest > MOST_MILLIVOLT:
        raise RecordError(
            DropReason.OUT_OF_RANGE, f"an amplitude of {highest:.3g} mV: check the file, the unit and the gain"
        )
    if absent:
        notes += (absent_note(absent),)
    return _Window(np.ascontiguousarray(reach_LT, np.float32), leads, computed, notes)


def _too_short(samples: int, rate: float, needed: int) -> str:
    text = f"{samples} samples at {rate:g} Hz: the window of {SECONDS} s needs {needed}"
    if samples < SHORTEST * rate:
        return text
    lasting = math.floor(samples / rate * 100) / 100
    return f"{text}; repeat_from (a setting of own ECGs) of {lasting:g} or less keeps it, repeated to fill the window"


def _leads_of(
    record: Record, needed: int
) -> tuple[NDArray[np.float32], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return a record's rows that are leads, their names, which of them were computed, and notes.

    Left out with a note are other channels, and leads with a gap among the first `needed` samples that nothing needs.
    """
    try:
        x_LT, leads, others = select_leads(record.signal_LT, record.leads)
    except LeadRepeated as error:
        raise RecordError(DropReason.LEAD_REPEATED, str(error)) from error
    except ValueError as error:
        raise RecordError(DropReason.UNREADABLE_SIGNAL, str(error)) from error
    notes = (
        (f"channels not used: {', '.join(name.strip() or 'one without a name' for name in others)}",) if others else ()
    )
    gaps = [lead for lead in DERIVED if lead in leads and not np.isfinite(x_LT[leads.index(lead), :needed]).all()]
    if gaps:
        notes += (f"leads with missing samples not used: {', '.join(gaps)}",)
        x_LT = x_LT[[lead not in gaps for lead in leads]]
        leads = tuple(lead for lead in leads if lead not in gaps)
    # Larger numbers would overflow in sums and filters, and what is no number passes every limit.
    reach_LT = x_LT[:, : window_reach(record.rate)]
    highest = float(np.max(np.abs(reach_LT), where=np.isfinite(reach_LT), initial=0.0))
    if highest > MOST_MILLIVOLT:
        raise RecordError(
            DropReason.OUT_OF_RANGE, f"an amplitude of {highest:.3g} mV: check the file, the unit and the gain"
        )
    x_LT, names, computed = complete_limb_leads(x_LT, leads)
    if computed:
        limb = ", ".join(lead for lead in leads if lead in LIMB)
        notes += (f"computed from {limb}: {', '.join(computed)}",)
    return x_LT, names, computed, notes


def _zeros_below(x_NLT: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    return np.pad(x_NLT, ((0, 0), (0, rows), (0, 0))) if rows else x_NLT


def _absent(leads: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the eight leads that are not among the leads given."""
    return tuple(lead for lead in LEADS if lead not in leads)


def _row(
    record: Record,
    notes: tuple[str, ...],
    source: str,
    signal_LT: NDArray[np.int16],
    signature_B: NDArray[np.uint8],
    batch_figures: Figures,
    row: int,
) -> dict[str, Any]:
    """Return a record's row of the table.

    notes: on how it was harmonized. batch_figures: quality figures of its batch. row: its place in the batch.
    """
    quality = {
        f"quality_{field.name}": _or_none(float(getattr(batch_figures, field.name)[row])) for field in fields(Figures)
    }
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
        "notes": [*record.notes, *notes],
        "content_hash": content_hash(signal_LT),
        "signature": signature_B.tobytes(),
        "quality_missing_share": missing_share(record.signal_LT),
        **quality,
    }


def _or_none(value: float) -> float | None:
    """Return None for NaN, as a table holds null."""
    return None if math.isnan(value) else value

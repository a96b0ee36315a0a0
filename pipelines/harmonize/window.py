"""The part of a record that harmonization uses: the leads, as far as they were recorded, and the first ten seconds.

Shapes: L leads, T samples. Amplitudes are in millivolt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ecg_foundry.layout import absent_note
from ecg_model.leads import DERIVED, LEADS, LIMB, LeadRepeated, complete_limb_leads, select_leads
from ecg_model.quality import MOST_MILLIVOLT, missing_samples
from ecg_model.recorded import ALL_HELD, ONE_HELD, Recorded, recorded
from ecg_model.signal import RATE_MAX, RATE_MIN, SECONDS, window_reach, window_samples
from pipelines.harmonize.quality import missing_share
from pipelines.records import DropReason, Record, RecordError

SHORTEST = 5.0


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

MARKED = Incomplete(mark_leads=True)
"""How own ECGs are taken, unless settings say otherwise."""


@dataclass(frozen=True, kw_only=True)
class Leads:
    """The leads of a record, from the first to the last instant at which any of them was recorded."""

    signal_LT: NDArray[np.float32]
    """NaN where a lead was not recorded, or the sample is missing."""
    names: tuple[str, ...]
    """As LEADS_12 has them."""
    rate: float
    computed: tuple[str, ...]
    """Those that were computed from other limb leads."""
    given: tuple[str, ...]
    """The record's own names of its channels."""
    trimmed: bool
    """Whether padding was left out around them."""
    missing: dict[str, float]
    """Share of a lead's samples that are missing; also of leads that were left out for it. Without complete leads."""
    missing_share: float
    """Of the samples of all recorded leads."""
    unrecorded: tuple[str, ...]
    """What was never recorded, in words."""
    notes: tuple[str, ...]
    """On other channels, and leads that were left out or computed."""


@dataclass(frozen=True)
class Window:
    """The part of a record that `prepare` needs: float32 (L, T), with leads as LEADS_12 names them."""

    signal_LT: NDArray[np.float32]
    notes: tuple[str, ...]


def leads_of(record: Record) -> Leads:
    """Return the leads of a record. Raises RecordError if they cannot be used.

    Left out with a note are other channels, padding, and leads with a gap in the window that nothing needs.
    """
    if not RATE_MIN <= record.rate <= RATE_MAX:
        raise RecordError(
            DropReason.UNREADABLE_HEADER, f"rate {record.rate} Hz: {RATE_MIN:g} to {RATE_MAX:g} can be resampled"
        )
    try:
        x_LT, names, others = select_leads(record.signal_LT, record.leads)
    except LeadRepeated as error:
        raise RecordError(DropReason.LEAD_REPEATED, str(error)) from error
    except ValueError as error:
        raise RecordError(DropReason.UNREADABLE_SIGNAL, str(error)) from error
    notes = (
        (f"channels not used: {', '.join(name.strip() or 'one without a name' for name in others)}",) if others else ()
    )
    found = recorded(x_LT, record.rate)
    x_LT, leads = found.signal_LT, names
    shares = {} if found.complete else {lead: missing_share(x_T) for lead, x_T in zip(names, x_LT, strict=True)}
    missing = {lead: share for lead, share in shares.items() if share}
    share = missing_share(x_LT) if missing else 0.0
    gaps = _with_gaps(x_LT, names, record.rate) if missing else ()
    if gaps:
        notes += (f"leads with missing samples not used: {', '.join(gaps)}",)
        x_LT = x_LT[[lead not in gaps for lead in names]]
        names = tuple(lead for lead in names if lead not in gaps)
    _check_amplitude(x_LT[:, : window_reach(record.rate)])
    x_LT, all_names, computed = complete_limb_leads(x_LT, names)
    if computed:
        limb = ", ".join(lead for lead in names if lead in LIMB)
        notes += (f"computed from {limb}: {', '.join(computed)}",)
    return Leads(
        signal_LT=x_LT,
        names=all_names,
        rate=record.rate,
        computed=computed,
        given=record.leads,
        trimmed=bool(found.before or found.after),
        missing=missing,
        missing_share=share,
        unrecorded=_unrecorded(found, record.rate, leads),
        notes=notes,
    )


def window_of(leads: Leads, incomplete: Incomplete) -> Window:
    """Return the part of a record that is used. Raises RecordError if it lacks leads, time or samples."""
    needed = window_samples(leads.rate)
    x_LT, notes = leads.signal_LT, (*leads.unrecorded, *leads.notes)
    absent = absent_from(leads.names)
    if absent and not (incomplete.mark_leads and len(absent) < len(LEADS)):
        raise RecordError(
            DropReason.LEAD_MISSING,
            f"leads {', '.join(absent)} are missing among {', '.join(leads.given)}: give I, II and V1 to V6; "
            "names that are others' can be mapped by `lead_names` in the drop's JSON",
        )
    if x_LT.shape[1] < min(needed, math.ceil(incomplete.repeat_from * leads.rate - 1e-6)):
        text = _too_short(x_LT.shape[1], leads.rate, needed)
        raise RecordError(DropReason.TOO_SHORT, "; ".join((text, *leads.unrecorded)))
    if x_LT.shape[1] < needed:
        notes += (f"repeated to fill the window: {x_LT.shape[1] / leads.rate:.2f} s were recorded",)
        x_LT = np.tile(x_LT, -(-needed // x_LT.shape[1]))[:, :needed]
    if leads.missing and (missing := missing_samples(x_LT[:, :needed], leads.names, leads.rate)) is not None:
        raise RecordError(DropReason.MISSING_SAMPLES, "; ".join((missing, *leads.unrecorded)))
    # The filters look a little beyond the window, if the samples there are all present.
    reach_LT = x_LT[:, : window_reach(leads.rate)]
    if leads.missing and not np.isfinite(reach_LT[:, needed:]).all():
        reach_LT = x_LT[:, :needed]
    if absent:
        notes += (absent_note(absent),)
    return Window(np.asarray(reach_LT, np.float32), notes)


def absent_from(leads: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the eight leads that are not among the leads given."""
    return tuple(lead for lead in LEADS if lead not in leads)


def _unrecorded(found: Recorded, rate: float, leads: tuple[str, ...]) -> tuple[str, ...]:
    """Say what was never recorded. The times are those of the recording without padding."""
    notes: tuple[str, ...] = ()
    if found.before or found.after:
        notes += (f"padding trimmed: {found.before} samples before, {found.after} after",)
    if found.held:
        names = ", ".join(leads[row] for row in found.held)
        notes += (
            f"not recorded in part: {names}; missing is what holds one value for {ONE_HELD:g} s, or for {ALL_HELD:g} s "
            "in all leads",
        )
    return notes + tuple(
        f"{leads[row]} holds one value for {samples / rate:.2f} s from {start / rate:.2f} s on"
        for row, start, samples in found.noted
    )


def _with_gaps(x_LT: NDArray[np.float32], leads: tuple[str, ...], rate: float) -> tuple[str, ...]:
    """Return the leads with a gap in the window that nothing needs."""
    there_L = np.all(np.isfinite(x_LT[:, : window_samples(rate)]), axis=1)
    return tuple(lead for lead, there in zip(leads, there_L, strict=True) if lead in DERIVED and not there)


def _check_amplitude(x_LT: NDArray[np.float32]) -> None:
    """Raise RecordError for larger numbers than filters and sums can take; what is no number passes every limit."""
    highest = max(float(np.fmax.reduce(x_LT, None, initial=0.0)), -float(np.fmin.reduce(x_LT, None, initial=0.0)))
    if highest > MOST_MILLIVOLT:
        raise RecordError(
            DropReason.OUT_OF_RANGE, f"an amplitude of {highest:.3g} mV: check the file, the unit and the gain"
        )


def _too_short(samples: int, rate: float, needed: int) -> str:
    text = f"{samples} samples at {rate:g} Hz: the window of {SECONDS} s needs {needed}"
    if samples < SHORTEST * rate:
        return text
    lasting = math.floor(samples / rate * 100) / 100
    return f"{text}; repeat_from (a setting of own ECGs) of {lasting:g} or less keeps it, repeated to fill the window"

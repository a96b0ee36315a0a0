"""What holds for the leads of every vendor's file, whoever decoded them. Pure functions; shapes: L leads, T samples."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import LEADS, LEADS_12
from pipelines.formats.limits import LEADS as MOST_LEADS
from pipelines.formats.reading import MOST_SECONDS
from pipelines.records import DropReason, RecordError

# No body gives as much: such numbers have no unit that can be believed, and they overflow float32.
_ABSURD_MILLIVOLT = 1e6
_RATES = (1.0, 100_000.0)  # Hz; what is accepted of them is for those who use a reading
_LEAD = re.compile(r"(?:(?:ecg|ekg|lead)[\s_:-]*)*(iii|ii|i|avr|avl|avf|v[1-6])", re.IGNORECASE)
_USUAL = {name.lower(): name for name in LEADS_12}


@dataclass(frozen=True, kw_only=True, eq=False)
class Channel:
    """One channel of a file, decoded."""

    label: str
    """As the file writes it, or the usual name if the file has a code."""
    x_T: NDArray[np.floating]
    """In millivolt if `millivolt`; NaN for a missing sample."""
    rate: float
    """Samples per second, as the file states it."""
    millivolt: bool
    """Whether its numbers have a unit of voltage. Otherwise they are counts, or another quantity."""
    step: float
    """Millivolt from one count to the next; 0 if not known."""
    no_value: float | None = None
    """What stands in `x_T` for the count that means "no value" in 16 bits. None if there is none."""


def usual_name(label: str) -> str:
    """Return one of the twelve leads' usual names for `lead ii`, `EKG I` or `AVR`; any other label as it is."""
    found = _LEAD.fullmatch(label.strip())
    return _USUAL[found[1].lower()] if found else label.strip()


@dataclass(frozen=True, kw_only=True)
class Leads:
    """The leads of a file that belong together."""

    signal_LT: NDArray[np.float32]
    names: tuple[str, ...]
    rate: float
    units: str
    notes: tuple[str, ...]
    not_read: tuple[str, ...]
    """Channels that were left out, and why."""


def together(channels: Sequence[Channel], name: str, *, seconds: float = MOST_SECONDS) -> Leads:
    """Return the channels that are leads in millivolt of one rate and length, at most their first `seconds`.

    The eight leads I, II, V1 to V6 decide: if those that are there differ in rate or length, or have no unit, the
    record is refused. Any other channel is left out instead. Raises RecordError that begins with the file's `name`.
    """
    channels = [replace(channel, label=usual_name(channel.label)) for channel in channels]
    channels, notes = _without_repeats(channels, name)
    needed = [channel for channel in channels if channel.label in LEADS]
    if not needed:
        labels = ", ".join(_short(channel.label) for channel in channels[:12]) or "none"
        raise RecordError(DropReason.LEAD_MISSING, f"{name}: no lead of {', '.join(LEADS)}; its channels: {labels}")
    for channel in needed:
        if not channel.millivolt:
            raise RecordError(
                DropReason.UNKNOWN_UNIT,
                f"{name}: lead {channel.label} has no unit of voltage, or no scale: export it with its amplitude units",
            )
    shapes = Counter((channel.rate, len(channel.x_T)) for channel in needed)
    if len(shapes) > 1:
        found = ", ".join(f"{channel.label} {len(channel.x_T)} at {channel.rate:g} Hz" for channel in needed)
        raise RecordError(
            DropReason.UNREADABLE_SIGNAL, f"{name}: its leads differ in length or rate ({found}): export it again"
        )
    (rate, samples), _ = shapes.most_common(1)[0]
    if not _RATES[0] <= rate <= _RATES[1] or samples == 0:
        raise RecordError(DropReason.UNREADABLE_SIGNAL, f"{name}: {samples} samples at {rate:g} Hz: export it again")
    kept = [
        channel for channel in channels if channel.millivolt and (channel.rate, len(channel.x_T)) == (rate, samples)
    ]
    if len(kept) > MOST_LEADS:
        kept = [channel for channel in kept if channel.label in LEADS_12]
    not_read = tuple(_why_left(channel, rate, samples) for channel in channels if channel not in kept)
    lost = [channel.label for channel in channels if channel not in kept and channel.label in LEADS_12]
    if lost:
        notes = (*notes, f"leads left out, of another unit, rate or length: {', '.join(lost)}")
    most = math.ceil(seconds * rate)
    if samples > most:
        notes = (*notes, f"the first {seconds:g} s of {samples / rate:g} s are read")
    return Leads(
        signal_LT=_millivolt(kept, most, name),
        names=tuple(channel.label for channel in kept),
        rate=rate,
        units=_units(kept),
        notes=notes,
        not_read=not_read,
    )


def _without_repeats(channels: Sequence[Channel], name: str) -> tuple[list[Channel], tuple[str, ...]]:
    """Leave out a lead that is there twice with the same samples, with a note; refuse one with other samples."""
    first: dict[str, Channel] = {}
    repeated = []
    for channel in channels:
        earlier = first.setdefault(channel.label, channel)
        if earlier is channel:
            continue
        if channel.label in LEADS_12:
            if not (channel.rate == earlier.rate and np.array_equal(channel.x_T, earlier.x_T, equal_nan=True)):
                raise RecordError(
                    DropReason.LEAD_REPEATED, f"{name}: lead {channel.label} is there twice, with other samples"
                )
            repeated.append(channel.label)
    notes = (f"leads that are there twice, alike: {', '.join(repeated)}",) if repeated else ()
    return list(first.values()), notes


def _why_left(channel: Channel, rate: float, samples: int) -> str:
    if not channel.millivolt:
        return f"{_short(channel.label)} (no unit of voltage)"
    if channel.rate != rate:
        return f"{_short(channel.label)} ({channel.rate:g} Hz)"
    return f"{_short(channel.label)} ({len(channel.x_T)} samples, not {samples})"


def _millivolt(channels: Sequence[Channel], most: int, name: str) -> NDArray[np.float32]:
    """Return the first samples as float32 (L, T). Raises RecordError for amplitudes that no unit explains."""
    x_LT = np.empty((len(channels), min(most, len(channels[0].x_T))), np.float32)
    for row_T, channel in zip(x_LT, channels, strict=True):
        x_T = channel.x_T[:most]
        low, high = np.fmin.reduce(x_T), np.fmax.reduce(x_T)
        if max(-low, high) > _ABSURD_MILLIVOLT:
            raise RecordError(
                DropReason.IMPLAUSIBLE_GAIN, f"{name}: above {_ABSURD_MILLIVOLT:g} mV by its own scale: export it again"
            )
        row_T[:] = x_T
        # The count is the least there is, so only the extremes need a look.
        if (
            channel.no_value is not None
            and min(abs(low - channel.no_value), abs(high - channel.no_value)) < channel.step
        ):
            row_T[np.abs(x_T - channel.no_value) < channel.step / 4] = np.nan
    return x_LT


def _units(channels: Sequence[Channel]) -> str:
    steps = sorted({float(f"{1000 * channel.step:.6g}") for channel in channels if channel.step})
    if not steps:
        return "scaled by the file"
    return f"{steps[0]:g} uV a count" if len(steps) == 1 else f"{steps[0]:g} to {steps[-1]:g} uV a count"


def _short(label: str) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in label)
    return repr(text if len(text) <= 24 else text[:21] + "...")

"""Raw ECGs of any lead order, rate and length -> embeddings, through the preprocessing that training used.

shorter than 10 s   only the whole tokens that were recorded are encoded, such as patches of 200 ms: the encoder reads a
                    part of the time columns, as the student does in pretraining. Nothing is repeated or padded.
10 s to below 20 s  the first 10 s, as in training
20 s and longer     the mean of the embeddings of the consecutive whole 10 s windows, up to the first gap behind the
                    first of them

An encoder that was trained on shorter windows, such as 2.5 s, takes the mean over those of the same ECG. Padding is no
part of a recording (`ecg_model.recorded`), and what is encoded is judged first, by harmonization's rules
(`ecg_model.serving.judge`).
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.reasons import DropReason
from ecg_model.recorded import recorded
from ecg_model.serving.judge import SECONDS_MIN, beyond_range, why_not
from ecg_model.serving.reader import Reader
from ecg_model.signal import (
    RATE_MAX,
    RATE_MIN,
    SAMPLES,
    SECONDS,
    independent_leads,
    prepare,
    resample,
    window_reach,
    window_samples,
)

STANDARD = "standard"
_BATCH = 64  # ECGs that are encoded at a time
_LEADS_LONGEST = 1000  # letters of the parameter `leads`


def embed(encoder: ECGEncoder, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD) -> NDArray[np.float32]:
    """Embed as `judged_embeddings` does, without its reasons."""
    return judged_embeddings(encoder, ecgs, sampling_rate=sampling_rate, leads=leads)[0]


def judged_embeddings(
    encoder: ECGEncoder, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD
) -> tuple[NDArray[np.float32], list[str | None]]:
    """Embed as `judged_features` does, with the mean over the tokens: float32 (B, dim)."""
    return judged_features(Reader(encoder=encoder), ecgs, sampling_rate=sampling_rate, leads=leads)


def judged_features(
    reader: Reader, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD
) -> tuple[NDArray[np.float32], list[str | None]]:
    """Read ecgs (B, L, T) millivolt -> float32 (B, F), and say of each why it is not read, or None.

    sampling_rate: samples a second.
    leads: `standard` (the twelve of LEADS_12 or the eight of LEADS, depending on L), `12`, `8`, or the rows' names
        joined by commas, in any order, at least the eight.

    A record that harmonization would drop for its quality is NaN, and does not change the others. Raises ValueError if
    shape, type, rate, leads or length are wrong, with the remedy.
    """
    rate, parts, reasons = _judged(ecgs, sampling_rate, leads)
    total_BF = np.zeros((len(parts), reader.width), np.float32)
    fit = [(record, x_LT) for record, why in enumerate(reasons) if why is None for x_LT in parts[record]]
    for records, batch_BLT in _alike(fit):
        prepared_BLT = _prepared(reader.encoder, batch_BLT, rate)
        if not reader.encoder.readable(prepared_BLT.shape[-1]):
            seconds = batch_BLT.shape[-1] / rate
            for record in records:
                reasons[record] = f"{DropReason.TOO_SHORT}: {seconds:.2f} s are less than this encoder's token has"
            continue
        for record, x_LT in zip(records, prepared_BLT, strict=True):
            reasons[record] = reasons[record] or beyond_range(x_LT)
        np.add.at(total_BF, records, reader.features(prepared_BLT))
    feature_BF = total_BF / np.array([[len(of_record)] for of_record in parts], np.float32)
    feature_BF[[why is not None for why in reasons]] = np.nan
    return feature_BF, reasons


def prepared(ecgs: Any, *, sampling_rate: float, leads: str = STANDARD) -> tuple[NDArray[np.float32], list[str | None]]:
    """Return the first ten seconds of ecgs as an encoder takes them, float32 (B, 8, 2500), and reasons.

    The reasons, and what is refused, are those of `judged_features`. A record that has one is NaN, as is one with less
    than ten seconds that were recorded.
    """
    rate, parts, reasons = _judged(ecgs, sampling_rate, leads)
    x_BLT = np.full((len(parts), len(LEADS), SAMPLES), np.nan, np.float32)
    for record, of_record in enumerate(parts):
        if reasons[record] is None and of_record[0].shape[-1] < window_samples(rate):
            seconds = of_record[0].shape[-1] / rate
            reasons[record] = f"{DropReason.TOO_SHORT}: {seconds:.2f} s were recorded; give at least {SECONDS} s"
        if reasons[record] is None:
            prepared_LT = prepare(of_record[0], leads=LEADS, rate=rate)
            reasons[record] = beyond_range(prepared_LT)
            x_BLT[record] = np.nan if reasons[record] else prepared_LT
    return x_BLT, reasons


def _judged(
    ecgs: Any, sampling_rate: Any, leads: Any
) -> tuple[float, list[list[NDArray[np.float32]]], list[str | None]]:
    """Return the rate, the windows (L, T) of each record that would be read, and why it is not read, or None.

    Raises ValueError as `judged_features` does.
    """
    names = lead_names(leads)
    rate = checked_rate(sampling_rate)
    x_BLT = checked(ecgs)
    x_BLT = independent_leads(x_BLT, names or _by_count(x_BLT.shape[1]))
    if x_BLT.shape[-1] < SECONDS_MIN * rate:
        raise ValueError(f"ecgs of {x_BLT.shape[-1] / rate:.2f} s: give at least {SECONDS_MIN:g} s, better {SECONDS}")
    found = [recorded(x_LT, rate) for x_LT in x_BLT]
    parts = [_parts(one.signal_LT, rate) for one in found]
    return rate, parts, [why_not(one, of_record, rate) for one, of_record in zip(found, parts, strict=True)]


def _parts(x_LT: NDArray[np.float32], rate: float) -> list[NDArray[np.float32]]:
    """Return the windows of a recording (L, T) that are encoded, with the filter's margin; all of it below ten seconds.

    A gap behind the first window ends the recording.
    """
    needed = window_samples(rate)
    if x_LT.shape[-1] < needed:
        return [x_LT]
    gaps = np.flatnonzero(~np.isfinite(x_LT[:, needed:]).all(axis=0))
    end = needed + int(gaps[0]) if len(gaps) else x_LT.shape[-1]
    starts = (round(k * SECONDS * rate) for k in range(int(end / (SECONDS * rate)) + 1))
    return [x_LT[:, start : min(start + window_reach(rate), end)] for start in starts if start + needed <= end]


def _alike(
    parts: list[tuple[int, NDArray[np.float32]]],
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Yield batches (B, L, T) of the parts that have one length, which bound memory, with the records they are of."""
    by_length: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for record, x_LT in parts:
        by_length.setdefault(x_LT.shape[-1], []).append((record, x_LT))
    for members in by_length.values():
        for first in range(0, len(members), _BATCH):
            batch = members[first : first + _BATCH]
            yield [record for record, _ in batch], np.stack([x_LT for _, x_LT in batch])


def _prepared(encoder: ECGEncoder, x_BLT: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Return the encoder's input: ten seconds, or what it reads of a shorter recording, (B, L, T) -> (B, 8, T)."""
    if x_BLT.shape[-1] >= window_samples(rate):
        return prepare(x_BLT, leads=LEADS, rate=rate)
    x_BLT = resample(x_BLT, rate)
    return x_BLT[..., : encoder.readable(x_BLT.shape[-1])]


def lead_names(leads: Any) -> tuple[str, ...] | None:
    """Return the rows' names, or None if they depend on the number of rows. Raises ValueError if it is no such text."""
    if not isinstance(leads, str) or len(leads) > _LEADS_LONGEST:
        raise ValueError(
            f"leads {reprlib.repr(leads)}: give {STANDARD}, 12, 8, or the rows' names joined by commas, in at most "
            f"{_LEADS_LONGEST} letters"
        )
    text = leads.strip()
    known = {STANDARD: None, "12": LEADS_12, "8": LEADS}
    if text in known:
        return known[text]
    names = tuple(name.strip() for name in text.split(","))
    if len(names) == 1:
        raise ValueError(f"leads {reprlib.repr(leads)}: give {STANDARD}, 12, 8, or the rows' names joined by commas")
    return names


def checked_rate(sampling_rate: Any) -> float:
    """Return the rate in samples a second. Raises ValueError if it is no number, or not one that is accepted."""
    number = isinstance(sampling_rate, int | float | np.integer | np.floating) and not isinstance(sampling_rate, bool)
    if not number or not RATE_MIN <= sampling_rate <= RATE_MAX:
        raise ValueError(
            f"sampling_rate {reprlib.repr(sampling_rate)}: give the samples a second of the ECGs, {RATE_MIN:g} to "
            f'{RATE_MAX:g}, as in params={{"sampling_rate": 500.0}}'
        )
    return float(sampling_rate)


def checked(ecgs: Any) -> NDArray[np.float32]:
    """Return the batch as float32 (B, L, T), with NaN where a sample is missing, masked or infinite.

    Raises ValueError if it is no batch of numbers.
    """
    try:
        array = np.asarray(_unmasked(ecgs))
    except ValueError as ragged:
        raise ValueError(
            f"records of unequal leads or lengths ({ragged}): cut or group them, so that a call's are alike"
        ) from ragged
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"ecgs of shape {array.shape}: give (records, leads, samples), records of one call of one length; "
            "a single record x is x[None]"
        )
    if array.dtype.kind not in "fiuO":
        raise ValueError(f"ecgs of type {array.dtype}: give numbers, in millivolt")
    try:
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
            x_BLT = array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"ecgs hold a value that is not a number ({str(error)[:80]}): give numbers, in millivolt"
        ) from error
    x_BLT[np.isinf(x_BLT)] = np.nan
    return x_BLT


def _unmasked(ecgs: Any) -> Any:
    """Return ECGs with NaN for the masked samples of masked arrays: a batch, or a list of records or of their rows."""
    if isinstance(ecgs, np.ma.MaskedArray):
        return np.ma.filled(ecgs.astype(np.float64), np.nan)
    if isinstance(ecgs, list | tuple) and len(ecgs) > 0 and isinstance(ecgs[0], list | tuple | np.ndarray):
        return [_unmasked(part) for part in ecgs]
    return ecgs


def _by_count(rows: int) -> tuple[str, ...]:
    """Return the names of 12 or 8 rows. Raises ValueError for another number."""
    for names in (LEADS_12, LEADS):
        if rows == len(names):
            return names
    raise ValueError(
        f"{rows} rows: give 12 leads ({', '.join(LEADS_12)}), 8 ({', '.join(LEADS)}), "
        "or the rows' names as the parameter leads, joined by commas"
    )

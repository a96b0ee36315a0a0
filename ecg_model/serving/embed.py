"""Raw ECGs of any lead order, rate and length -> embeddings, through the preprocessing that training used.

shorter than 10 s   only the whole patches (200 ms) that were recorded are encoded: the encoder reads a part of the
                    time columns, as the student does in pretraining. Nothing is repeated or padded.
10 s to below 20 s  the first 10 s, as in training
20 s and longer     the mean of the embeddings of the consecutive whole 10 s windows
"""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecg_model.encoder import Encoder
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import RATE_MAX, RATE_MIN, SECONDS, independent_leads, prepare, resample, window_samples

STANDARD = "standard"
# In pretraining the student sees at least about a fifth of the columns.
SECONDS_MIN = 2.0
# The largest value of int16 microvolt, in which training ECGs are stored; and a hundredth of a QRS, below which only an
# ECG in volt stays.
MILLIVOLT_MAX = 32.767
MILLIVOLT_MIN = 0.01
_BATCH = 64  # ECGs that are encoded at a time
_LEADS_LONGEST = 1000  # letters of the parameter `leads`


def embed(encoder: Encoder, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD) -> NDArray[np.float32]:
    """Embed ecgs (B, L, T) millivolt -> float32 (B, dim).

    sampling_rate: samples a second.
    leads: `standard` (the twelve of LEADS_12 or the eight of LEADS, depending on L), `12`, `8`, or the rows' names
        joined by commas, in any order, at least the eight.

    Raises ValueError if shape, type, values, rate, leads or length are wrong, with the remedy.
    """
    names = lead_names(leads)
    sampling_rate = checked_rate(sampling_rate)
    x_BLT = checked(ecgs)
    if names is None:
        names = _by_count(x_BLT.shape[1])
    x_BLT = independent_leads(x_BLT, names)
    windows = _window_starts(x_BLT.shape[-1], sampling_rate)
    if not windows:
        return _embed_short(encoder, x_BLT, sampling_rate)
    total_BD = np.zeros((len(x_BLT), encoder.config.dim), np.float32)
    for start in windows:
        total_BD += _encode(encoder, prepare(x_BLT[..., start:], leads=LEADS, rate=sampling_rate))
    return total_BD / np.float32(len(windows))


def _window_starts(samples: int, rate: float) -> list[int]:
    """Return the first samples of the consecutive whole windows."""
    starts = (round(k * SECONDS * rate) for k in range(int(samples / (SECONDS * rate)) + 1))
    return [start for start in starts if start + window_samples(rate) <= samples]


def lead_names(leads: Any) -> tuple[str, ...] | None:
    """Return the rows' names, or None if they depend on the number of rows. Raises ValueError if it is no such text."""
    if not isinstance(leads, str) or len(leads) > _LEADS_LONGEST:
        raise ValueError(
            f"leads {reprlib.repr(leads)}: give {STANDARD}, 12, 8, or the rows' names joined by commas, in at most "
            f"{_LEADS_LONGEST} letters"
        )
    known = {STANDARD: None, "12": LEADS_12, "8": LEADS}
    text = leads.strip()
    return known[text] if text in known else tuple(name.strip() for name in text.split(","))


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
    """Return the batch as float32 (B, L, T). Raises ValueError if it is no batch of ECGs in millivolt."""
    array = np.asarray(ecgs)
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            f"ecgs of shape {array.shape}: give (records, leads, samples), records of one call of one length; "
            "a single record x is x[None]"
        )
    if array.dtype.kind not in "fiuO":
        raise ValueError(f"ecgs of type {array.dtype}: give numbers, in millivolt")
    try:
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are refused as such
            x_BLT = array.astype(np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"ecgs hold a value that is not a number ({str(error)[:80]}): give numbers, in millivolt"
        ) from error
    bad = ~np.isfinite(x_BLT)
    if bad.any():
        record, row, _ = np.argwhere(bad)[0]
        raise ValueError(
            f"record {record}, row {row}: {bad[record, row].sum()} samples are missing or not finite; "
            "fill the gaps or leave the record out"
        )
    peak_B = np.abs(x_BLT).max(axis=(1, 2))
    for record, peak in enumerate(peak_B.tolist()):
        if peak > MILLIVOLT_MAX:
            raise ValueError(
                f"record {record} reaches {peak:g}, which no ECG in millivolt does: "
                "divide microvolt by 1000, and samples of a converter by its gain"
            )
        if 0 < peak < MILLIVOLT_MIN:
            raise ValueError(f"record {record} stays below {peak:g} millivolt: if these are volt, multiply by 1000")
    return x_BLT


def _by_count(rows: int) -> tuple[str, ...]:
    """Return the names of 12 or 8 rows. Raises ValueError for another number."""
    for names in (LEADS_12, LEADS):
        if rows == len(names):
            return names
    raise ValueError(
        f"{rows} rows: give 12 leads ({', '.join(LEADS_12)}), 8 ({', '.join(LEADS)}), "
        "or the rows' names as the parameter leads, joined by commas"
    )


def _embed_short(encoder: Encoder, x_BLT: NDArray[np.float32], rate: float) -> NDArray[np.float32]:
    """Embed the whole patches of recordings below ten seconds, (B, L, T) -> (B, dim)."""
    seconds = x_BLT.shape[-1] / rate
    if seconds < SECONDS_MIN:
        raise ValueError(f"ecgs of {seconds:.2f} s: give at least {SECONDS_MIN:g} s, better {SECONDS}")
    x_BLT = resample(x_BLT, rate)
    columns = min(x_BLT.shape[-1] // encoder.config.patch_size, encoder.config.patches)
    return _encode(encoder, x_BLT[..., : columns * encoder.config.patch_size])


def _encode(encoder: Encoder, x_BLT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embed prepared ECGs in batches that bound memory, on the encoder's device, (B, L, T) -> (B, dim)."""
    device = encoder.patch.weight.device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(x_BLT), _BATCH):
            batch_BLT = torch.from_numpy(x_BLT[start : start + _BATCH]).to(device)
            parts.append(encoder.embed(batch_BLT).float().cpu().numpy())
    return np.concatenate(parts)

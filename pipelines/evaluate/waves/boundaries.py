"""Scores of predicted wave boundaries: which match annotated ones, how many were missed, and their errors. Pure.

A boundary is found if one of the same kind was predicted within 150 ms, one for one (the window of ANSI/AAMI EC57,
as LUDB's authors use it: Kalyakulina et al., IEEE Access 8, 2020, 186181-186190). Errors are predicted minus annotated.
Shapes: N records, L leads, T samples, W waves, M annotated and K predicted boundaries of a lead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipelines.evaluate.waves.annotations import MILLISECONDS, UNKNOWN, WAVES, Wave, Waves
from pipelines.formats.shard import LEADS

TOLERANCE_MS = 150.0
Side = Literal["onset", "offset"]

CSE_MS: dict[tuple[Wave, Side], float] = {
    (Wave.P, "onset"): 10.2,
    (Wave.P, "offset"): 12.7,
    (Wave.QRS, "onset"): 6.5,
    (Wave.QRS, "offset"): 11.6,
    (Wave.T, "offset"): 30.6,
}
"""2 s_CSE in milliseconds: two standard deviations of the differences between experts. By the loose criterion the
standard deviation of the error is below it; by the strict one, below s_CSE, which is half of it (CSE Working Party, Eur
Heart J 6, 1985, 815-825, as tabulated by Martinez et al., IEEE Trans Biomed Eng 51, 2004, 570-581). No value was given
for the onset of T."""


@dataclass(frozen=True, kw_only=True)
class BoundaryScore:
    """Scores of one kind of boundary, over all leads of all records."""

    wave: str
    side: Side
    annotated: int
    """Found and missed ones together."""
    found: int
    false: int
    """Predicted ones in the known part of a lead with no annotated one within tolerance."""
    sensitivity: float | None
    """Share of the annotated that were found; None if nothing was annotated."""
    ppv: float | None
    """Positive predictive value: found of found and false; None if there is neither."""
    mean_ms: float | None
    """Mean error of those found; None if none was found."""
    sd_ms: float | None
    """Standard deviation of these errors; None if fewer than two were found."""
    cse_ms: float | None
    """See CSE_MS."""


def match(
    true_M: NDArray[np.floating[Any]], predicted_K: NDArray[np.floating[Any]], tolerance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places in `true_M` and in `predicted_K` of matched pairs, which are at most `tolerance` apart.

    They are as many pairs as possible and, of all such matchings, the one with the least total distance.
    """
    if not len(true_M) or not len(predicted_K):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    apart_MK = np.abs(true_M[:, None].astype(np.float64) - predicted_K[None, :])
    # One pair more outweighs any distances within tolerance.
    forbidden = (tolerance + 1) * (min(apart_MK.shape) + 1)
    first, second = linear_sum_assignment(np.where(apart_MK <= tolerance, apart_MK, forbidden))
    close = apart_MK[first, second] <= tolerance
    return first[close], second[close]


def boundary_scores(true: Waves, predicted: Waves, map_NLT: NDArray[np.int8]) -> tuple[BoundaryScore, ...]:
    """Score the onsets and offsets of P, QRS and T.

    map_NLT: the annotated class map (`annotations.class_map`); an unmatched prediction does not count as false if the
    map is UNKNOWN there.
    """
    return tuple(_score(wave, side, true, predicted, map_NLT) for wave in WAVES for side in ("onset", "offset"))


def _score(wave: Wave, side: Side, true: Waves, predicted: Waves, map_NLT: NDArray[np.int8]) -> BoundaryScore:
    tolerance = TOLERANCE_MS / MILLISECONDS
    annotated = found = false = 0
    errors: list[NDArray[np.float64]] = []
    for place, true_M, predicted_K in _boundaries_by_lead(wave, side, true, predicted):
        first, second = match(true_M, predicted_K, tolerance)
        unmatched_K = np.delete(predicted_K, second).astype(np.int64)
        annotated += len(true_M)
        found += len(first)
        false += int((map_NLT[place][unmatched_K] != UNKNOWN).sum())
        errors.append(MILLISECONDS * (predicted_K[second] - true_M[first].astype(np.float64)))
    error = np.concatenate(errors) if errors else np.zeros(0)
    return BoundaryScore(
        wave=wave.name,
        side=side,
        annotated=annotated,
        found=found,
        false=false,
        sensitivity=found / annotated if annotated else None,
        ppv=found / (found + false) if found + false else None,
        mean_ms=float(error.mean()) if len(error) else None,
        sd_ms=float(error.std(ddof=1)) if len(error) > 1 else None,
        cse_ms=CSE_MS.get((wave, side)),
    )


def _boundaries_by_lead(
    wave: Wave, side: Side, true: Waves, predicted: Waves
) -> Iterator[tuple[tuple[int, int], NDArray[np.float32], NDArray[np.float32]]]:
    """Yield (record, lead) and its annotated and predicted boundaries, for every lead that has either."""
    parts: list[dict[int, NDArray[np.float32]]] = []
    for waves in (true, predicted):
        time_W = waves.onset_W if side == "onset" else waves.offset_W
        chosen = np.flatnonzero((waves.wave_W == wave) & ~np.isnan(time_W))
        place = (waves.record_W * len(LEADS) + waves.lead_W)[chosen]
        order = np.argsort(place, kind="stable")
        names, first = np.unique(place[order], return_index=True)
        parts.append(dict(zip(names.tolist(), np.split(time_W[chosen][order], first[1:]), strict=len(names) > 0)))
    none = np.zeros(0, np.float32)
    for place in sorted(parts[0] | parts[1]):
        yield divmod(place, len(LEADS)), parts[0].get(place, none), parts[1].get(place, none)

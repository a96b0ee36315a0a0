"""SimHash signatures that are close for copies of a recording whose bytes differ, and chains of close signatures.

A copy may have been resampled, rounded, scaled, or shifted in baseline; what remains is when, and in which leads, the
signal rises above its surroundings. The signature is the side of 1,024 random hyperplanes on which that lies (Charikar,
STOC 2002): two signatures differ in a share of bits that is the angle between the two signals divided by pi. Different
ECGs share half of the bits, also those of one patient, since their beats fall at other times. Regular rhythms that are
in step at the first beat share more: `pipelines.corpus.same_recording` tells them from copies.

Not detected: a window with another start (of 500 ECGs of PTB-XL all are detected at a shift of 2 ms, 97 % at 4 ms, none
at 12 ms), exchanged leads, a missing last second, added noise of 30 uV rms (half of them).
Shapes: N records, L leads, T samples or blocks, P points, B bytes, W 64-bit words.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = 1024
BYTES = BITS // 8
# Copies in PTB-XL at 100 and 500 Hz differ in at most 47 bits, its 19,601 different ECGs in at least 156. The closest
# different ones are regular rhythms of equal rate and phase; extrapolated, about 5 of 180,000 are below the limit.
SAME_BITS = 90

_LEADS, _SAMPLES = 8, 2500
_BLOCK, _AROUND, _LEVELS = 10, 9, 127
_POINTS = _SAMPLES // _BLOCK - _AROUND + 1

# Records that agree in all 16 bits of one of 32 bands are compared: one in 10^8 pairs that differ in 5 % of the bits is
# missed, one in 4,000 at the limit.
_BANDS = 32
# Most pairs of a band are different ECGs. An eighth of the bits rules them out, at six standard deviations from
# SAME_BITS.
_FIRST_WORDS, _FIRST_BITS = 2, 31
_PAIRS = 1 << 18


def signatures(x_NLT: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return signatures, uint8 (N, 128), 1,024 bits each, of int16 (N, 8, 2500), microvolt at 250 Hz.

    The feature is the mean of 40 ms minus the mean of 360 ms around it, in each lead divided by its median size and
    clipped at 1: so gain, offset and wander of a lead have no effect, nor the height of a QRS or an artefact. A
    constant lead gives zeros. All sums are of integers that float32 represents exactly: the same on every machine.
    """
    # Sums from each lead's start: their differences are the sums of blocks, in a fifth of the time that adding takes.
    sums_NLT = np.zeros((len(x_NLT), _LEADS, _SAMPLES // _BLOCK + 1), np.int32)
    sums_NLT[..., 1:] = np.cumsum(x_NLT, axis=-1, dtype=np.int32)[..., _BLOCK - 1 :: _BLOCK]
    level_NLT = np.diff(sums_NLT)
    around_NLT = sums_NLT[..., _AROUND:] - sums_NLT[..., :-_AROUND]
    contrast_NLT = _AROUND * level_NLT[..., _AROUND // 2 : -(_AROUND // 2)] - around_NLT
    sorted_NLT = np.sort(np.abs(contrast_NLT), axis=-1)  # of integers, an eighth of the time of np.median
    size_NL1 = sorted_NLT[..., (_POINTS - 1) // 2 : _POINTS // 2 + 1].mean(axis=-1, keepdims=True)
    clipped_NLT = np.clip(contrast_NLT / np.maximum(size_NL1, 0.5), -1, 1)
    whole_NP = np.rint(clipped_NLT * _LEVELS).astype(np.float32).reshape(len(x_NLT), _LEADS * _POINTS)
    return np.packbits(whole_NP @ _hyperplanes() > 0, axis=1)


def distance(a_NB: NDArray[np.uint8], b_NB: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return in how many of the 1,024 bits two arrays of signatures (N, 128) differ, int64 (N,), row by row."""
    return np.bitwise_count((a_NB ^ b_NB).view(np.uint64)).sum(axis=-1, dtype=np.int64)


def first_of_chain(signatures_NB: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the first record of each record's chain, int64 (N,), of signatures (N, 128); a record alone is its own.

    Two records are in one chain if pairs that differ in at most SAME_BITS connect them: all copies of a record are in
    its chain, but not all of its chain are copies of it. Only pairs that agree in a band are compared, and that are not
    in one chain yet. Time grows with the number of pairs that agree in a band (one in 1,000 of all pairs: 17 million
    for 180,000 records).
    """
    _, first, inverse = np.unique(
        np.ascontiguousarray(signatures_NB).view(f"V{BYTES}").ravel(), return_index=True, return_inverse=True
    )
    # Distinct signatures in order of first appearance, so that a smaller number is an earlier record.
    order = np.argsort(first)
    distinct_NW = np.ascontiguousarray(signatures_NB[first[order]]).view(np.uint64)
    leader = np.arange(len(distinct_NW))
    for band in range(_BANDS):
        leader = _joined_by_band(distinct_NW, band, leader)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order][leader[place[inverse]]]


@lru_cache(maxsize=1)
def _hyperplanes() -> NDArray[np.float32]:
    """Return float32 (leads x points, bits) of -1 and 1, from a hash, so that no change of a library changes them."""
    rows = _LEADS * _POINTS
    digest = np.frombuffer(hashlib.shake_256(b"ECG Foundry signature 1").digest(rows * BYTES), np.uint8)
    return (np.unpackbits(digest).reshape(rows, BITS) * 2.0 - 1.0).astype(np.float32)


def _joined_by_band(words_NW: NDArray[np.uint64], band: int, leader: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each row's leader after joining those that agree in a band and differ in at most SAME_BITS."""
    keys = words_NW.view(np.uint16)[:, band]
    order = np.argsort(keys, kind="stable")
    # In the order of the keys, so that the rows of a pair are near each other in memory.
    keys, leaders = keys[order], leader[order]
    first_NW = np.ascontiguousarray(words_NW[:, :_FIRST_WORDS]).take(order, axis=0)
    # Rows with equal keys are adjacent now: pair each with the next, then with the one after it, as long as keys agree.
    at = np.arange(len(keys))
    for gap in range(1, len(keys)):
        at = at[: np.searchsorted(at, len(keys) - gap)]
        at = at[keys[at] == keys[at + gap]]
        if not len(at):
            break
        apart = at[leaders[at] != leaders[at + gap]]
        for start in range(0, len(apart), _PAIRS):  # in chunks, to bound the memory
            chunk = apart[start : start + _PAIRS]
            near = chunk[_differing(first_NW, chunk, chunk + gap) <= _FIRST_BITS]
            left, right = order[near], order[near + gap]
            same = _differing(words_NW, left, right) <= SAME_BITS
            if same.any():
                leader = _joined(leader, left[same], right[same])
                leaders = leader[order]
    return leader


def _differing(words_NW: NDArray[np.uint64], left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Return in how many bits the rows of each pair differ."""
    differing_NW = words_NW.take(left, axis=0)  # several times as fast as words_NW[left]
    differing_NW ^= words_NW.take(right, axis=0)
    return np.bitwise_count(differing_NW).sum(axis=1, dtype=np.int64)


def _joined(leader: NDArray[np.int64], left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Return each row's leader, the lowest row of its group, after joining the groups of the pairs."""
    while True:
        left_leader, right_leader = leader[left], leader[right]
        if np.array_equal(left_leader, right_leader):
            return leader
        leader = leader.copy()
        np.minimum.at(leader, np.maximum(left_leader, right_leader), np.minimum(left_leader, right_leader))
        # Follow the leaders' leaders until every row points to the lowest row of its group.
        while not np.array_equal(leader, shorter := leader[leader]):
            leader = shorter

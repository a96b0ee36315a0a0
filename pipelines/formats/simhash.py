"""Which ECGs are the same recording, though their bytes differ: a signature a record, and groups of close signatures.

A copy may have been resampled, rounded, scaled, or given another baseline; what stays is when, and in which leads, the
signal rises above its surroundings. The signature is 1,024 random hyperplanes' verdicts on that (Charikar, STOC 2002):
two signatures differ in a share of bits that is the angle between the two signals over pi. Different ECGs share half of
them; those of one patient too, since their beats fall at other times.

Not found: a window that starts elsewhere (of 500 ECGs of PTB-XL all are found 2 ms beside, 97 % at 4 ms, none at 12),
a lead exchanged, the last second lost, noise of 30 uV rms added (half of them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

BITS = 1024
BYTES = BITS // 8
# Copies in PTB-XL at 100 and 500 Hz differ in at most 47 bits, its 19,601 different ECGs in at least 156. The nearest
# of these are regular rhythms of one rate in step; by their tail some 5 of 180,000 would be below the limit.
SAME_BITS = 90

_LEADS, _SAMPLES = 8, 2500
_BLOCK, _AROUND, _LEVELS = 10, 9, 127
_POINTS = _SAMPLES // _BLOCK - _AROUND + 1

# Records that agree in all 16 bits of one of 32 bands are compared: of pairs that differ in 5 % of the bits one in
# 10^8 is missed, at the limit one in 4,000.
_BANDS = 32
# Most pairs of a band are strangers; a quarter of the bits tells, at six standard deviations from SAME_BITS.
_FIRST_WORDS, _FIRST_BITS = 4, 56
_PAIRS = 1 << 18


def signatures(x_NLT: NDArray[np.int16]) -> NDArray[np.uint8]:
    """int16 (N, 8, 2500), microvolt at 250 Hz -> (N, 128), 1,024 bits each.

    Means of 40 ms against those of 360 ms around them, in each lead clipped at their median size: so neither a
    lead's gain and offset count, nor wander, nor how high a QRS or an artefact is. A constant lead counts as nothing.
    All sums are of whole numbers that float32 holds exactly: the same on every machine.
    """
    level_NLT = x_NLT.reshape(-1, _LEADS, _SAMPLES // _BLOCK, _BLOCK).sum(axis=-1, dtype=np.int32)
    around_NLT = sliding_window_view(level_NLT, _AROUND, axis=-1).sum(axis=-1)
    contrast_NLT = _AROUND * level_NLT[..., _AROUND // 2 : -(_AROUND // 2)] - around_NLT
    size_NL1 = np.median(np.abs(contrast_NLT), axis=-1, keepdims=True)
    clipped_NLT = np.clip(contrast_NLT / np.maximum(size_NL1, 0.5), -1, 1)
    whole_NP = np.rint(clipped_NLT * _LEVELS).astype(np.float32).reshape(len(x_NLT), _LEADS * _POINTS)
    return np.packbits(whole_NP @ _hyperplanes() > 0, axis=1)


def distance(a_NB: NDArray[np.uint8], b_NB: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N, 128) twice -> (N,): in how many of the 1,024 bits they differ, row by row."""
    return np.bitwise_count(a_NB ^ b_NB).sum(axis=-1, dtype=np.int64)


def first_copies(signatures_NB: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(N, 128) -> (N,): the first record of each record's group; its own number where it is alone or the first.

    Records are in one group where a chain of pairs leads from one to the other that differ in at most SAME_BITS.
    Candidates are those that agree in a band. Time grows with their number (of pairs of ECGs one in 1,000: 17 million
    of 180,000 records), and with the square of the near, not exact, copies that one ECG has.
    """
    _, first, inverse = np.unique(
        np.ascontiguousarray(signatures_NB).view(f"V{BYTES}").ravel(), return_index=True, return_inverse=True
    )
    # Distinct signatures in the order in which they first come, so that a smaller number is an earlier record.
    order = np.argsort(first)
    distinct_NW = np.ascontiguousarray(signatures_NB[first[order]]).view(np.uint64)
    leader = np.arange(len(distinct_NW))
    for band in range(_BANDS):
        for left, right in _close_pairs(distinct_NW, band):
            leader = _joined(leader, left, right)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order][leader[place[inverse]]]


@lru_cache(maxsize=1)
def _hyperplanes() -> NDArray[np.float32]:
    """(leads x points, bits) of -1 and 1, from a hash: no library's generator can change them."""
    rows = _LEADS * _POINTS
    drawn = np.frombuffer(hashlib.shake_256(b"ECG Foundry signature 1").digest(rows * BYTES), np.uint8)
    return (np.unpackbits(drawn).reshape(rows, BITS) * 2.0 - 1.0).astype(np.float32)


def _close_pairs(words_NW: NDArray[np.uint64], band: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of rows, the lower first, that agree in a band and differ in at most SAME_BITS."""
    keys = words_NW.view(np.uint16)[:, band]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    # Rows with equal keys are neighbours now: compare each to the next, to the one after, as long as any has one.
    at = np.arange(len(keys))
    for gap in range(1, len(keys)):
        at = at[: np.searchsorted(at, len(keys) - gap)]
        at = at[keys[at] == keys[at + gap]]
        if not len(at):
            return
        for start in range(0, len(at), _PAIRS):
            chunk = at[start : start + _PAIRS]
            left, right = order[chunk], order[chunk + gap]
            near = _differing(words_NW[:, :_FIRST_WORDS], left, right) <= _FIRST_BITS
            left, right = left[near], right[near]
            same = _differing(words_NW, left, right) <= SAME_BITS
            if same.any():
                yield left[same], right[same]


def _differing(words_NW: NDArray[np.uint64], left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    return np.bitwise_count(words_NW[left] ^ words_NW[right]).sum(axis=1, dtype=np.int64)


def _joined(leader: NDArray[np.int64], left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Each row's leader once the pairs' groups are one: the lowest row of the group."""
    while True:
        one, two = leader[left], leader[right]
        if np.array_equal(one, two):
            return leader
        leader = leader.copy()
        np.minimum.at(leader, np.maximum(one, two), np.minimum(one, two))
        while not np.array_equal(leader, shorter := leader[leader]):
            leader = shorter

"""Find the copies among records: near to one that is kept, by signature and then by signal.

Records whose signatures are close are candidates; they often stand in chains, of which the last is far from the first.
So records are taken in order, and each is compared with those kept before it: it is a copy of those whose signals are
the same recording, and is kept if there are none. Equal bytes need no comparison.

Only signals of records in chains are read, each once. A record is compared with the _TRIES kept ones of closest
signature: time grows with the number of records in chains, and with the square of a chain for signatures alone (of
5,000 in one chain, nine seconds). In memory are the _READ signals that are being read, and 19 kB for each that is kept
of the chain. Beyond _TRIES kept ones that are nearer than its original and still other recordings, a copy is missed.
Shapes: N records, B bytes, L leads, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.corpus.same_recording import same_recording, shapes
from pipelines.formats.simhash import SAME_BITS, distance, first_of_chain

Reader = Callable[[NDArray[np.int64]], NDArray[np.int16]]
"""Signals of records by their numbers, int16 (N, 8, 2500), microvolt."""

_TRIES = 8
_READ = 256  # records


def copies_of(
    signatures_NB: NDArray[np.uint8], contents: Sequence[str], held_out: int, read: Reader
) -> list[tuple[int, ...]]:
    """Return for each record the numbers of the kept ones that it is a copy of; its own alone if it is kept.

    held_out: so many of the first records are kept in any case, and not compared with each other.
    contents: hashes; of records with equal bytes, all are copies of what the first is a copy of.
    """
    seen: dict[str, int] = {}
    firsts = [seen.setdefault(content, number) for number, content in enumerate(contents)]
    copies: dict[int, tuple[int, ...]] = {number: (number,) for number in seen.values()}
    distinct = np.array(list(seen.values()), np.int64)
    chains = first_of_chain(signatures_NB[distinct])
    _, chain_of, sizes = np.unique(chains, return_inverse=True, return_counts=True)
    last = np.zeros(len(sizes), np.int64)
    np.maximum.at(last, chain_of, distinct)
    is_compared = (sizes[chain_of] > 1) & (last[chain_of] >= held_out)
    members, chain_of = distinct[is_compared], chain_of[is_compared]
    order = np.argsort(chain_of, kind="stable")
    members, chain_of = members[order], chain_of[order]
    kept, current = _Kept(signatures_NB), -1
    for start in range(0, len(members), _READ):
        part = slice(start, start + _READ)
        for number, chain, shape_LT in zip(
            members[part].tolist(), chain_of[part].tolist(), shapes(read(members[part])), strict=True
        ):
            if chain != current:
                kept, current = _Kept(signatures_NB), chain
            originals = () if number < held_out else kept.same_as(number, shape_LT)
            if originals:
                copies[number] = originals
            else:
                kept.add(number, shape_LT)
    return [copies[first] for first in firsts]


class _Kept:
    """The records of a chain that are kept, with what is compared of them."""

    def __init__(self, signatures_NB: NDArray[np.uint8]) -> None:
        self._signatures_NB = signatures_NB
        self._numbers: list[int] = []
        self._shapes: list[NDArray[np.float16]] = []

    def add(self, number: int, shape_LT: NDArray[np.float16]) -> None:
        self._numbers.append(number)
        self._shapes.append(shape_LT.copy())  # not a view of all that were read with it

    def same_as(self, number: int, shape_LT: NDArray[np.float16]) -> tuple[int, ...]:
        """Return the kept records that a record is a copy of, the first first."""
        numbers = np.array(self._numbers, np.int64)
        bits = distance(self._signatures_NB[numbers], self._signatures_NB[number])
        near = np.flatnonzero(bits <= SAME_BITS)
        if not len(near):
            return ()
        nearest = np.sort(near[np.argsort(bits[near], kind="stable")[:_TRIES]])
        is_same = same_recording(shape_LT, np.stack([self._shapes[at] for at in nearest]))
        return tuple(numbers[nearest[is_same]].tolist())

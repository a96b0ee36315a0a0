"""WFDB annotation files in MIT format: 16-bit words of a code and the samples since the previous annotation.

Form of https://physionet.org/physiotools/wag/annot-5.htm.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_SKIP, _LEAST_SPECIAL, _AUXILIARY = 59, 59, 63
# The codes of wave boundaries and peaks, with WFDB's symbols.
_SYMBOLS = {1: "N", 24: "p", 27: "t", 39: "(", 40: ")"}


@dataclass(frozen=True, slots=True)
class AnnotationMark:
    """A symbol at a sample, counted from 0 at the recording's rate."""

    sample: int
    symbol: str


def parse_marks(data: bytes, name: str) -> tuple[AnnotationMark, ...]:
    """Return the wave marks of an annotation file, in its order; other annotations are ignored.

    name: of the file, for messages. Raises ValueError if the end mark is missing.
    """
    words = [word for (word,) in struct.iter_unpack("<H", data[: len(data) // 2 * 2])]
    marks: list[AnnotationMark] = []
    at = sample = 0
    while at < len(words):
        code, step = words[at] >> 10, words[at] & 0x3FF
        if code == 0 and step == 0:
            return tuple(marks)
        at += 1
        if code == _SKIP:  # the next two words are the interval, its high half first
            if at + 2 > len(words):
                break
            (interval,) = struct.unpack("<i", struct.pack("<HH", words[at + 1], words[at]))
            sample += interval
            at += 2
        elif code == _AUXILIARY:  # a text of `step` bytes, padded to whole words
            at += (step + 1) // 2
        elif code < _LEAST_SPECIAL:
            sample += step
            if code in _SYMBOLS:
                marks.append(AnnotationMark(sample, _SYMBOLS[code]))
    raise ValueError(f"{name}: the annotations have no end after {len(data)} bytes: fetch the file again")

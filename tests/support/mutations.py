"""Damage to bytes, drawn from a seed: bits, lengths, numbers, lines and names.

Nothing here knows a reader: `tests.support.hostile` feeds what is made here to each of them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Mutation = Callable[[bytearray, np.random.Generator], bytearray]

# What a text field is replaced by. Lengths and rates are the dangerous ones: they decide how much is allocated.
NUMBERS = (
    *("", "-1", "0", "1", "1e9", "1e308", "1e-300", "nan", "inf", "-inf", "0x10", "12,5", "٣", "null", "true", "[]"),
    *("65535", "2147483648", "1000000000", "99999999999999999999", "9" * 400),
)
NAMES = ("..", "../../etc/passwd", "/etc/passwd", "a\\b", "nul\0", "é", "C:\\x", "JS00001.hea", '"', "x" * 300)
# What a binary field is overwritten by, in any width and byte order.
COUNTS = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 10**6, 0x7FFFFFFF, 0xFFFFFFFF, 10**12, 1 << 60, (1 << 64) - 1)
# What a value of a JSON text is replaced by.
VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 2.5, 10**6, 10**18, 10**400, 1e308, float("nan"), float("inf"), -0.0),
    *("", " ", "x" * 300, "\0", "<b>", "\ud800", [], {}, [[]], [None], [1] * 1000, {"": {}}, ["I"] * 100),
)


def bit_flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return data


def flipped(data: bytearray, rng: np.random.Generator) -> bytearray:
    for _ in range(int(rng.integers(1, 5))):
        data = bit_flipped(data, rng)
    return data


def overwritten(data: bytearray, rng: np.random.Generator) -> bytearray:
    at, count = int(rng.integers(len(data))), int(rng.integers(1, 33))
    fill = (rng.bytes(count), b"\xff" * count, b"\0" * count)[int(rng.integers(3))]
    data[at : at + count] = fill[: len(data) - at]
    return data


def counted(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Overwrite 1, 2, 4 or 8 bytes, in either order, by a count that is a limit of something."""
    form = "BHIQ"[int(rng.integers(4))]
    size = struct.calcsize(f"<{form}")
    count = COUNTS[int(rng.integers(len(COUNTS)))] & ((1 << 8 * size) - 1)
    at = int(rng.integers(max(1, len(data) - size + 1)))
    data[at : at + size] = struct.pack(f"{'<>'[int(rng.integers(2))]}{form}", count)[: len(data) - at]
    return data


def moved(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Copy a piece over another place: offsets and structures then overlap, or point to themselves."""
    size = min(int(rng.integers(4, 65)), len(data))
    source, target = (int(rng.integers(len(data) - size + 1)) for _ in range(2))
    data[target : target + size] = data[source : source + size]
    return data


def inserted(data: bytearray, rng: np.random.Generator) -> bytearray:
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 9))) + data[at:]


def cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    first, last = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:first] if rng.random() < 0.5 else data[:first] + data[last:]


def repeated(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Repeat a piece up to a thousand times."""
    size = min(int(rng.integers(1, 33)), len(data))
    at = int(rng.integers(len(data) - size + 1))
    return data[: at + size] + data[at : at + size] * int(rng.integers(1, 1001)) + data[at + size :]


def line_doubled(data: bytearray, rng: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    at = int(rng.integers(len(lines)))
    return bytearray(b"\n".join([*lines[:at], lines[at], *lines[at:]]))


def line_lost(data: bytearray, rng: np.random.Generator) -> bytearray:
    lines = bytes(data).split(b"\n")
    del lines[int(rng.integers(len(lines)))]
    return bytearray(b"\n".join(lines))


def word_replaced(data: bytearray, rng: np.random.Generator) -> bytearray:
    text = bytes(data).decode("utf-8", "replace")
    separator = [" ", ",", ":", "/"][int(rng.integers(4))]
    words = text.split(separator)
    choices = NUMBERS if rng.random() < 0.7 else NAMES
    words[int(rng.integers(len(words)))] = choices[int(rng.integers(len(choices)))]
    return bytearray(separator.join(words).encode())


def value_replaced(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Replace a value of a JSON text by another one that is JSON; a text that is no JSON is changed as any other."""
    try:
        whole = [json.loads(data)]
    except (ValueError, RecursionError):
        return word_replaced(data, rng)
    holder: Any = whole
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        key = keys[int(rng.integers(len(keys)))]
    holder[key] = VALUES[int(rng.integers(len(VALUES)))]
    return bytearray(json.dumps(whole[0]).encode())


ANY: tuple[Mutation, ...] = (flipped, overwritten, counted, counted, moved, inserted, cut, repeated)
# Two flips may cancel in a 16-bit sum: what a header's checksum cannot see, the download's SHA-256 does.
CHECKED: tuple[Mutation, ...] = (bit_flipped, overwritten, inserted, cut)
TEXT: tuple[Mutation, ...] = (
    *(flipped, overwritten, inserted, cut, repeated),
    *(line_doubled, line_lost, word_replaced, word_replaced, value_replaced, value_replaced),
)


def mutated(data: bytes, rng: np.random.Generator, *, text: bool = False, checked: bool = False) -> bytes:
    """Return `data` with one or two changes.

    text: change lines and words too. checked: make one change that a sum of 16-bit words cannot miss.
    """
    kinds = TEXT if text else CHECKED if checked else ANY
    if text and data.startswith(b"{"):  # most changes of bytes only leave what is no JSON
        kinds = (*TEXT, *(value_replaced,) * len(TEXT))
    # The first kilobytes of a binary file say what the rest is: half of the changes go there.
    head = len(data) if text or rng.random() < 0.5 else min(len(data), 4096)
    changed = bytearray(data[:head])
    for _ in range(1 if checked else int(rng.integers(1, 3))):
        if changed:
            changed = kinds[int(rng.integers(len(kinds)))](changed, rng)
    return bytes(changed) + data[head:]

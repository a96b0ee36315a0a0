"""The leads: their names, in the order that arrays hold them, and which rows of a recording are which lead.

Shapes: L leads as a file holds them, T samples; arrays may carry batch axes in front, (..., L, T).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEADS_12 = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The independent leads, which a model reads."""
DERIVED = ("III", "aVR", "aVL", "aVF")
"""The leads that follow from I and II."""
LIMB = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}
"""The limb leads as sums of I and II (Einthoven, Goldberger): III = II - I, aVR = -(I + II) / 2, aVL = I - II / 2,
aVF = II - I / 2."""

# What files write around a lead's name: `Lead I`, `ECG lead I`, `MDC_ECG_LEAD_I`, `I (mV)`, `I_raw`, `I [Einthoven]`,
# and WFDB headers a comment: `V6 # noisy`.
_BEFORE = re.compile(r"(?:MDC_ECG_LEAD_|(?:LEAD|ECG|EKG)(?:[ _:.]+|-|(?=[A-Z0-9])))")
_BEHIND = re.compile(r"(?:\s*(?:\([^()]*\)|\[[^\[\]]*\])|[ _-](?:RAW|MV|UV)|\s+#.*)$")
_NAMES = {name.upper(): name for name in LEADS_12} | {
    f"{letter}{name}": name for letter in "DL" for name in ("I", "II", "III")
}
_NUMBERED = re.compile(r"([DLC])(\d{1,4})", re.ASCII)


class LeadMissing(ValueError):
    """A lead that the model needs is missing."""


class LeadRepeated(ValueError):
    """Two rows with different samples have the same lead's name."""


@lru_cache(maxsize=1024)
def known_leads(names: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return which of LEADS_12 each name means; None for any other name, such as `V7`, `vx` or `RESP`.

    `ii`, `DII`, `D2`, `Lead II`, `ECG lead II`, `MDC_ECG_LEAD_II`, `II (mV)` and `II_raw` are II; `C2` is V2 (IEC
    60601-2-25). A letter and a number may also count channels, and the other names tell: `D1` to `D3` (or `L1` to `L3`)
    are leads if no D4 follows, and `C1` to `C6` if a limb lead is named and no C0 or C10 is.
    """
    bare = [_bare(name) for name in names]
    numbers: dict[str, list[int]] = {}
    for match in filter(None, map(_NUMBERED.fullmatch, bare)):
        numbers.setdefault(match[1], []).append(int(match[2]))
    meaning = dict(_NAMES)
    for letter in "DL":
        if max(numbers.get(letter, [0])) <= 3:
            meaning |= {f"{letter}{number}": name for number, name in enumerate(("I", "II", "III"), 1)}
    chest = numbers.get("C", [0])
    if min(chest) > 0 and max(chest) < 10 and any(meaning.get(name) in LIMB for name in bare):
        meaning |= {f"C{number}": f"V{number}" for number in range(1, 7)}
    return tuple(meaning.get(name) for name in bare)


def _bare(name: str) -> str:
    """Return a name in capitals, without what files write around it."""
    text = unicodedata.normalize("NFKC", name).strip().upper()
    while (match := _BEFORE.match(text)) is not None:
        text = text[match.end() :]
    while (match := _BEHIND.search(text)) is not None:
        text = text[: match.start()].rstrip()
    return text


def select_leads(x_LT: NDArray[Any], names: Sequence[str]) -> tuple[NDArray[Any], tuple[str, ...], tuple[str, ...]]:
    """Return the rows that are one of LEADS_12, (..., L, T), their names as LEADS_12 has them, and the names left out.

    Left out are other channels, and a row that repeats a lead: with the same samples, or a lead of DERIVED, which
    nothing needs. Raises LeadRepeated if two rows of a lead in LEADS differ, ValueError if the names do not fit.
    """
    if x_LT.ndim < 2 or x_LT.shape[-2] != len(names):
        raise ValueError(f"signal of shape {x_LT.shape} does not fit {len(names)} lead names: use (leads, samples)")
    rows: dict[str, int] = {}
    left_out: list[str] = []
    for row, (name, lead) in enumerate(zip(names, known_leads(tuple(names)), strict=True)):
        if lead is None or lead in rows:
            left_out.append(name)
        if lead in LEADS and lead in rows:
            _check_same(x_LT[..., rows[lead], :], x_LT[..., row, :], lead, names)
        if lead is not None:
            rows.setdefault(lead, row)
    chosen_LT = x_LT if len(rows) == len(names) else x_LT[..., list(rows.values()), :]
    return chosen_LT, tuple(rows), tuple(left_out)


def complete_limb_leads(
    x_LT: NDArray[Any], names: Sequence[str]
) -> tuple[NDArray[Any], tuple[str, ...], tuple[str, ...]]:
    """Append lead I or II, or both, computed from the limb leads that are there, if two of them are.

    names: as LEADS_12 has them. Returns the rows, their names, and the names of the computed ones. With more than two
    limb leads, I and II are their least-squares solution; a row that is there stays as it is.
    """
    limb = [name for name in names if name in LIMB]
    absent = tuple(name for name in ("I", "II") if name not in names)
    if not absent or len(limb) < 2:
        return x_LT, tuple(names), ()
    weights_2L = np.linalg.pinv(np.array([LIMB[name] for name in limb]))
    both_2T = weights_2L @ x_LT[..., [names.index(name) for name in limb], :].astype(np.float64)
    computed_LT = both_2T[..., [("I", "II").index(name) for name in absent], :].astype(np.float32)
    return np.concatenate([x_LT, computed_LT], axis=-2), (*names, *absent), absent


def _check_same(first_T: NDArray[Any], second_T: NDArray[Any], lead: str, names: Sequence[str]) -> None:
    """Raise LeadRepeated if two rows of one lead differ."""
    if not np.array_equal(first_T, second_T, equal_nan=True):
        raise LeadRepeated(
            f"two rows of {', '.join(names)} are lead {lead}, and their samples differ: name each row once"
        )

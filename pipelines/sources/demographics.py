"""Age and sex of a patient, from the various texts of sources, carts and tables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipelines.records import Sex

_SEX: dict[str, Sex] = {
    **dict.fromkeys(("m", "male", "man", "männlich", "mann"), "male"),
    **dict.fromkeys(("f", "female", "woman", "w", "weiblich", "frau"), "female"),
}
_UNKNOWN = frozenset(
    ("", "nan", "none", "null", "unknown", "unk", "u", "n/a", "na", "<na>", "nat", "-", "--", "?", "-1")
)
"""What stands for a value that is not known, in lower case."""
_OLDEST = 120.0
_HIDDEN = 89.0  # ages above it are hidden by rule in public sets
_NUMBER = re.compile(r"(\d{1,3}(?:[.,]\d*)?)(\s*[a-z/. ]*)", re.ASCII)
_ABOVE = re.compile(r"(?:>|≥|>=)\s*(\d{2,3})|(\d{2,3})\s*\+", re.ASCII)
_YEARS = {
    **dict.fromkeys(("", "y", "yr", "yrs", "year", "years", "yo", "y/o", "y.o", "years old", "year old"), 1.0),
    **dict.fromkeys(("m", "mo", "mos", "month", "months"), 1 / 12),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), 7 / 365.25),
    **dict.fromkeys(("d", "day", "days"), 1 / 365.25),
}
"""The unit of an age in years; the letters are those of DICOM, as in `063Y` and `006M`."""
_SEX_OR_UNIT = re.compile(r"(?!\d{3}[mw]$).*\d\s*[mw]", re.ASCII)  # 65M may be a man of 65; DICOM's has three digits


def is_unknown(text: str) -> bool:
    """Whether a text stands for a value that is not known: empty, `NaN`, `Unknown`, -1 and the like."""
    return text.strip().lower() in _UNKNOWN


def age_of(text: str) -> tuple[float | None, tuple[str, ...]]:
    """Return the age in years, or None if it is not given (``, `NaN`, `Unknown`) or not understood, and notes.

    Units may stand behind it (`063Y`, `63 years`, `006M`), and a decimal comma in it. Ages that a source hides to
    protect the oldest (`>89`, `90+`, or PTB-XL's 300) are 90, with a note.
    """
    text = text.strip()
    above = _ABOVE.fullmatch(text)
    if (above and float(above[1] or above[2]) >= _HIDDEN) or re.fullmatch(r"300(\.0*)?", text):
        return 90.0, (f"age is above 89 (given as {text})",)
    number = _NUMBER.fullmatch(text.lower())
    unit = None if number is None else _YEARS.get(number[2].strip(" ."))
    if number is None or unit is None or _SEX_OR_UNIT.fullmatch(text.lower()):
        return None, ()
    age = float(number[1].replace(",", ".")) * unit
    if age > _OLDEST:
        return None, (f"age {text} left out: above {_OLDEST:g}",)
    return age, ()


def sex_of(text: str) -> Sex | None:
    """Return the sex for `Male`, `F` and the like, or None for anything else, such as `Unknown`."""
    return _SEX.get(text.strip().lower())


def stated_age(text: str) -> tuple[float | None, tuple[str, ...]]:
    """Return what `age_of` does, with a note on a text that stands for an age and is not understood."""
    age, notes = age_of(text)
    if age is None and not notes and not is_unknown(text):
        notes = (f"age {text.strip()[:40]!r} left out: years are needed, as in 63, 63Y or 90+",)
    return age, notes


def stated_sex(text: str, codes: Mapping[str, Sex]) -> tuple[Sex | None, tuple[str, ...]]:
    """Return the sex, and a note on a text that stands for one and is not understood.

    codes: what a drop says that its codes mean, by code in lower case. They come before the usual words.
    """
    sex = codes.get(text.strip().lower()) or sex_of(text)
    if sex is None and not is_unknown(text):
        return None, (
            f"sex {text.strip()[:40]!r} left out: write male or female, or say what codes mean with sex_codes in the "
            "drop's JSON",
        )
    return sex, ()


def plain_id(text: str) -> str:
    """Return the id of a patient without the `.0` that a table of numbers gives it: 17.0 and 17 are one patient."""
    text = text.strip()
    whole = re.fullmatch(r"(\d+)\.0+", text, re.ASCII)
    return whole[1] if whole else text

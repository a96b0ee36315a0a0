"""Age and sex of a patient, from the various texts of the sources."""

from __future__ import annotations

import re

from pipelines.records import Sex

_SEX: dict[str, Sex] = {"male": "male", "m": "male", "female": "female", "f": "female"}
_OLDEST = 120.0


def age_of(text: str) -> tuple[float | None, tuple[str, ...]]:
    """Return the age in years, or None if it is not given (``, `NaN`, `Unknown`), and notes for the record.

    Ages that a source hides to protect the oldest (`>89`, or PTB-XL's 300) are 90, with a note.
    """
    text = text.strip()
    if text == ">89" or re.fullmatch(r"300(\.0*)?", text):
        return 90.0, (f"age is above 89 (given as {text})",)
    if not re.fullmatch(r"\d{1,3}(\.\d*)?", text, re.ASCII):
        return None, ()
    if float(text) > _OLDEST:
        return None, (f"age {text} left out: above {_OLDEST:g}",)
    return float(text), ()


def sex_of(text: str) -> Sex | None:
    """Return the sex for `Male`, `F` and the like, or None for anything else, such as `Unknown`."""
    return _SEX.get(text.strip().lower())

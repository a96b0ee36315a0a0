"""What is kept of a person in a vendor's file: a keyed hash of the id, the age, the sex. Nothing else."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata

from pipelines.records import Sex

_OLDEST = 120.0
# What files write where they name nobody.
_NOBODY = re.compile(r"[\W0_]*|x|unk|unknown|n/?a|none|null|nil|anonym(?:ous|ized|ised)?|anon", re.IGNORECASE)
_AGE = re.compile(r"\s*(\d{1,4})\s*([YMWD])\s*", re.ASCII | re.IGNORECASE)
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
# `code sex birthdate name`, as EDF+ has it, in a plain EDF's free text.
_EDF_PLUS = re.compile(r"(\S+) ([MFX]) (?:\d\d-[A-Z]{3}-\d{4}|X) \S.*", re.IGNORECASE)


def pseudonym(key: bytes, patient_id: str) -> str:
    """Return the name under which a patient's ECGs belong together: an HMAC-SHA256 of the id under a home's key."""
    return "p" + hmac.new(key, b"patient\0" + patient_id.encode(), hashlib.sha256).hexdigest()[:24]


def named(patient_id: str) -> str | None:
    """Return a file's patient id, stripped, in Unicode's composed form; None if it names nobody."""
    text = unicodedata.normalize("NFC", patient_id.encode("utf-8", "replace").decode()).strip("\0 \t\r\n")
    return None if _NOBODY.fullmatch(text) else text


def edf_patient(text: str) -> str:
    """Return the code out of a plain EDF's patient field if it is written as EDF+ writes it, else the whole field."""
    found = _EDF_PLUS.fullmatch(text.strip())
    return found[1].replace("_", " ") if found else text


def age_in_years(text: str) -> float | None:
    """Return the years of a DICOM age (`063Y`, `018M`, `003W`, `010D`), or None for another text."""
    found = _AGE.fullmatch(text)
    return None if found is None else int(found[1]) / _PER_YEAR[found[2].upper()]


def years_between(birth: str, recording: str) -> float | None:
    """Return the whole years between two dates written YYYYMMDD...; None if one is not."""
    dates = [re.match(r"(\d{4})(\d{2})(\d{2})", text, re.ASCII) for text in (birth, recording)]
    if None in dates:
        return None
    (year, *day), (now_year, *now_day) = [[int(part) for part in date.groups()] for date in dates if date]
    return float(now_year - year - (now_day < day))


def kept_age(years: float | None) -> tuple[float | None, tuple[str, ...]]:
    """Return the age that is kept, and notes: 90 for all above 89, None for an impossible one."""
    if years is None:
        return None, ()
    if not 0 <= years <= _OLDEST:
        return None, (f"age left out: not between 0 and {_OLDEST:g}",)
    return (90.0, ("age is above 89: kept as 90",)) if years > 89 else (float(years), ())


def kept_sex(text: str) -> Sex | None:
    """Return the sex for `M` and `F`, else None."""
    code = text.strip().upper()[:1]
    return "male" if code == "M" else "female" if code == "F" else None

"""Who an ECG is of, from the comments of a WFDB header, in the forms that public sets and exports write.

`Patient: p17`, `Patient ID: p17`, `<subject_id>: 10000032` (MIMIC-IV-ECG), `patient 1` (INCART), `Age: 63`, and several
fields in a line, as in `<age>: 65 <sex>: F <diagnoses> ...` (INCART) or `Age: 63, Sex: F`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_MOST_TEXT = 128
_NAMES = {
    "age": "age",
    "sex": "sex",
    "gender": "sex",
    **dict.fromkeys(("patient", "patientid", "patientno", "patientnumber", "mrn"), "patient"),
    **dict.fromkeys(("subject", "subjectid", "subjectno", "subjectnumber"), "patient"),
}
"""What a field means, by its name in lower case without blanks, hyphens and underscores."""
# `<name>`, `<name>:`, and `name:` or `name=` of the names above.
_FIELD = re.compile(
    r"<(?P<bracketed>[A-Za-z][\w -]{0,30})>\s*[:=]?"
    r"|(?<![\w<-])(?P<plain>age|sex|gender|mrn|(?:patient|subject)(?:[ _-]?(?:id|no|number))?)\s*[:=]",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?:patient|subject)\s+(?:(?:id|no\.?|number)\s+)?(?=\S*\d)(\S+)", re.IGNORECASE)


def people_fields(comments: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the different texts that the comments give for `patient`, `age` and `sex`, in their order."""
    found: dict[str, dict[str, None]] = {"patient": {}, "age": {}, "sex": {}}
    for comment in comments:
        for name, text in _fields(comment):
            if text and len(text) <= _MOST_TEXT:
                found[name][text] = None
    return {name: tuple(texts) for name, texts in found.items()}


def _fields(comment: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of a comment's fields. Text that begins otherwise has none: it may be anything."""
    if (numbered := _NUMBERED.fullmatch(comment)) is not None:
        yield "patient", numbered[1]
        return
    fields = list(_FIELD.finditer(comment))
    if not fields or fields[0].start() != 0:
        return
    ends = [field.start() for field in fields[1:]] + [len(comment)]
    for field, end in zip(fields, ends, strict=True):
        name = _NAMES.get(re.sub(r"[ _-]", "", field["bracketed"] or field["plain"]).lower())
        if name is not None:
            yield name, comment[field.end() : end].strip(" \t,;|")

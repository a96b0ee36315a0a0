"""What the process that reads vendors' files gives of one file."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipelines.formats.reading import Reading


class Decoded(NamedTuple):
    """A reading without its patient, and the patient's id as the file has it, which goes no further."""

    reading: Reading
    patient_id: str


def words(*values: Any) -> str:
    """Return short texts of a file as one line of at most 64 printable characters."""
    text = " ".join("" if value is None else str(value) for value in values)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= 64 else text[:61] + "..."


def maker_and_model(maker: Any, model: Any) -> str:
    """Return both as one text; either may be missing."""
    return " ".join(text for text in (words(maker), words(model)) if text)

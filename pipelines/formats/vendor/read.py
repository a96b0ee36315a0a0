"""Read one ECG of a vendor's format: the entry for everything that reads files.

    recognize(head, name)   a format, a file that is known and not read, or None
    read_vendor(path, key)  the ECG as a Reading, or a RecordError
    record_id(path)         what the record is called: by its bytes, since a file's name can be a patient's id

The rule for people: of the patient a keyed hash, age and sex; no name, date, identifier or statement.
"""

from __future__ import annotations

import importlib.util
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipelines.formats.limits import require_size
from pipelines.formats.reading import Reading
from pipelines.formats.vendor.limits import MOST_BYTES
from pipelines.formats.vendor.people import named, pseudonym
from pipelines.formats.vendor.process import ask
from pipelines.formats.vendor.recognize import HEAD, Kind, Unread, recognize
from pipelines.hashing import sha256_of_file
from pipelines.records import DropReason, RecordError

_LIBRARIES = ("ecgdatakit", "pydicom")
_ID_DIGITS = 20


def recognize_file(path: Path) -> Kind | Unread | None:
    """Return a file's format, by its first bytes and its name, as `recognize` does."""
    with path.open("rb") as stream:
        return recognize(stream.read(HEAD), path.name)


def read_vendor(path: Path, key: bytes | None = None) -> Reading:
    """Return the ECG of a vendor's file.

    key: of the data home (`Home.patient_key`); the patient's pseudonym is made with it. Without one, a reading says
    only whether its file names a patient. Raises RecordError if the file is no vendor's, or cannot be used.
    """
    kind = recognize_file(path)
    if kind is None:
        raise RecordError(DropReason.UNKNOWN_FORMAT, f"{path.name}: read are {', '.join(Kind)}")
    if isinstance(kind, Unread):
        raise RecordError(DropReason.UNKNOWN_FORMAT, f"{path.name}: it is {kind.what}, and is not read: {kind.instead}")
    if kind is not Kind.DICOM:  # an image is refused for what it is, not for its size
        too_large = partial(RecordError, DropReason.UNREADABLE_SIGNAL)
        require_size(path, MOST_BYTES[kind], f"one {kind}", "export ten seconds of it", too_large)
    if missing := _missing_libraries():
        raise RecordError(
            DropReason.UNKNOWN_FORMAT,
            f"{path.name}: {kind} needs {' and '.join(missing)}: make install, or pip install -e '.[vendor]' in the "
            "checkout",
        )
    header, samples = ask(path, kind)
    patient_id = named(header["patient_id"])
    return Reading(
        signal_LT=np.frombuffer(samples, "<f4").reshape(len(header["leads"]), -1).copy(),
        leads=tuple(header["leads"]),
        rate=header["rate"],
        patient=None if patient_id is None or key is None else pseudonym(key, patient_id),
        patient_named=patient_id is not None,
        age=header["age"],
        sex=header["sex"],
        notes=tuple(header["notes"]),
        units=header["units"],
        form=header["form"],
        details=(
            *((name, text) for name, text in header["details"]),
            ("patient", "not named in the file" if patient_id is None else "named in the file"),
        ),
    )


@cache
def _missing_libraries() -> tuple[str, ...]:
    return tuple(library for library in _LIBRARIES if importlib.util.find_spec(library) is None)


def record_id(path: Path) -> str:
    """Return the id of a vendor file's record, by its content."""
    return record_id_of(sha256_of_file(path))


def record_id_of(sha256: str) -> str:
    """Return the id of a vendor file's record, given the file's sha256 in hex."""
    return f"ecg-{sha256[:_ID_DIGITS]}"


def reader_version() -> str:
    """Return the libraries and their versions, which are part of what read a file: another may read it differently."""
    there = [library for library in _LIBRARIES if library not in _missing_libraries()]
    return ", ".join(f"{library} {version(library)}" for library in there) or "no library of vendors' formats"

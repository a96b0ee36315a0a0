"""What an own ECG's path says: an id that is unique in its drop, and its patient if drop.json says so.

A record that is called by its file keeps that name, unless files of several folders bear it. Then all of them are
called by their paths, `p001/ecg` and `p002/ecg`: whichever file comes later, an id never comes to mean another ECG.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pipelines.records import DroppedRecord, Record

PATIENT_FROM = "patient_from"

_FOLDER = re.compile(r"folder(?: ([1-9]))?", re.ASCII)


@dataclass(frozen=True)
class ByPath:
    """What paths mean in one drop."""

    shared_names: frozenset[str] = frozenset()
    """Names, without ending, of files in several folders."""
    level: int | None = None
    """The folder that is a patient's, 1 for those directly in the drop. None: a patient that is unknown stays so."""

    def called(self, path: PurePosixPath, item: Record | DroppedRecord) -> Record | DroppedRecord:
        """Return what a file gave, called by its path, relative to the drop, if its name is that of several files."""
        if item.record_id != path.stem or path.stem not in self.shared_names:
            return item
        name = f"{path.parent}/{path.stem}"
        if isinstance(item, DroppedRecord):
            return replace(item, record_id=name)
        notes = (*item.notes, f"called by its path: several files are named {path.stem}")
        return replace(item, record_id=name, notes=notes)

    def with_patient(self, path: PurePosixPath, record: Record) -> Record:
        """Return a record with its folder's patient if its own is not known."""
        folders = path.parts[:-1]
        if record.patient_id is not None or self.level is None or len(folders) < self.level:
            return record
        patient = "/".join(folders[: self.level])
        return replace(record, patient_id=patient, notes=(*record.notes, f"patient taken from the folder: {patient}"))


def names_in_several_folders(paths: Iterable[PurePosixPath]) -> frozenset[str]:
    """Return the names, without ending, that files of several folders have."""
    folders: dict[str, set[PurePosixPath]] = {}
    for path in paths:
        folders.setdefault(path.stem, set()).add(path.parent)
    return frozenset(name for name, of_name in folders.items() if len(of_name) > 1)


def patient_level(shared: Mapping[str, Any], where: str) -> int | None:
    """Return which folder is a patient's by the field `patient_from`, None if it is not given.

    Raises ValueError for another value than `folder`, or `folder 2` to `folder 9`.
    """
    value = shared.get(PATIENT_FROM)
    if value is None:
        return None
    found = _FOLDER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f'{where}: {PATIENT_FROM} {value!r}: use "folder" if each folder in the drop belongs to one patient (or '
            'site, or device), "folder 2" if those below them do'
        )
    return int(found[1] or 1)

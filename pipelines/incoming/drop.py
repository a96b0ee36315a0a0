"""A drop as its readers see it: its folder, its files by name, and what its JSON files say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Self

from pipelines.formats.wfdb_header import named_files
from pipelines.incoming.by_path import PATIENT_FROM
from pipelines.incoming.description import (
    MOST_SECONDS,
    PEOPLE_FIELDS,
    TABLE,
    mapped_leads,
    read_description,
    sex_codes_of,
)
from pipelines.incoming.people_table import PeopleTable
from pipelines.records import DroppedRecord, DropReason, Record, RecordError

SHARED = "drop.json"

PatientKey = Callable[[], bytes]
"""Returns the key that makes pseudonyms of patients' ids (`Home.patient_key`)."""


@dataclass(frozen=True)
class RecordOrigin:
    """What one record of a file gave."""

    item: Record | DroppedRecord
    units: str = ""
    """How its numbers became millivolt, for people."""
    form: str = ""
    """Kind of file, for people."""
    details: tuple[tuple[str, str], ...] = ()
    """More for people, as (name, text)."""
    file: str = ""
    """Its file, by path inside the drop; a WFDB record's header, if it has one."""


Origins = Iterator[RecordOrigin]


@dataclass(frozen=True)
class Drop:
    """A folder with own ECGs. Files that are not among `paths`, relative to root, are never opened."""

    root: Path
    paths: frozenset[str]
    shared: dict[str, Any]
    """The fields of drop.json."""
    key: PatientKey | None
    """None: patients of vendors' files stay unknown."""
    table: PeopleTable | None = None
    """The table that drop.json names, if it does."""

    @classmethod
    def of(cls, root: Path, paths: Sequence[str], key: PatientKey | None) -> Self:
        """Read drop.json, if there is one. Raises ValueError if it cannot be used, or if a folder in it has another."""
        if nested := next((path for path in sorted(paths) if path.endswith(f"/{SHARED}")), None):
            folder = nested.removesuffix(f"/{SHARED}")
            raise ValueError(
                f"{nested}: one {SHARED}, directly in the drop, describes all its files: write a JSON beside each file "
                f"of {folder}, or make {folder} a drop of its own"
            )
        return cls._described(root, frozenset(paths), key, _shared_fields(root) if SHARED in paths else {})

    @classmethod
    def of_one_file(cls, root: Path, paths: Set[str], key: PatientKey | None) -> Self:
        """Do the same for one file, with what lies beside it in `paths`; drop.json and its table are found here."""
        if not (root / SHARED).is_file():
            return cls._described(root, frozenset(paths), key, {})
        shared = _shared_fields(root)
        return cls._described(root, frozenset(paths | {SHARED} | _table_file(root, shared)), key, shared)

    @classmethod
    def _described(cls, root: Path, there: frozenset[str], key: PatientKey | None, shared: dict[str, Any]) -> Self:
        table = PeopleTable.read(root, shared[TABLE], there) if TABLE in shared else None
        return cls(root, there, shared, key, table)

    @cached_property
    def endings(self) -> dict[PurePosixPath, set[str]]:
        """The endings, in lower case, of the files that share a name without ending."""
        endings: dict[PurePosixPath, set[str]] = {}
        for path in map(PurePosixPath, self.paths):
            endings.setdefault(path.with_suffix(""), set()).add(path.suffix.lower())
        return endings

    def beside(self, path: PurePosixPath, ending: str) -> PurePosixPath | None:
        """Return the file of the same name with another ending, in small letters or capitals; None if it is absent."""
        both = (path.with_suffix(ending), path.with_suffix(ending.upper()))
        return next((each for each in both if str(each) in self.paths), None)

    @cached_property
    def times_named(self) -> Counter[str]:
        """How many files have each name."""
        return Counter(PurePosixPath(path).name for path in self.paths)

    @property
    def tells_patients(self) -> bool:
        """Whether drop.json says where the patients of records are told from."""
        return self.shared.get(PATIENT_FROM) is not None or "patient_ids" in self.shared.get(TABLE, ())

    @cached_property
    def named_by_headers(self) -> frozenset[str]:
        """The files that WFDB headers name as theirs, which are read with them: signal files, headers of segments."""
        files: set[str] = set()
        segments: set[str] = set()
        in_several: set[str] = set()
        for header in map(PurePosixPath, self.paths):
            if _is_header(header.name):
                with suppress(RecordError):  # the header's own reading says what is wrong with it
                    named = named_files(self.root / header)
                    files.update(str(header.with_name(file)) for file in named.signals if not _is_header(file))
                    if named.segments:
                        in_several.add(str(header))
                        beside = (self.beside(header.with_name(f"{name}.hea"), ".hea") for name in named.segments)
                        segments.update(str(each) for each in beside if each is not None)
        # Headers that name each other, or themselves, are no segments: each is read, and refused.
        return frozenset(files | (segments - in_several))

    def fields_beside(self, path: PurePosixPath, *, needed: bool) -> dict[str, Any]:
        """Return the fields of the JSON beside a file. Raises RecordError if it is needed and absent."""
        description = path.with_suffix(".json")
        if str(description) in self.paths:
            fields = read_description(self.root / description)
            if alone := [name for name in (TABLE, PATIENT_FROM) if name in fields]:
                raise RecordError(
                    DropReason.UNREADABLE_HEADER, f"{description}: {alone[0]}: write it into {SHARED}, for all files"
                )
            return fields
        if needed:
            raise RecordError(
                DropReason.FILE_MISSING,
                f"{description} is not there: it says {path.name}'s rate, leads, units and ids",
            )
        return {}

    def with_person(self, record: Record, path: PurePosixPath) -> Record:
        """Return a record with what the table of drop.json says of it."""
        if self.table is None:
            return record
        file = self.beside(path, ".hea") or path  # the header is a WFDB record's file
        names = [record.record_id, str(file), str(file.with_suffix(""))]
        if self.times_named[file.name] == 1:
            names.append(file.name)
        return self.table.filled(record, names, sex_codes_of(self.shared, SHARED))

    def finished(self, record: Record) -> Record:
        """Return a record of a file that names its leads: these mapped, and what is too long cut."""
        record = replace(record, leads=mapped_leads(record.leads, self.shared, SHARED))
        most, samples = -int(-MOST_SECONDS * record.rate // 1), record.signal_LT.shape[1]
        if samples <= most:
            return record
        note = f"the first {MOST_SECONDS} s of {samples / record.rate:g} s are read"
        return replace(record, signal_LT=record.signal_LT[:, :most].copy(), notes=(*record.notes, note))


def _shared_fields(root: Path) -> dict[str, Any]:
    """Read drop.json. Raises ValueError if it cannot be used."""
    shared = read_description(root / SHARED)
    if personal := [name for name in shared if name in PEOPLE_FIELDS]:
        raise ValueError(
            f"{SHARED}: {personal[0]}: write what belongs to one file's records into the JSON beside that file"
        )
    return shared


def _table_file(root: Path, shared: dict[str, Any]) -> set[str]:
    """Return the path inside a drop of the table that its drop.json names, if it is a file of the drop."""
    table = shared.get(TABLE)
    file = table.get("file") if isinstance(table, dict) else None
    if not isinstance(file, str) or ".." in PurePosixPath(file).parts or PurePosixPath(file).is_absolute():
        return set()
    return {file} if (root / file).is_file() and not (root / file).is_symlink() else set()


def _is_header(name: str) -> bool:
    return name.lower().endswith(".hea")

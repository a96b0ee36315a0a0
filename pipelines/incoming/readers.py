"""The one reader of files from outside: what `ecg inspect`, `ecg embed`, `ecg check-drop` and drops read, and how.

A format is a reader in a module beside this one, and its endings in `ARRAYS` or in `_place`. Vendors' formats are known
by their first bytes, whatever the file is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from pipelines.formats.vendor.read import recognize_file
from pipelines.formats.vendor.recognize import ENDINGS, Unread
from pipelines.incoming import array_files, vendor_files, wfdb_files
from pipelines.incoming.by_path import ByPath, names_in_several_folders, patient_level
from pipelines.incoming.drop import SHARED, Drop, Origins, PatientKey, RecordOrigin
from pipelines.records import DropReason, Record, RecordError

Read = Callable[[Drop, PurePosixPath], Origins]
_Place = tuple[str, str, Read]
"""Of a file that is read: kind and part (as of a `Part`), and how it is read."""

ARRAYS: dict[str, tuple[str, Read]] = {
    ".npy": ("NumPy", array_files.read_npy),
    ".npz": ("NumPy", array_files.read_npz),
    ".h5": ("HDF5", array_files.read_hdf5),
    ".hdf5": ("HDF5", array_files.read_hdf5),
    ".csv": ("csv", array_files.read_csv_file),
}
"""Kind and reader of files that a JSON beside them describes, by their ending."""
IGNORED = {
    "list of files or checksums": re.compile(
        r"(records|annotators|(sha\d+|md5)(sums?)?)([-_.]\w+)*|.*\.(sha\d+|md5)", re.IGNORECASE
    ),
    "table of records": re.compile(
        r"(metadata|reference|labels?|exams|attributes_?dictionary|ptbxl_database|scp_statements|record_list|"
        r"machine_measurements|waveform_note_links|diagnostics|conditionnames_snomed-ct|dx_mapping\w*)\.csv",
        re.IGNORECASE,
    ),
    "left by an operating system": re.compile(r"thumbs\.db|desktop\.ini|\._.*", re.IGNORECASE),
    "text": re.compile(r"[^.]*|.*\.(txt|md|pdf|html?|log|rst)", re.IGNORECASE),
}
"""Names of files that hold no ECG, by what they are. A text is none of them if it holds numbers, or is not text."""
ELSEWHERE = {
    "an archive": ((".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".tgz"), "unpack it into the drop"),
    "a spreadsheet": ((".xlsx", ".xls", ".ods"), "save it as csv, a column a lead"),
    "a table": ((".parquet", ".feather", ".arrow"), "write its numbers with numpy.save, or as csv"),
    "a pickle, which is never opened": ((".pkl", ".pickle", ".joblib", ".pt"), "write its array with numpy.save"),
}
"""Files that may hold ECGs in a form that is not read, by their endings, and what to do."""
_ONE_A_FILE = ("NumPy", "HDF5")  # kinds whose files hold many records, so that each is reported alone
_ZARR = ".zarr"
_HEAD = 4096
_FEWEST_NUMBERS = 8  # fewer are no ECG
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Records that are reported together: those of one file, or all of one kind in a folder with one file each."""

    kind: str
    """WFDB, NumPy, HDF5, csv, a vendor's format, or why it is not read."""
    where: str
    """The file, or `folder/*.ending`."""
    read: Callable[[], Origins]


@dataclass(frozen=True)
class Contents:
    """What a drop holds: parts that are read, or refused with a reason, and files that are left out by a rule."""

    parts: tuple[Part, ...]
    ignored: tuple[tuple[str, str], ...]
    """Path and rule of each."""
    no_row: str | None
    """The note of a record without a row in the table of drop.json; None if there is no table."""


def contents(root: Path, paths: Sequence[str], key: PatientKey | None = None) -> Contents:
    """Return what the folder root holds in its files `paths`. Each is read with a part, or among the ignored ones.

    Nothing else of the folder is read. Raises ValueError if drop.json, on which all files depend, cannot be used.
    """
    drop = Drop.of(root, paths, key)
    placed = {path: _place(drop, path) for path in map(PurePosixPath, sorted(paths))}
    read_files = {path: place for path, place in placed.items() if isinstance(place, tuple)}
    by_path = ByPath(_shared_names(drop, read_files), patient_level(drop.shared, SHARED))
    readers: dict[tuple[str, str], list[Callable[[], Origins]]] = {}
    for path, (kind, where, read) in read_files.items():
        of_part = readers.setdefault((kind, where), [])
        if kind != _ZARR or not of_part:  # a store is one thing, however many files it has
            of_part.append(partial(_guarded, drop, path, kind, read, by_path))
    ignored = [(str(path), place) for path, place in placed.items() if isinstance(place, str)]
    found = tuple(Part(kind, where, partial(_in_turn, each)) for (kind, where), each in readers.items())
    return Contents(found, tuple(ignored), drop.table.no_row if drop.table is not None else None)


def read_file(file: Path, key: PatientKey | None = None) -> Origins:
    """Yield the records of one file, as a drop with it would give them.

    What lies beside it is read with it: the files of a WFDB record, its JSON, and the nearest drop.json in its folder
    or above. Raises ValueError if it is none of the formats, and as `contents` does.
    """
    folder = file.resolve().parent
    root = next((each for each in (folder, *folder.parents) if (each / SHARED).is_file()), folder)
    beside = [each for each in sorted(folder.iterdir()) if each.is_file() and each.stem == file.stem]
    paths = {each.relative_to(root).as_posix() for each in beside}
    drop = Drop.of_one_file(root, paths, key)
    path = PurePosixPath((folder / file.name).relative_to(root).as_posix())
    placed = _place(drop, path, alone=True)
    if placed is None or isinstance(placed, str):
        raise ValueError(f"{file}: it holds no ECG ({placed or 'it describes others'}): give the file of signals")
    kind, _, read = placed
    yield from _guarded(drop, path, kind, read, ByPath(level=patient_level(drop.shared, SHARED)))


def _in_turn(readers: Sequence[Callable[[], Origins]]) -> Origins:
    for reader in readers:
        yield from reader()


def _shared_names(drop: Drop, read_files: Mapping[PurePosixPath, _Place]) -> frozenset[str]:
    """Return the names of files in several folders, of those whose record is called by its file."""
    candidates = [path for path, (kind, *_) in read_files.items() if kind == "WFDB" or path.suffix.lower() in ARRAYS]
    shared = names_in_several_folders(candidates)
    return names_in_several_folders(
        path for path in candidates if path.stem in shared and _is_called_by_file(drop, path, *read_files[path])
    )


def _is_called_by_file(drop: Drop, path: PurePosixPath, kind: str, where: str, read: Read) -> bool:
    """Whether a file's record has the file's name: of arrays, the first record tells, unless nothing states ids."""
    if kind == "WFDB" or (kind == "csv" and drop.beside(path, ".json") is None):
        return True
    first = next(_guarded(drop, path, kind, read, ByPath()), None)
    return first is not None and first.item.record_id == path.stem


def _guarded(drop: Drop, path: PurePosixPath, kind: str, read: Read, by_path: ByPath) -> Origins:
    """Yield a file's records; one dropped record, named after the file, if the whole file cannot be read."""
    header = drop.beside(path, ".hea") if kind == "WFDB" else None
    shown = header or path
    try:
        for origin in read(drop, path):
            item = by_path.called(path, origin.item)
            if isinstance(item, Record):
                item = by_path.with_patient(path, drop.with_person(item, path))
            yield replace(origin, item=item, form=origin.form or kind, file=str(shown))
    except RecordError as error:
        yield RecordOrigin(error.dropped(str(path)), form=kind, file=str(shown))


def _place(drop: Drop, path: PurePosixPath, *, alone: bool = False) -> _Place | str | None:
    """Return the part that a file belongs to and how it is read, or the rule by which it is ignored.

    None: it is read with another file. alone: it is asked for by name, as the only one.
    """
    if drop.table is not None and str(path) == drop.table.file:
        return None
    if store := next((str(parent) for parent in path.parents if parent.suffix == _ZARR), None):
        return _ZARR, store, _zarr
    if path.suffix.lower() in wfdb_files.ENDINGS:
        # The first of a record's files represents it.
        files = [drop.beside(path, ending) for ending in wfdb_files.ENDINGS]
        first = min(file for file in files if file is not None)
        if not alone and (path != first or str(files[0] or path) in drop.named_by_headers):
            return None
        return "WFDB", _all_of(path.with_suffix(".hea")), wfdb_files.read
    if IGNORED["table of records"].fullmatch(path.name) and not alone:
        return "table of records"
    if (found := ARRAYS.get(path.suffix.lower())) is not None:
        kind, read = found
        return kind, str(path) if kind in _ONE_A_FILE else _all_of(path), read
    if path.suffix.lower() == ".json":
        described = not drop.endings[path.with_suffix("")].isdisjoint(ARRAYS)
        return None if str(path) == SHARED or described else ("description", str(path), _no_data)
    if str(path) in drop.named_by_headers:
        return None
    if drop.beside(path, ".hea") is not None:
        return "annotations of a WFDB record"
    return _by_content(drop, path)


def _by_content(drop: Drop, path: PurePosixPath) -> _Place | str:
    """Place a file whose ending says nothing."""
    kind = recognize_file(drop.root / path)
    if isinstance(kind, Unread):
        return kind.what if kind.ignored else ("unknown", _all_of(path), vendor_files.read)
    if kind is not None:
        return kind.value, _all_of(path), vendor_files.read
    rule = next((rule for rule, names in IGNORED.items() if names.fullmatch(path.name)), None)
    if rule == "text":
        head = _head(drop.root / path)
        if _is_numbers(head):
            return "unknown", _all_of(path), _numbers
        rule = None if b"\0" in head and not head.startswith(b"%PDF") else rule
    return rule or ("unknown", _all_of(path), _unknown)


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(_HEAD)


def _is_numbers(head: bytes) -> bool:
    """Whether a text is one of numbers, maybe below names or comments: most of its words, and several, are numbers."""
    words = [word for word in re.split(r"[\s,;]+", head.decode("latin-1")) if word]
    numbers = sum(_NUMBER.fullmatch(word) is not None for word in words)
    return numbers >= _FEWEST_NUMBERS and 2 * numbers > len(words)


def _no_data(drop: Drop, path: PurePosixPath) -> Origins:
    raise RecordError(
        DropReason.FILE_MISSING,
        f"nothing that {path.name} describes lies beside it (WFDB headers say all themselves): drop both, or remove it",
    )


def _numbers(drop: Drop, path: PurePosixPath) -> Origins:
    raise RecordError(
        DropReason.UNKNOWN_FORMAT,
        f"{path.name}: a text of numbers: if it is an ECG, put the leads' names into a first line, with commas "
        "between, and call it .csv; else take it out",
    )


def _zarr(drop: Drop, path: PurePosixPath) -> Origins:
    raise RecordError(DropReason.UNKNOWN_FORMAT, f"a Zarr store: write its array with numpy.save, or as HDF5 ({path})")


def _unknown(drop: Drop, path: PurePosixPath) -> Origins:
    ending = path.suffix.lower()
    for what, (endings, remedy) in ELSEWHERE.items():
        if ending in endings:
            raise RecordError(DropReason.UNKNOWN_FORMAT, f"{path.name}: {what}: {remedy}")
    read = ", ".join((*wfdb_files.ENDINGS, *ARRAYS, *ENDINGS))
    raise RecordError(
        DropReason.UNKNOWN_FORMAT, f"{path.name}: read are {read}, and DICOM without an ending: write it as one of them"
    )


def _all_of(path: PurePosixPath) -> str:
    return str(path.with_name(f"*{path.suffix}"))

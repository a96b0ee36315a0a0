"""ECG files and folders of them, outside any partition: what a drop takes, and parts of CODE-15%."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelines.incoming import readers
from pipelines.incoming.drop import Origins, RecordOrigin
from pipelines.incoming.listing import list_drop
from pipelines.records import DroppedRecord, DropReason
from pipelines.sources.code15 import read_part

PART = ".zip"
EXAMS = "exams.csv"


def read_file(path: Path) -> Origins:
    """Yield the records of a file in any format that a drop takes, or of a part of CODE-15%, with exams.csv beside it.

    A record that cannot be read is a DroppedRecord with its reason. Raises ValueError if the file holds no ECG, and if
    a part or its table cannot be used.
    """
    if path.suffix.lower() != PART:
        yield from readers.read_file(path)
        return
    for item in read_part(path, path.with_name(EXAMS)):
        yield RecordOrigin(item, "float, millivolt according to its authors", "CODE-15% part")


def read_path(path: Path) -> Iterator[tuple[Path, RecordOrigin]]:
    """Yield the records of a file, or of all files below a folder, each with its file.

    Raises ValueError as `read_file` and `read_folder` do.
    """
    whole = path.is_dir()
    for reading in read_folder(path) if whole else read_file(path):
        yield (path / reading.file if whole else path), reading


def read_folder(folder: Path) -> Origins:
    """Yield the records of all files below a folder, as a drop of it would give them.

    What a drop refuses, such as a link, is a DroppedRecord. Raises ValueError if its drop.json cannot be used, or if
    there is no file.
    """
    listing = list_drop(folder)
    if not listing.files and not listing.refused:
        raise ValueError(f"{folder}: there is no file in it: give the folder of the ECGs")
    for entry in listing.refused:
        yield RecordOrigin(DroppedRecord(entry.path, DropReason.UNKNOWN_FORMAT, entry.why), file=entry.path)
    for part in readers.contents(folder, [file.path for file in listing.files]).parts:
        yield from part.read()

"""Single ECG files, outside any partition: what a drop takes, and parts of CODE-15%."""

from __future__ import annotations

from pathlib import Path

from pipelines.incoming import readers
from pipelines.incoming.drop import Origins, RecordOrigin
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

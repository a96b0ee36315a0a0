"""Records of a mirror folder that no source reads, such as the challenge's copies of PTB-XL."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from pipelines.download.layout import Layout
from pipelines.sources import SOURCES

_SHARD = re.compile(r"g?\d+", re.ASCII)  # a folder that only divides a collection, as g1 or 00000


def unread_records(folder: Path) -> dict[str, int]:
    """Count the WFDB records below a mirror folder that no source reads, by the collection's path, most first.

    Headers are counted, without opening them; hidden folders and links to folders are not entered. Raises ValueError
    if a source is in several places.
    """
    places = [(source, Layout(source, folder).place()) for source in SOURCES.values()]
    counts: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] != ".")
        headers = [name for name in names if name.endswith(".hea") and name[0] != "."]
        readers = [
            (source, f"{source.root}/{Path(parent).relative_to(place.files).as_posix()}")
            for source, place in places
            if Path(parent).is_relative_to(place.files)
        ]
        unread = [name for name in headers if not any(source.partition_of(f"{at}/{name}") for source, at in readers)]
        if unread:
            counts[_collection(Path(parent).relative_to(folder))] += len(unread)
    return dict(counts.most_common())


def _collection(path: Path) -> str:
    """Return the path of a collection, given that of a folder of its records."""
    while _SHARD.fullmatch(path.name):
        path = path.parent
    return path.as_posix() if path.name else "the mirror's own folder"

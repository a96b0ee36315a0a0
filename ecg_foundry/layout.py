"""What the readers and the writers of a data home agree on. `pipelines.formats.shard` describes a shard's arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

SIGNALS = "ecgs.zarr"
RECORDS_FILE = "records.parquet"
SCHEMA = 2
"""Version of the layout of a shard: an attribute of its Zarr group."""

ECGS = "ecgs"
"""Folder of a space with the harmonized shards, `ecgs/<source>/<partition>/<fingerprint>/`."""
CURRENT = "current"
"""File beside the builds of a product with the name of the folder that was built or requested last."""

_ABSENT = "leads not recorded: "


def pointed(folder: Path) -> str:
    """Return the fingerprint in the folder of a product that was built or requested last; empty if there is none."""
    pointer = folder / CURRENT
    return pointer.read_text(errors="replace").strip() if pointer.is_file() else ""


def absent_note(leads: Sequence[str]) -> str:
    """Return the note of a harmonized record with zeros in `leads`, which were not recorded."""
    return _ABSENT + ", ".join(leads)


def absent_leads(notes: Iterable[str]) -> tuple[str, ...]:
    """Return the leads that a harmonized record's notes say were not recorded; empty if the record is complete."""
    return next((tuple(note.removeprefix(_ABSENT).split(", ")) for note in notes if note.startswith(_ABSENT)), ())

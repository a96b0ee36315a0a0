"""What `ecg gc` lists and removes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.cli.store import store_of
from pipelines.formatting import format_bytes
from pipelines.home import Home
from pipelines.maintenance.garbage import Unreferenced, registered_digests, remove, unreferenced
from pipelines.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Collected:
    """listed: the leftovers. removed: those that went; None where nobody asked for that. versions: registered ones in
    `store`, whose makings stayed."""

    root: Path
    store: str
    versions: int
    listed: Sequence[Unreferenced]
    removed: Sequence[Unreferenced] | None

    def lines(self) -> list[str]:
        """The last lines for people."""
        asked = f"{self.versions} registered versions in {self.store} keep what they were made of"
        if not self.listed:
            return [f"nothing in {self.root} is left over; {asked}"]
        there = f"{len(self.listed)} outputs, {_size(self.listed)}, in {self.root} are left over; {asked}"
        if self.removed is None:
            return [there, "nothing was removed: `ecg gc --delete` removes them"]
        kept = [one for one in self.listed if one not in self.removed]
        return [
            there,
            f"{len(self.removed)} removed, {_size(self.removed)}",
            *(f"kept, since it is asked for again: {one.product} {one.path.name}" for one in kept),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "root": str(self.root),
            "registered_versions": self.versions,
            "leftovers": [
                {**one.to_dict(), "removed": self.removed is not None and one in self.removed} for one in self.listed
            ],
        }


def collect(home: Home, *, delete: bool, unfinished: bool) -> Collected:
    """The leftovers of the home's space, removed where `delete`.

    Raises ValueError where MLflow does not answer, or where `delete` and there is no store to ask for models.
    """
    tracking = store_of(home) if delete else Tracking(uri=home.tracking_uri, artifact_root=home.artifact_root)
    versions, registered = registered_digests(tracking)
    listed = unreferenced(home, registered, unfinished=unfinished)
    return Collected(
        root=home.workspace().root,
        store=tracking.uri,
        versions=versions,
        listed=listed,
        removed=[one for one in listed if remove(home, one)] if delete else None,
    )


def _size(found: Sequence[Unreferenced]) -> str:
    return format_bytes(sum(one.bytes for one in found))

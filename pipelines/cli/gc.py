"""`ecg gc`: list and remove outputs that are no longer needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.home import Home
    from pipelines.maintenance.garbage import InUse, Unreferenced


@click.command("gc")
@click.option("--delete", is_flag=True, help="Remove what is listed.")
@click.option("--unfinished", is_flag=True, help="Also list trainings that were stopped and could be continued.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(delete: bool, unfinished: bool, as_json: bool) -> None:
    """List the outputs that are no longer needed, with their size; with --delete, remove them.

    Kept are current outputs, those that a registered model was made of, those that a running or interrupted build or
    training reads, and everything that these were made of. What is removed is built again when it is needed again.

    \b
    ecg gc
    ecg gc --delete
    """
    from pipelines.cli.console import print_table
    from pipelines.formatting import format_bytes
    from pipelines.home import Home

    home = Home.default()
    with home.alone_removing() if delete else nullcontext():
        collected = collect(home, delete=delete, unfinished=unfinished)
    if as_json:
        click.echo(json.dumps(collected.to_dict(), indent=1))
        return
    if collected.listed:
        rows = [(format_bytes(item.bytes), item.product, item.path.name, item.why) for item in collected.listed]
        print_table(("size", "product", "output", "why"), rows)
    for line in collected.lines():
        click.echo(line)


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The outputs that are no longer needed, and what became of them."""

    root: Path
    store: str
    """The MLflow store that was asked for registered versions."""
    versions: int
    """Registered versions in the store. What they were made of is kept."""
    listed: Sequence[Unreferenced]
    removed: Sequence[Unreferenced] | None
    """Those of `listed` that were removed. None if nothing was to be removed."""
    in_use: Sequence[InUse]
    """Outputs that are kept only because they are read."""

    def lines(self) -> list[str]:
        """Return the last lines for people."""
        in_use = [f"kept, in use by {item.by}: {item.product} {item.path.name}" for item in self.in_use]
        registered = f"{self.versions} registered versions in {self.store} keep what they were made of"
        if not self.listed:
            return [f"nothing in {self.root} is left over; {registered}", *in_use]
        summary = f"{len(self.listed)} outputs, {_size(self.listed)}, in {self.root} are left over; {registered}"
        if self.removed is None:
            return [summary, *in_use, "nothing was removed: `ecg gc --delete` removes them"]
        kept = [item for item in self.listed if item not in self.removed]
        return [
            summary,
            *in_use,
            f"{len(self.removed)} removed, {_size(self.removed)}",
            *(f"kept, since it is needed again: {item.product} {item.path.name}" for item in kept),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "root": str(self.root),
            "registered_versions": self.versions,
            "leftovers": [
                {**item.to_dict(), "removed": self.removed is not None and item in self.removed} for item in self.listed
            ],
        }


def collect(home: Home, *, delete: bool, unfinished: bool) -> Collected:
    """List the home's outputs that are no longer needed, and remove them if `delete`.

    Raises ValueError if MLflow does not answer, or if `delete` and there is no store to ask for models.
    """
    from pipelines.cli.store import existing_store, store_of
    from pipelines.maintenance.garbage import registered_digests, remove, unreferenced

    tracking = existing_store(home) if delete else store_of(home)
    versions, registered = registered_digests(tracking)
    listed, in_use = unreferenced(home, registered, unfinished=unfinished)
    return Collected(
        root=home.workspace().root,
        store=tracking.uri,
        versions=versions,
        listed=listed,
        removed=[item for item in listed if remove(home, item)] if delete else None,
        in_use=in_use,
    )


def _size(items: Sequence[Unreferenced]) -> str:
    from pipelines.formatting import format_bytes

    return format_bytes(sum(item.bytes for item in items))

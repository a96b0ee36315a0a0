"""The versions of the encoder, which of them is pulled, and going back to an earlier one."""

from __future__ import annotations

from pipelines.cli.store import store_of
from pipelines.home import Home
from pipelines.release import Release, aliases_of, rollback, versions_of


def versions(home: Home, name: str) -> list[tuple[str, str, str, str, str]]:
    """A row a version, the newest first: version, aliases, validation score, verdict, and its moves.

    Raises ValueError where the model has none.
    """
    tracking = store_of(home)
    aliases = aliases_of(name=name, tracking=tracking)
    found = [
        (
            str(one.version),
            ", ".join(alias for alias, version in aliases.items() if version == one.version),
            one.tags.get("validation", ""),
            one.tags.get("verdict", "not judged"),
            "; ".join(f"{when}: {what}" for when, what in one.moves.items()),
        )
        for one in versions_of(name=name, tracking=tracking)
    ]
    if not found:
        raise ValueError(f"{name} has no version at {tracking.uri}: release one first, as `make demo` does")
    return found


def go_back(home: Home, name: str, version: int | None, why: str) -> Release:
    """`rollback` in the home's store."""
    return rollback(to=version, why=why, name=name, tracking=store_of(home))

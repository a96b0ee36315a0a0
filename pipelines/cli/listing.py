"""The sources, and what of them is in a data home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.cache import Workspace
from pipelines.download.mirror import Mirror, list_source
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.home import Home
from pipelines.incoming import INCOMING, OwnData
from pipelines.incoming.step import taken_drops
from pipelines.sources import SOURCES
from pipelines.sources.base import Source


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """partitions: all there are. offered: those that a folder mirror has; None where the mirror is none, or all of
    them are downloaded. downloaded, harmonized: those that are here. entered, kept: the records of the harmonized
    ones."""

    source: Source | OwnData
    partitions: tuple[str, ...]
    offered: tuple[str, ...] | None
    downloaded: tuple[str, ...]
    harmonized: tuple[str, ...]
    entered: int
    kept: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        source = self.source
        public = source if isinstance(source, Source) else None
        return {
            "name": source.name,
            "title": source.title,
            "version": source.version,
            "role": source.role.value,
            "licence": self.licence,
            "homepage": public and public.homepage,
            "doi": public and public.doi,
            "citation": public and public.citation,
            "partitions": list(self.partitions),
            "offered": None if self.offered is None else list(self.offered),
            "downloaded": list(self.downloaded),
            "harmonized": list(self.harmonized),
            "entered": self.entered,
            "kept": self.kept,
        }

    @property
    def licence(self) -> str:
        return self.source.licence if isinstance(self.source, Source) else "your own"

    @property
    def part(self) -> str | None:
        """What a folder mirror has, where that is not all: `georgia: g1, g8 (2 of 11)`."""
        if self.offered is None or self.offered == self.partitions:
            return None
        told = f"{', '.join(self.offered)} ({len(self.offered)} of {len(self.partitions)})"
        return f"{self.source.name}: {told if self.offered else 'none'}"


def sources_here(home: Home) -> list[SourceState]:
    """All sources in their order, with what the home's space has of them; own ECGs last, where drops were taken."""
    workspace = home.workspace()
    public = [_state(source, source.partitions, workspace, home.mirror) for source in SOURCES.values()]
    drops = tuple(taken_drops(workspace))
    return [*public, _state(INCOMING, drops, workspace, None)] if drops else public


def _state(
    source: Source | OwnData, partitions: tuple[str, ...], workspace: Workspace, place: str | None
) -> SourceState:
    raw = tuple(key for key in partitions if workspace.current(f"raw/{source.name}/{key}"))
    ecgs = {key: workspace.current(f"ecgs/{source.name}/{key}") for key in partitions}
    shards = {key: product for key, product in ecgs.items() if product is not None}
    facts = [HarmonizedFacts.of(product) for product in shards.values()]
    return SourceState(
        source=source,
        partitions=partitions,
        # A large list takes seconds: none is read of what is here already.
        offered=None if raw == partitions or not isinstance(source, Source) else _offered(source, place),
        downloaded=raw,
        harmonized=tuple(shards),
        entered=sum(one.entered for one in facts),
        kept=sum(one.kept for one in facts),
    )


def _offered(source: Source, place: str | None) -> tuple[str, ...] | None:
    """The partitions that a folder mirror has, none where it or its list cannot be used; None of another mirror."""
    try:
        mirror = Mirror.parse(place)
        return None if mirror.folder is None else tuple(source.available(list_source(source, mirror)))
    except ValueError:  # which a download says in full
        return ()

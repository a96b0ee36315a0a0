"""What a data home has of each source, for `ecg sources`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.cache import Product, Workspace
    from pipelines.harmonize.shards import HarmonizedFacts
    from pipelines.home import Home
    from pipelines.incoming import OwnData
    from pipelines.sources.base import Source


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """A source, and what of it is in a data home."""

    source: Source | OwnData
    partitions: tuple[str, ...]
    """All partitions of the source."""
    offered: tuple[str, ...] | None
    """Partitions that a folder mirror has. None if there is no folder mirror, or if all partitions are downloaded."""
    raw: Mapping[str, Product]
    """The current downloads, by partition."""
    shards: Mapping[str, Product]
    """The current shards, by partition."""

    @property
    def downloaded(self) -> tuple[str, ...]:
        """Partitions that are downloaded."""
        return tuple(self.raw)

    @property
    def harmonized(self) -> tuple[str, ...]:
        """Partitions that are harmonized."""
        return tuple(self.shards)

    @cached_property
    def _facts(self) -> list[HarmonizedFacts]:
        from pipelines.harmonize.shards import HarmonizedFacts

        return [HarmonizedFacts.of(product) for product in self.shards.values()]

    @property
    def entered(self) -> int:
        """Records in the harmonized partitions, before any was dropped."""
        return sum(facts.entered for facts in self._facts)

    @property
    def kept(self) -> int:
        """Records that harmonization kept."""
        return sum(facts.kept for facts in self._facts)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        from pipelines.sources.base import Source

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
            "bytes": public and public.bytes,
            "partitions": list(self.partitions),
            "offered": None if self.offered is None else list(self.offered),
            "downloaded": list(self.downloaded),
            "harmonized": list(self.harmonized),
            "entered": self.entered,
            "kept": self.kept,
        }

    @property
    def licence(self) -> str:
        from pipelines.sources.base import Source

        return self.source.licence if isinstance(self.source, Source) else "your own"

    @property
    def part(self) -> str | None:
        """What a folder mirror has, as in `georgia: g1, g8 (2 of 11)`. Returns None if it has all."""
        if self.offered is None or self.offered == self.partitions:
            return None
        offered = f"{', '.join(self.offered)} ({len(self.offered)} of {len(self.partitions)})"
        return f"{self.source.name}: {offered if self.offered else 'none'}"


def sources_here(home: Home, name: str | None = None) -> list[SourceState]:
    """Return all sources in their order, with what the home has of them; own ECGs last, if drops were taken.

    name: of the source that is wanted alone, whether or not anything of it is here.
    """
    from pipelines.incoming import INCOMING
    from pipelines.incoming.step import taken_drops
    from pipelines.sources import SOURCES

    workspace = home.workspace()
    public = [
        _state(source, source.partitions, workspace, home.mirror)
        for source in SOURCES.values()
        if name in (None, source.name)
    ]
    if name not in (None, INCOMING.name):
        return public
    drops = tuple(taken_drops(workspace))
    return [*public, _state(INCOMING, drops, workspace, None)] if drops or name else public


def _state(
    source: Source | OwnData, partitions: tuple[str, ...], workspace: Workspace, mirror: str | None
) -> SourceState:
    from pipelines.sources.base import Source

    def current(kind: str) -> dict[str, Product]:
        found = {key: workspace.current(f"{kind}/{source.name}/{key}") for key in partitions}
        return {key: product for key, product in found.items() if product is not None}

    raw = current("raw")
    return SourceState(
        source=source,
        partitions=partitions,
        # A large list takes seconds: none is read if all partitions are downloaded.
        offered=None if tuple(raw) == partitions or not isinstance(source, Source) else _offered(source, mirror),
        raw=raw,
        shards=current("ecgs"),
    )


def _offered(source: Source, place: str | None) -> tuple[str, ...] | None:
    """Return the partitions that a folder mirror has, none if it or its list cannot be used.

    Returns None if the mirror is not a folder.
    """
    from pipelines.download.mirror import Mirror, list_source

    try:
        mirror = Mirror.parse(place)
        return None if mirror.folder is None else tuple(source.available(list_source(source, mirror)))
    except ValueError:  # a download prints it in full
        return ()

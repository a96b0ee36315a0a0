"""The sources, and what of them is in a data home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.sources import SOURCES
from pipelines.sources.base import Source
from pipelines.sources.incoming import INCOMING, OwnData
from pipelines.sources.incoming.taking import taken_drops
from pipelines.stage import Workspace


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """partitions: all there are. downloaded, harmonized: those that are here. entered, kept: the records of the
    harmonized ones."""

    source: Source | OwnData
    partitions: tuple[str, ...]
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
            "downloaded": list(self.downloaded),
            "harmonized": list(self.harmonized),
            "entered": self.entered,
            "kept": self.kept,
        }

    @property
    def licence(self) -> str:
        return self.source.licence if isinstance(self.source, Source) else "your own"


def sources_here(workspace: Workspace) -> list[SourceState]:
    """All sources in their order, with what the workspace has of them; own ECGs last, where drops were taken."""
    public = [_state(source, source.partitions, workspace) for source in SOURCES.values()]
    drops = tuple(taken_drops(workspace))
    return [*public, _state(INCOMING, drops, workspace)] if drops else public


def _state(source: Source | OwnData, partitions: tuple[str, ...], workspace: Workspace) -> SourceState:
    raw = [key for key in partitions if workspace.current(f"raw/{source.name}/{key}")]
    ecgs = {key: workspace.current(f"ecgs/{source.name}/{key}") for key in partitions}
    shards = {key: product for key, product in ecgs.items() if product is not None}
    return SourceState(
        source=source,
        partitions=partitions,
        downloaded=tuple(raw),
        harmonized=tuple(shards),
        entered=sum(product.facts["entered"] for product in shards.values()),
        kept=sum(product.facts["kept"] for product in shards.values()),
    )

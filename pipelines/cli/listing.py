"""The sources, and what of them is in a data home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.sources import SOURCES
from pipelines.sources.base import Source
from pipelines.stage import Workspace


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """downloaded, harmonized: partitions that are here. entered, kept: the records of the harmonized ones."""

    source: Source
    downloaded: tuple[str, ...]
    harmonized: tuple[str, ...]
    entered: int
    kept: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        source = self.source
        return {
            "name": source.name,
            "title": source.title,
            "version": source.version,
            "role": source.role.value,
            "licence": source.licence,
            "homepage": source.homepage,
            "doi": source.doi,
            "citation": source.citation,
            "partitions": list(source.partitions),
            "downloaded": list(self.downloaded),
            "harmonized": list(self.harmonized),
            "entered": self.entered,
            "kept": self.kept,
        }


def sources_here(workspace: Workspace) -> list[SourceState]:
    """All sources in their order, with what the workspace has of them."""
    return [_state(source, workspace) for source in SOURCES.values()]


def _state(source: Source, workspace: Workspace) -> SourceState:
    raw = [key for key in source.partitions if workspace.current(f"raw/{source.name}/{key}")]
    ecgs = {key: workspace.current(f"ecgs/{source.name}/{key}") for key in source.partitions}
    shards = {key: product for key, product in ecgs.items() if product is not None}
    return SourceState(
        source=source,
        downloaded=tuple(raw),
        harmonized=tuple(shards),
        entered=sum(product.facts["entered"] for product in shards.values()),
        kept=sum(product.facts["kept"] for product in shards.values()),
    )

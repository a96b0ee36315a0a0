"""One source in full, for `ecg sources NAME`: its terms, how to cite and get it, and each partition that is here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ecg_foundry.soundness import files_of
from pipelines.cache import Product
from pipelines.cli.source_state import SourceState
from pipelines.corpus.left_out import left_out
from pipelines.download.step import RawFacts, is_discarded, recorded_files
from pipelines.formatting import format_bytes
from pipelines.harmonize.shards import HarmonizedFacts
from pipelines.home import Home
from pipelines.incoming import INCOMING
from pipelines.sources.base import Source

PARTITION_COLUMNS = ("partition", "files", "their size", "harmonized", "ECGs kept", "dropped")


@dataclass(kw_only=True)
class OnDisk:
    """What a source takes in a data home, in bytes."""

    raw: dict[Path, int] = field(default_factory=dict)
    """The files in the home, each once: partitions share some."""
    shards: int = 0


def source_lines(home: Home, state: SourceState) -> list[tuple[str, str]]:
    """Return a source's terms and what is here of it, for people, as (name, text)."""
    source, partitions = state.source, len(state.partitions)
    workspace = home.workspace()
    lines = [("source", source.name), ("data set", source.title), ("used for", source.role.value)]
    lines += [("licence", state.licence)]
    if isinstance(source, Source):
        lines += [
            ("version", source.version),
            ("homepage", source.homepage),
            ("DOI", f"https://doi.org/{source.doi}"),
            ("cite", source.citation),
            ("size", f"about {format_bytes(source.bytes)} in {_partitions(partitions)}"),
            ("in a mirror", source.root),
        ]
    disk = _on_disk(home, state)
    lines += [
        ("downloaded", f"{len(state.downloaded)} of {_partitions(partitions)}; {_bytes_here(disk, state)}"),
        ("harmonized", f"{len(state.harmonized)} of {_partitions(partitions)}, {format_bytes(disk.shards)}"),
    ]
    if state.harmonized:
        lines.append(("ECGs kept", f"{state.kept:,} of {state.entered:,}"))
    reasons = Counter(f"{record.reason} ({record.step})" for record in left_out(workspace, source.name))
    if reasons:
        told = ", ".join(f"{count:,} {reason}" for reason, count in reasons.most_common())
        lines += [("left out", told), ("", f"each with its detail: ecg sources {source.name} --dropped")]
    if state.part is not None:
        lines.append(("mirror has", state.part.partition(": ")[2]))
    return [*lines, *_how_to_get(state)]


def partition_rows(state: SourceState) -> list[tuple[str, ...]]:
    """Return a row of PARTITION_COLUMNS for each partition that is here."""
    rows = []
    for partition in state.partitions:
        raw, shard = state.raw.get(partition), state.shards.get(partition)
        if raw is None and shard is None:
            continue
        rows.append((partition, *_raw_cells(raw), *_shard_cells(shard)))
    return rows


def _raw_cells(raw: Product | None) -> tuple[str, str]:
    if raw is None:
        return "", ""
    facts = RawFacts.of(raw)
    size = format_bytes(facts.bytes)
    return f"{facts.files:,}", f"{size}, deleted" if is_discarded(raw) else size


def _shard_cells(shard: Product | None) -> tuple[str, str, str]:
    if shard is None:
        return "", "", ""
    facts = HarmonizedFacts.of(shard)
    dropped = sum(facts.dropped.values())
    return format_bytes(_size_of(shard)), f"{facts.kept:,} of {facts.entered:,}", f"{dropped:,}"


def _on_disk(home: Home, state: SourceState) -> OnDisk:
    disk = OnDisk(shards=sum(map(_size_of, state.shards.values())))
    for raw in state.raw.values():
        disk.raw |= _raw_in_home(raw, home.root)
    return disk


def _raw_in_home(raw: Product, home: Path) -> dict[Path, int]:
    """Return the files of a raw product that lie in the home, with their sizes; none if they are a mirror's."""
    if is_discarded(raw):
        return {}
    root, files = recorded_files(raw)
    return {root / file.path: file.bytes or 0 for file in files} if root.is_relative_to(home) else {}


def _bytes_here(disk: OnDisk, state: SourceState) -> str:
    if disk.raw or not state.downloaded:
        return f"{format_bytes(sum(disk.raw.values()))} of files in the data home"
    return "its files are read in the mirror, or were deleted after harmonization"


def _size_of(product: Product) -> int:
    return sum(path.stat().st_size for path in files_of(product.path).values())


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _how_to_get(state: SourceState) -> list[tuple[str, str]]:
    name = state.source.name
    if name == INCOMING.name:
        return [
            ("get it", "write a drop (docs/own-data.md), then: ecg run download harmonize"),
            ("", "or launch the job harvest_incoming in `make ui`"),
        ]
    lines = [("get it", f"ecg download {name}")]
    if len(state.partitions) > 1:
        lines.append(("", f"ecg download {name} {' '.join(state.partitions[:2])}    # some partitions"))
    lines.append(("harmonize it", f"ecg run download harmonize --partition {name}"))
    return [*lines, ("", f"or launch the job harvest_{name} in `make ui`")]

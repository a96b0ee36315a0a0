"""Check whether a source's list of files, fetched now, is the list that its downloaded partitions were taken by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.download.mirror import Mirror, list_source
from pipelines.download.step import recorded_files
from pipelines.home import Home
from pipelines.sources import SOURCES
from pipelines.sources.base import RemoteFile, Source


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What a source's list says of the partitions that were downloaded."""

    source: str

    taken: tuple[str, ...]
    """Downloaded partitions."""

    changed: tuple[str, ...] = ()
    """Those for which the list now has other files or other checksums."""

    gone: tuple[str, ...] = ()
    """Those for which the list now has no file."""

    followed: bool = False
    """Whether the new list is used from now on."""

    silence: str | None = None
    """Why the list could not be fetched; None if it was."""

    @property
    def unchanged(self) -> bool:
        return not self.changed and not self.gone and self.silence is None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to decide: it is unchanged, or the changes are followed and nothing is gone."""
        return self.unchanged or (self.followed and not self.gone and self.silence is None)

    def in_words(self) -> str:
        if self.silence is not None:
            return f"could not be asked: {self.silence}"
        total = f"{len(self.taken)} partition{'' if len(self.taken) == 1 else 's'}"
        parts = [
            f"{len(partitions)} of {total} {what}: {', '.join(partitions)}"
            for what, partitions in (("changed", self.changed), ("gone", self.gone))
            if partitions
        ]
        if self.changed and self.followed:
            parts.append(f"the new list is taken: now materialize raw/{self.source} {', '.join(self.changed)}")
        return "; ".join(parts) or f"as it was taken ({total})"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "source": self.source,
            "taken": list(self.taken),
            "changed": list(self.changed),
            "gone": list(self.gone),
            "followed": self.followed,
            "unchanged": self.unchanged,
            "silence": self.silence,
        }


def ask(home: Home, name: str | None = None, *, take: bool = False) -> list[Upstream]:
    """Check every source that something was downloaded of, or the named one, against its current list.

    take: use the new lists from now on, so that the next materialization of a changed partition fetches it again;
    otherwise a finished partition stays as it is.

    Only lists are fetched. Raises ValueError if the source is unknown, or if nothing of it was downloaded.
    """
    if name is not None and name not in SOURCES:
        raise ValueError(f"source {name!r}: use one of {', '.join(SOURCES)}")
    results = [_checked(home, source, take) for source in SOURCES.values() if name in (None, source.name)]
    if name is not None and results == [None]:
        raise ValueError(f"nothing of {name} is downloaded in {home.workspace().root}: materialize raw/{name} first")
    return [result for result in results if result is not None]


def _checked(home: Home, source: Source, take: bool) -> Upstream | None:
    """Check one source. Returns None if nothing of it was downloaded."""
    workspace, mirror = home.workspace(), Mirror.parse(home.mirror)
    taken = {key: workspace.current(f"raw/{source.name}/{key}") for key in source.partitions}
    files = {key: _checksums(recorded_files(product)[1]) for key, product in taken.items() if product is not None}
    if not files:
        return None
    try:
        listing = list_source(source, mirror)  # no local copy is used, so an unreachable host is an error
        if take:
            list_source(source, mirror, raw_root=home.raw_root)
    except (ConnectionError, ValueError) as error:
        return Upstream(source=source.name, taken=tuple(files), silence=str(error))
    listed = {key: _checksums(source.files_of(listing, key)) for key in files}
    return Upstream(
        source=source.name,
        taken=tuple(files),
        changed=tuple(key for key in files if listed[key] and listed[key] != files[key]),
        gone=tuple(key for key in files if not listed[key]),
        followed=take,
    )


def _checksums(files: Sequence[RemoteFile]) -> frozenset[tuple[str, str]]:
    return frozenset((file.path, file.checksum) for file in files)

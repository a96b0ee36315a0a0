"""Whether upstream still is what was taken: a source's list of files with their checksums, asked for anew."""

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
    """What a source's list says of the partitions that were taken. changed: those of which it names other files, or
    other bytes. gone: those of which it names none. followed: whether the list is kept from now on. silence: why it
    could not be asked; None where it could."""

    source: str
    taken: tuple[str, ...]
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    followed: bool = False
    silence: str | None = None

    @property
    def unchanged(self) -> bool:
        return not self.changed and not self.gone and self.silence is None

    @property
    def settled(self) -> bool:
        """Whether nothing is left to decide: it is unchanged, or what changed is followed and nothing is gone."""
        return self.unchanged or (self.followed and not self.gone and self.silence is None)

    def in_words(self) -> str:
        if self.silence is not None:
            return f"could not be asked: {self.silence}"
        all_ = f"{len(self.taken)} partition{'' if len(self.taken) == 1 else 's'}"
        told = [
            f"{len(found)} of {all_} {what}: {', '.join(found)}"
            for what, found in (("changed", self.changed), ("gone", self.gone))
            if found
        ]
        if self.changed and self.followed:
            told.append(f"the new list is taken: now materialize raw/{self.source} {', '.join(self.changed)}")
        return "; ".join(told) or f"as it was taken ({all_})"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
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
    """Every source that something was downloaded of, or the named one, against its list as it is now.

    Only lists are fetched. take: the new lists are kept, so that the next materialization of a partition that changed
    fetches it again; else a finished partition stays what it is. Raises ValueError for a source that there is not, and
    for one that nothing was downloaded of.
    """
    if name is not None and name not in SOURCES:
        raise ValueError(f"source {name!r}: use one of {', '.join(SOURCES)}")
    found = [_asked(home, source, take) for source in SOURCES.values() if name in (None, source.name)]
    if name is not None and found == [None]:
        raise ValueError(f"nothing of {name} is downloaded in {home.workspace().root}: materialize raw/{name} first")
    return [one for one in found if one is not None]


def _asked(home: Home, source: Source, take: bool) -> Upstream | None:
    """None where nothing of the source was downloaded."""
    workspace, mirror = home.workspace(), Mirror.parse(home.mirror)
    taken = {key: workspace.current(f"raw/{source.name}/{key}") for key in source.partitions}
    files = {key: _checksums(recorded_files(product)[1]) for key, product in taken.items() if product is not None}
    if not files:
        return None
    try:
        listing = list_source(source, mirror)  # without a place to keep it, a host that is away is an error
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

"""Which partitions `ecg run` downloads and harmonizes.

Named by `--partition SOURCE/PART`, or `--partition SOURCE` for all of a source. If none is named: with a mirror, all
that it has; with the original hosts, which have far more than most people want, what was downloaded before; and the
complete drops of own ECGs. Harmonized is what is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.cache import Workspace
from pipelines.home import Home
from pipelines.incoming.listing import NAME, check_name
from pipelines.sources import SOURCES


class Partition(NamedTuple):
    """A partition of a source, or a drop of own ECGs."""

    source: str
    key: str

    def __str__(self) -> str:
        return f"{self.source}/{self.key}"


def to_download(home: Home, named: Sequence[str], note: Callable[[str], None]) -> list[Partition]:
    """Return the partitions to download. note: gets what is left out, and why.

    Raises ValueError for a name that is none, and if there is nothing to download.
    """
    if named:
        return _each([_named(text, lambda source: _offered(home, source)) for text in named])
    found = _of_sources(home, note) + _drops(home, note)
    if not found:
        raise ValueError(_nothing(home))
    return found


def to_harmonize(workspace: Workspace, named: Sequence[str]) -> list[Partition]:
    """Return the downloaded partitions. Raises ValueError if there is none, or a named one is not among them."""
    here = downloaded(workspace)
    if not here:
        raise ValueError("nothing is downloaded: run `ecg run download` first")
    if not named:
        return here
    wanted = _each([_named(text, lambda source: [one.key for one in here if one.source == source]) for text in named])
    absent = [one for one in wanted if one not in here]
    if absent or not wanted:
        which = absent[0] if absent else named[0]
        raise ValueError(f"no raw/{which}: run `ecg run download --partition {which}` first")
    return wanted


def downloaded(workspace: Workspace) -> list[Partition]:
    """Return the partitions whose raw files were downloaded, and the drops that were taken, in order."""
    pointers = workspace.root.glob("raw/*/*/current")
    found = {Partition(path.parent.parent.name, path.parent.name) for path in pointers}
    order = [*SOURCES, NAME]
    return sorted((one for one in found if one.source in order), key=lambda one: (order.index(one.source), one.key))


def _of_sources(home: Home, note: Callable[[str], None]) -> list[Partition]:
    from pipelines.download.mirror import Mirror, absent, list_source

    if home.mirror is None:
        return [one for one in downloaded(home.workspace()) if one.source != NAME]
    mirror, found = Mirror.parse(home.mirror), []
    for source in SOURCES.values():
        keys = source.available(list_source(source, mirror, raw_root=home.raw_root))
        if not keys:
            note(f"{source.name}: {absent(source, mirror)}")
        found += [Partition(source.name, key) for key in keys]
    return found


def _drops(home: Home, note: Callable[[str], None]) -> list[Partition]:
    from pipelines.incoming.bucket import place_of
    from pipelines.incoming.listing import complete_drops

    place = place_of(home.incoming)
    if not place.is_there():
        return []
    names = [drop.name for drop in complete_drops(place)]
    if names and home.simulated:
        note(f"own ECGs are not mixed with simulated ones, so drops are left out: {', '.join(names)}")
        return []
    return [Partition(NAME, name) for name in names]


def _nothing(home: Home) -> str:
    if home.mirror is None:
        return (
            "nothing to download was named, and the original hosts have tens of gigabytes: name partitions, as in "
            "--partition ludb or --partition chapman/01 (`ecg sources` lists the sources), or take a mirror with "
            "`ecg mirror FOLDER|URL`"
        )
    return f"nothing to download: the mirror {home.mirror} has no partition of any source: see `ecg mirror`"


def _offered(home: Home, source: str) -> list[str]:
    """Return the partitions of a source that the mirror has, or the complete drops."""
    from pipelines.cli.download import requested_partitions

    if source == NAME:
        return [one.key for one in _drops(home, lambda text: None)]
    return requested_partitions(home, source, ())[1]


def _named(text: str, all_of: Callable[[str], list[str]]) -> list[Partition]:
    """Return the partitions that a user names by `SOURCE/PART`, or by `SOURCE` for all of it."""
    source, slash, key = text.partition("/")
    if source not in (*SOURCES, NAME):
        raise ValueError(f"--partition {text}: no source {source!r}: use one of {', '.join((*SOURCES, NAME))}")
    if not slash:
        return [Partition(source, one) for one in all_of(source)]
    if source == NAME:
        return [Partition(source, check_name(key))]
    known = SOURCES[source].partitions
    if key not in known:
        raise ValueError(f"--partition {text}: {source} has no partition {key!r}: use one of {', '.join(known)}")
    return [Partition(source, key)]


def _each(lists: Sequence[Sequence[Partition]]) -> list[Partition]:
    """Return all partitions, each once, in the order in which they were named."""
    return list(dict.fromkeys(one for several in lists for one in several))

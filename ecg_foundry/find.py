"""Find harmonized shards by a name, `ptbxl` or `ptbxl/00000`, or by a path."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ecg_foundry.data_sets import DATA_SETS, INCOMING
from ecg_foundry.layout import CURRENT, ECGS, SIGNALS, pointed
from ecg_foundry.place import SIMULATED_SPACE, chosen_mirror, default_root, is_simulated, space_of, spaces_in
from ecg_foundry.soundness import read_done

_NAME = re.compile(r"(?:ecgs/)?(?P<source>\w[\w-]*)(?:/(?P<partition>\w[\w.-]*))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Harmonized shards of one source."""

    source: str
    shards: dict[str, Path]
    """Their folders by partition, in the source's order."""
    simulated: bool


def find(what: str | Path, home: str | Path | None) -> Found:
    """Return the current shards that a name or a path means.

    what: `<source>` or `<source>/<partition>` of the home's space in use; or the folder of a shard, of a partition or
        of a source, as a Path or as a text that begins with `/`, `.` or `~`
    home: the data home; None for ECG_HOME, or `var`

    Raises ValueError, naming what is there, if there are none; Damaged if a shard's files are not as written.
    """
    if isinstance(what, Path) or what.startswith(("/", ".", "~")):
        return _of_path(Path(what).expanduser())
    named = _NAME.fullmatch(what.rstrip("/"))
    if named is None:
        raise ValueError(f"ECGs {what!r}: name a source (ptbxl), a partition (ptbxl/00000) or a drop ({INCOMING}/NAME)")
    root = Path(home or default_root()).expanduser().resolve()
    if not root.is_dir():
        raise ValueError(f"data home {root}: no such folder; set ECG_HOME, or give home=, or make one: make demo")
    mirror = chosen_mirror(root, os.environ.get("ECG_MIRROR"))
    space = root / space_of(root, mirror)
    source, partition = named["source"], named["partition"]
    shards = _of_source(space / ECGS / source)
    if not shards:
        raise ValueError(_unknown_source(source, space))
    if partition is not None and partition not in shards:
        raise ValueError(
            f"partition {partition!r} of {source} is not harmonized in {space}; these are: {_listed(shards)}. For "
            f"others, {_remedy(source)}"
        )
    chosen = shards if partition is None else {partition: shards[partition]}
    return Found(source=source, shards=chosen, simulated=is_simulated(root, mirror))


def _of_source(folder: Path) -> dict[str, Path]:
    """Return the current shards in the folder of a source, `g2` before `g10`."""
    found = {partition.name: _current(partition) for partition in sorted(folder.glob("*"), key=_in_order)}
    return {name: shard for name, shard in found.items() if shard is not None}


def _in_order(partition: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", partition.name)]


def _current(partition: Path) -> Path | None:
    """Return the current shard in the folder of a partition; None if there is none. Raises Damaged."""
    fingerprint = pointed(partition)
    shard = partition / fingerprint
    return shard if fingerprint and read_done(shard, f"{ECGS}/{partition.parent.name}/{partition.name}") else None


def _of_path(path: Path) -> Found:
    """Return the shards in a folder: of a source, of a partition, or one shard."""
    folder = path.resolve()
    folder = folder.parent if folder.name == SIGNALS else folder
    if (folder / SIGNALS).is_dir():
        done = read_done(folder, folder.parent.name)
        # A shard that was copied out of a home is in no folder to go by.
        _, source, partition = (done or {}).get("product", f"{ECGS}/{folder.name}/").split("/")
        shards, of_source = {partition: folder}, folder.parent.parent
    elif (shard := _current(folder)) is not None:
        source, shards, of_source = folder.parent.name, {folder.name: shard}, folder.parent
    else:
        source, shards, of_source = folder.name, _of_source(folder), folder
    if not shards:
        raise ValueError(
            f"{path}: no harmonized ECGs; give the folder of a shard (it holds {SIGNALS}), of a partition or of a "
            f"source in a data home (HOME/SPACE/{ECGS}/SOURCE), or a name such as ptbxl"
        )
    return Found(source=source, shards=shards, simulated=of_source.parent.parent.name == SIMULATED_SPACE)


def _unknown_source(source: str, space: Path) -> str:
    """Say that there are no ECGs of a source, what there is, and what to do."""
    here = Counter(pointer.parent.parent.name for pointer in sorted((space / ECGS).glob(f"*/*/{CURRENT}")))
    told = _listed(f"{name} ({count})" for name, count in here.items()) or "none"
    text = f"source {source!r} has no harmonized ECGs in {space}; sources with their partitions here: {told}. "
    others = [other.name for other in spaces_in(space.parent) if any((other / ECGS / source).glob(f"*/{CURRENT}"))]
    if others:
        return f"{text}It is in {_listed(others)}: choose its place with `ecg mirror`, or by ECG_MIRROR"
    if (space / ECGS / INCOMING / source).is_dir():
        return f"{text}A drop is called {INCOMING}/{source}"
    if source in DATA_SETS or source == INCOMING:
        return f"{text}To have it, {_remedy(source)}"
    return f"{text}There is no such source: use one of {_listed(DATA_SETS)}, or {INCOMING}/DROP for own ECGs"


def _remedy(source: str) -> str:
    return (
        f"run `ecg run download harmonize --partition {source}` where the pipeline is, or materialize {ECGS}/{source} "
        "in its UI"
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)

"""A mirror of all sources in their native layouts with simulated ECGs, to be read by the code for the real sources.

    dest/SIMULATED.json               seed, sizes, version, counts, planted defects
    dest/physionet.org/files/...      ecg-arrhythmia, challenge-2020, ptb-xl, ludb
    dest/zenodo.org/...               CODE-15

Real collections have defects; some are planted here, each listed in the summary, so that a demo shows what is dropped.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pipelines import durable
from pipelines.disk_space import full_disk_explained
from pipelines.locks import exclusive
from pipelines.simulate import code15 as zenodo
from pipelines.simulate import physionet, ptbxl
from pipelines.simulate.mirror_tree import Defect, Tree

VERSION = "1"
MARK = "SIMULATED.json"

OnSimulated = Callable[[str, int, int], None]
"""Called with a source's name, the number of records written, and their total number."""


@dataclass(frozen=True, kw_only=True)
class MirrorSizes:
    """The number of records of each partition. An empty tuple (or 0) omits the source."""

    chapman: tuple[int, ...] = (300, 300, 300)  # partitions 01, 02, ...
    code15: tuple[int, ...] = (300, 300)  # parts 0, 1, ...; the dummy rows not counted
    ptbxl: tuple[int, ...] = (400, 400, 400)  # folders 00000, 01000, ... at 500 and at 100 Hz
    cpsc2018: tuple[int, ...] = (72, 72, 72, 72, 72, 72, 72)  # folders g1, g2, ...
    georgia: tuple[int, ...] = (30, 30)  # folders g1, then g8, g9, ...
    ludb: int = 20  # in total: it has one partition

    def __post_init__(self) -> None:
        for name, limit, partitions in (
            ("chapman", 1000, 46),
            ("code15", 20000, 18),
            ("ptbxl", 999, 22),
            ("cpsc2018", 999, 7),
            ("georgia", 500, 5),
        ):
            sizes = getattr(self, name)
            if len(sizes) > partitions or not all(1 <= size <= limit for size in sizes):
                raise ValueError(f"{name}={sizes}: give at most {partitions} partitions of 1 to {limit} records")
        if not 0 <= self.ludb <= 200:
            raise ValueError(f"ludb={self.ludb}: use 0 to 200 records")


@dataclass(frozen=True, kw_only=True)
class MirrorSummary:
    """What a mirror contains."""

    path: Path
    seed: int
    records: Mapping[str, int]  # by source
    defects: Mapping[str, Mapping[str, Sequence[str]]]  # the ids of records by source and kind
    bytes: int

    def count(self, source: str, kind: Defect) -> int:
        """Return the number of a source's records with this defect."""
        return len(self.defects.get(source, {}).get(kind, ()))


class Writer(Protocol):
    """A function that writes the records of one source, calling `tick` after each."""

    def __call__(self, tree: Tree, sizes: Any, seed: int, tick: Callable[[], None], /) -> None: ...


_WRITERS: dict[str, Writer] = {
    "chapman": physionet.write_chapman,
    "code15": zenodo.write_code15,
    "ptbxl": ptbxl.write_ptbxl,
    "cpsc2018": physionet.write_cpsc2018,
    "georgia": physionet.write_georgia,
    "ludb": physionet.write_ludb,
}


def write_mirror(
    dest: Path | str, *, seed: int = 0, sizes: MirrorSizes | None = None, progress: OnSimulated | None = None
) -> MirrorSummary:
    """Write the mirror; the same seed and sizes give the same bytes.

    It is written to a folder next to `dest` and renamed when complete. A simulated mirror at `dest` is replaced. Raises
    ValueError if `dest` is anything else.
    """
    with _locked(Path(dest)):
        return _write_mirror(Path(dest), seed, sizes or MirrorSizes(), progress)


@contextmanager
def _locked(dest: Path) -> Iterator[None]:
    """Hold a lock beside a mirror, so that of two processes that write it one waits for the other."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    lock = dest.with_name(f".{dest.name}.lock")
    with exclusive(lock, f"the mirror {dest}"):
        try:
            yield
        finally:
            lock.unlink()  # nothing stays beside a mirror; one who waits notices and makes the file again


def _write_mirror(dest: Path, seed: int, sizes: MirrorSizes, progress: OnSimulated | None) -> MirrorSummary:
    if dest.exists() and not (dest / MARK).is_file():
        raise ValueError(f"dest={dest}: exists and is no simulated mirror; give a new folder, or remove it yourself")
    partial = dest.with_name(f"{dest.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with full_disk_explained(partial):
            tree = _write_tree(partial, seed, sizes, progress)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    durable.flush_tree(partial)
    if dest.exists():
        old = dest.with_name(f"{dest.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        dest.rename(old)
        durable.replace(partial, dest)
        shutil.rmtree(old)
    else:
        durable.replace(partial, dest)
    return _summary(dest, tree)


def ensure_mirror(
    dest: Path | str, *, seed: int = 0, sizes: MirrorSizes | None = None, progress: OnSimulated | None = None
) -> MirrorSummary:
    """Return the mirror at `dest`; it is written if its seed, sizes or version are others, or if it is absent."""
    dest = Path(dest)
    sizes = sizes or MirrorSizes()
    description = _description(seed, sizes)
    with _locked(dest):
        if (dest / MARK).is_file():
            mark = _marked(dest)
            if {name: mark.get(name) for name in description} == description:
                return _summary(dest, mark)
        return _write_mirror(dest, seed, sizes, progress)


def _marked(dest: Path) -> dict[str, Any]:
    """Return what SIMULATED.json says; nothing if it cannot be read, so that the mirror is written again."""
    try:
        return dict(json.loads((dest / MARK).read_text()))
    except (ValueError, TypeError):
        return {}


def _write_tree(root: Path, seed: int, sizes: MirrorSizes, progress: OnSimulated | None) -> dict[str, Any]:
    """Write all sources and SIMULATED.json, and return the content of that file."""
    tree = Tree(root)
    for name, writer in _WRITERS.items():
        size = getattr(sizes, name)
        if size:
            writer(tree, size, seed, _counter(name, size if isinstance(size, int) else sum(size), progress))
    if tree.below(physionet.CHALLENGE, ".hea"):
        physionet.finish_challenge(tree)
    for project in (physionet.CHAPMAN, physionet.CHALLENGE, physionet.LUDB, ptbxl.PTBXL):
        if tree.below(project, ".hea"):
            tree.write_sums(project)
    defects = {
        source: {str(kind): sorted(ids) for kind, ids in kinds.items()} for source, kinds in tree.defects.items()
    }
    mark = _description(seed, sizes) | {"bytes": tree.bytes, "records": tree.records, "defects": defects}
    tree.write(MARK, json.dumps(mark, indent=1) + "\n")
    return mark


def _counter(name: str, total: int, progress: OnSimulated | None) -> Callable[[], None]:
    """Return a function that reports one more record each time it is called."""
    written = itertools.count(1)
    if progress is None:
        return lambda: None
    return lambda: progress(name, next(written), total)


def _description(seed: int, sizes: MirrorSizes) -> dict[str, Any]:
    """Return what determines the bytes of a mirror, as JSON values."""
    return {
        "what": "synthetic ECGs, simulated by ECG Foundry in the layouts of public data sets; they show no person",
        "version": VERSION,
        "seed": seed,
        "sizes": {name: list(size) if isinstance(size, tuple) else size for name, size in asdict(sizes).items()},
    }


def _summary(dest: Path, mark: dict[str, Any]) -> MirrorSummary:
    return MirrorSummary(
        path=dest, seed=mark["seed"], records=mark["records"], defects=mark["defects"], bytes=mark["bytes"]
    )

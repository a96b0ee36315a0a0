"""What several tests read and is costly to make: one for all processes of a test run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.home import HOSTS, Home
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """Return `place`, a folder made by the first process that asks for it; the others wait. Nobody changes it."""
    done = place.with_name(f"{place.name}.done")
    with FileLock(place.with_name(f"{place.name}.lock")):
        if not done.exists():
            if place.exists():
                shutil.rmtree(place)  # of a process that failed
            place.mkdir()
            make(place)
            done.touch()
    return place


def home_with_ptbxl(root: Path, seed: int = 1) -> None:
    """A simulated mirror of 400 ECGs of PTB-XL, and a data home in which they are harmonized."""
    sizes = MirrorSizes(chapman=(), code15=(), ptbxl=(400,), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(root / "mirror", seed=seed, sizes=sizes)
    workspace, source = Home(root / "home", HOSTS).workspace(), SOURCES["ptbxl"]
    mirror = Mirror.parse(str(root / "mirror"))
    materialize_raw(workspace, source, "00000", mirror=mirror, raw_root=root / "files")
    materialize_ecgs(workspace, source, "00000", limits=QualityLimits())

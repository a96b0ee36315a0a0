"""The folder that a simulated mirror is written to: files with their checksums, and the planted defects."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

NOTICE = (
    "Synthetic ECGs, written by ECG Foundry's simulator in the layout of the data set that the folder is named after.\n"
    "They show no person, and nothing of the data set itself is in them. Use them as you like.\n"
)


class Defect(StrEnum):
    """A defect of the real collections that is planted in the simulated ones."""

    FLAT_LEAD = "flat lead"
    MISSING_SAMPLES = "missing samples"
    TOO_SHORT = "too short"
    EXACT_DUPLICATE = "exact duplicate"
    CHECKSUM_WRONG = "checksum wrong"
    MERGED_RECORD_LINE = "merged record line"
    ZERO_TRACE = "all-zero trace"
    DUMMY_ROW = "dummy row"


class Tree:
    """Writer of files below `root`, by their `wget -r` paths, that records their sha256."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sums: dict[str, str] = {}  # sha256 by path
        self.bytes = 0
        self.records: dict[str, int] = {}  # their number by source
        # The ids of records by source and defect.
        self.defects: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._folders: set[Path] = set()

    def write(self, path: str, data: bytes | str) -> None:
        """Write a file."""
        content = data.encode() if isinstance(data, str) else data
        target = self.root / path
        if target.parent not in self._folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(target.parent)
        target.write_bytes(content)
        self.sums[path] = hashlib.sha256(content).hexdigest()
        self.bytes += len(content)

    def below(self, folder: str, suffix: str) -> list[str]:
        """Return the written paths below a folder that end with `suffix`, relative to it, sorted."""
        prefix = f"{folder}/"
        return sorted(
            path.removeprefix(prefix) for path in self.sums if path.startswith(prefix) and path.endswith(suffix)
        )

    def write_sums(self, project: str) -> None:
        """Write SHA256SUMS.txt as PhysioNet does: the sum, one space, the path; sorted by path, without itself."""
        paths = self.below(project, "")
        self.write(f"{project}/SHA256SUMS.txt", "".join(f"{self.sums[f'{project}/{path}']} {path}\n" for path in paths))

    def plant(self, source: str, defect: Defect, record: str) -> None:
        """Note that a record has a defect."""
        self.defects[source][defect].append(record)


def spread(defects: Sequence[Defect], records: int) -> dict[int, Defect]:
    """Return the defects by the record's position: evenly spread, never the first; none if over half would have one."""
    if records < 2 * len(defects):
        return {}
    return {(place + 1) * records // (len(defects) + 1): defect for place, defect in enumerate(defects)}

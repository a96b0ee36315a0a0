"""Own ECGs written as drops, and what is read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecg_model.leads import LEADS_12
from pipelines.formats.shard import Shard, open_shard
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import Incomplete
from pipelines.incoming import INCOMING
from pipelines.incoming.listing import (
    MARKER,
    list_drop,
)
from pipelines.incoming.readers import contents
from pipelines.records import DroppedRecord, Record

LIMITS = QualityLimits()
MARKED = Incomplete(mark_leads=True)


def ecgs(n: int, leads: int = 12, *, rate: float = 500, seconds: float = 10, seed: int = 0) -> NDArray[np.float64]:
    """Millivolt (n, leads, samples)."""
    return np.random.default_rng(seed).normal(0, 0.3, (n, leads, round(rate * seconds)))


def array_fields(leads: tuple[str, ...] = LEADS_12, **fields: Any) -> dict[str, Any]:
    return {"rate": 500, "leads": list(leads), "units": "mV", **fields}


def describe(path: Path, **fields: Any) -> None:
    path.with_suffix(".json").write_text(json.dumps(fields))


def write_npy(path: Path, x: NDArray[Any], **fields: Any) -> None:
    np.save(path, x)
    describe(path, **{"ids": [f"{path.stem}{at}" for at in range(len(x))], **fields})


def read(folder: Path) -> list[Record | DroppedRecord]:
    return [
        one.item
        for part in contents(folder, [file.path for file in list_drop(folder).files]).parts
        for one in part.read()
    ]


def records(folder: Path) -> list[Record]:
    found = read(folder)
    assert [item for item in found if isinstance(item, DroppedRecord)] == []
    return [item for item in found if isinstance(item, Record)]


def only_drop(folder: Path) -> DroppedRecord:
    (item,) = read(folder)
    assert isinstance(item, DroppedRecord)
    return item


def shard_of(folder: Path, out: Path, incomplete: Incomplete = MARKED) -> Shard:
    harmonize(read(folder), out, source=INCOMING.name, limits=LIMITS, incomplete=incomplete)
    return open_shard(out)


def reasons(shard: Shard) -> dict[str, str]:
    return {row["record_id"]: row["reason"] for row in shard.drops().to_pylist()}


def complete(folder: Path) -> Path:
    (folder / MARKER).touch()
    return folder

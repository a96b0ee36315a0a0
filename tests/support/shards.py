"""Small shards of random records."""

from pathlib import Path
from typing import Any

import numpy as np

from pipelines.cache import Product, Workspace
from pipelines.formats.shard import QUALITY
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.records import DroppedRecord, Record

LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def record(name: str, *, seed: int, patient: str | None = None) -> Record:
    signal_LT = np.random.default_rng(seed).normal(0, 0.3, (8, 2500)).astype(np.float32)
    return Record(record_id=name, signal_LT=signal_LT, leads=LEADS, rate=250.0, patient_id=patient)


def shard(workspace: Workspace, source: str, role: str, records: list[Record | DroppedRecord]) -> Product:
    def make(out: Path) -> dict:
        return {**harmonize(records, out, source=source, limits=QualityLimits()).facts(), "role": role}

    return workspace.build(f"ecgs/{source}/a", version="1", config={"n": len(records)}, inputs={}, make=make)


def row(source: str, record_id: str, **known: Any) -> dict[str, Any]:
    """A record's row in a shard, of nobody known and with nothing to see, but for what is given."""
    nobody = {"patient_id": None, "age": None, "sex": None, "fold": None}
    ecg = {
        "rate": 500.0,
        "samples": 5000,
        "labels": [],
        "notes": [],
        "content_hash": record_id,
        "signature": bytes(128),
    }
    figures = {f"quality_{name}": 0.0 for name in QUALITY}
    return {"source": source, "record_id": record_id, **nobody, **ecg, **figures, **known}

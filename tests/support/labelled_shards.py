"""Harmonized shards of PTB-XL with a few simulated ECGs and labels, made in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.cache import Workspace
from pipelines.formats.shard import ShardWriter
from pipelines.simulate import Diagnosis, simulate
from tests.support.shards import row


def labelled_workspace(root: Path, sizes: tuple[int, ...] = (60,)) -> Workspace:
    """Shards of these sizes; every third ECG has a left bundle branch block (CD), the others are NORM."""
    workspace = Workspace(root)
    for number, size in enumerate(sizes):
        first = sum(sizes[:number])
        workspace.build(
            f"ecgs/ptbxl/{number:05d}",
            version="1",
            config={},
            inputs={},
            make=lambda folder, first=first, size=size: _write(folder, range(first, first + size)),
        )
    return workspace


def _write(folder: Path, records: range) -> dict:
    writer = ShardWriter(folder)
    for i in records:
        block = i % 3 == 0
        diagnosis = Diagnosis.LBBB if block else Diagnosis.SINUS_TACHYCARDIA
        x_LT = simulate([7, i], rate=250, diagnosis=diagnosis).signal_LT[[0, 1, 6, 7, 8, 9, 10, 11], :2500]
        labels = ["CLBBB" if block else "NORM"]
        known = {"patient_id": f"{i}", "rate": 250.0, "samples": 2500, "labels": labels, "fold": i % 10 + 1}
        writer.append(np.round(x_LT * 1000).astype(np.int16), row("ptbxl", f"{i}", **known))
    writer.close()
    return {}

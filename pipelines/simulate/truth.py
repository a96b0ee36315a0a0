"""The truth about a simulated mirror's ECGs, drawn again from the seed and the sizes in its SIMULATED.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipelines.simulate.mirror import MARK, VERSION
from pipelines.simulate.ptbxl import draw_ptbxl
from pipelines.simulate.simulator import SimulatedECG


def ptbxl_truth(mirror: Path) -> Iterator[tuple[str, SimulatedECG]]:
    """Yield the record id and the ECG of each record of the mirror's PTB-XL, without the planted defects.

    Raises ValueError if the folder is not a simulated mirror, or if another version of the simulator wrote it.
    """
    mark = mirror / MARK
    if not mark.is_file():
        raise ValueError(f"mirror {mirror}: no {MARK} there; the truth is known for simulated mirrors only")
    settings = json.loads(mark.read_text())
    if settings.get("version") != VERSION:
        raise ValueError(
            f"mirror {mirror}: simulator version {settings.get('version')} wrote it, this is {VERSION}: write it again"
        )
    for drawn in draw_ptbxl(settings["sizes"]["ptbxl"], settings["seed"]):
        yield str(drawn.ecg_id), drawn.ecg

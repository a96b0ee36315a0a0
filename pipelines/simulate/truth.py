"""The truth about a simulated mirror's ECGs: they are drawn again from the seed and the sizes that its mark names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pipelines.simulate.mirror import MARK, VERSION
from pipelines.simulate.ptbxl import draw_ptbxl
from pipelines.simulate.simulator import SimulatedECG


def ptbxl_truth(mirror: Path) -> Iterator[tuple[str, SimulatedECG]]:
    """Each ECG of the mirror's PTB-XL by its record id, without the defects that were planted in some.

    Raises ValueError where the folder is no simulated mirror, or one of another version of the simulator.
    """
    mark = mirror / MARK
    if not mark.is_file():
        raise ValueError(f"mirror {mirror}: no {MARK} there; the truth is known of ECGs that were simulated here alone")
    about = json.loads(mark.read_text())
    if about.get("version") != VERSION:
        raise ValueError(
            f"mirror {mirror}: written by simulator version {about.get('version')}, this is {VERSION}: write it again"
        )
    for drawn in draw_ptbxl(about["sizes"]["ptbxl"], about["seed"]):
        yield str(drawn.ecg_id), drawn.ecg

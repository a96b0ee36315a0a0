"""Records of the simulated mirror that commands read."""

from __future__ import annotations

import json
from pathlib import Path

CHAPMAN = "physionet.org/files/ecg-arrhythmia/1.0.0/WFDBRecords/01/010"
CODE15 = "zenodo.org/records/4916206/files/exams_part0.zip"


def header(mirror: Path, at: int = 0) -> Path:
    """A record that the simulator planted no defect in."""
    planted = json.loads((mirror / "SIMULATED.json").read_text())["defects"].get("chapman", {})
    faulty = {record for records in planted.values() for record in records}
    return sorted(path for path in (mirror / CHAPMAN).glob("*.hea") if path.stem not in faulty)[at]

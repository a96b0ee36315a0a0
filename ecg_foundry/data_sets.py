"""Title, licence and citation of the public sources, by name: data_sets.json, which tests compare with the pipeline's.

`GOLDEN=rewrite pytest tests/ecg_foundry/test_data_sets.py` writes it from `pipelines.sources`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

INCOMING = "incoming"
"""The source of own ECGs; each of its partitions is a drop."""

FILE = Path(__file__).with_name("data_sets.json")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A public data set, as its hosts describe it."""

    title: str
    version: str
    licence: str
    citation: str
    homepage: str
    doi: str


DATA_SETS = {name: DataSet(**fields) for name, fields in json.loads(FILE.read_text()).items()}

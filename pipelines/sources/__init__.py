"""The public data sets, a file each, all in `SOURCES`. To add one, add its file and name it here.

    base.py          what a source is: its files, partitions and reader; reading csv tables
    demographics.py  age and sex from a source's text
    physionet.py     shared by PhysioNet's projects: SHA256SUMS.txt, WFDB records
    challenge.py     shared by records in the format of the PhysioNet/CinC Challenges
    chapman.py  cpsc2018.py  georgia.py  ludb.py  ptbxl.py  code15.py

`pipelines.download` fetches a source's files, `pipelines.harmonize` reads its records.
"""

from __future__ import annotations

from pipelines.sources.base import Source
from pipelines.sources.chapman import CHAPMAN
from pipelines.sources.code15 import CODE15
from pipelines.sources.cpsc2018 import CPSC2018
from pipelines.sources.georgia import GEORGIA
from pipelines.sources.ludb import LUDB
from pipelines.sources.ptbxl import PTBXL, PTBXL100

SOURCES: dict[str, Source] = {
    source.name: source for source in (CHAPMAN, CODE15, PTBXL, PTBXL100, CPSC2018, GEORGIA, LUDB)
}


def get(name: str) -> Source:
    """Return the source called `name`. Raises ValueError, with all names, if there is none."""
    if name not in SOURCES:
        raise ValueError(f"source {name!r}: use one of {', '.join(SOURCES)}")
    return SOURCES[name]

"""The sources: one file each, all in `SOURCES`. Adding a source is adding a file and naming it here."""

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
    """The source called `name`; ValueError names those there are."""
    if name not in SOURCES:
        raise ValueError(f"source {name!r}: use one of {', '.join(SOURCES)}")
    return SOURCES[name]

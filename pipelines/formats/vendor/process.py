"""Ask the process that decodes vendors' files, of which a program has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.formats.process import Decoder
from pipelines.formats.vendor.limits import MEMORY
from pipelines.formats.vendor.recognize import Kind

_DECODER = Decoder("pipelines.formats.vendor.worker", MEMORY)


def ask(path: Path, kind: Kind) -> tuple[dict[str, Any], bytes]:
    """Return header and samples of a file, as `Decoder.ask` does."""
    return _DECODER.ask(path, {"kind": kind})

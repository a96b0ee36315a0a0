"""Samples of WFDB signal files by the library wfdb, in a process of its own: FLAC, packed bits, several a frame.

The library is given a header of ours and one file, so that it neither parses what a header from outside says nor opens
what that names.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.formats.process import Decoder
from pipelines.formats.wfdb_header import Signal
from pipelines.records import DropReason, RecordError

MEMORY = 1 << 30
"""Address space of the process, bytes; a third of it is Python and the libraries."""
MOST_SAMPLES = 1 << 24
"""Of a signal file, in all of its leads: 12 at 500 Hz for three quarters of an hour."""

_DECODER = Decoder("pipelines.formats.wfdb_worker", MEMORY)


def read_samples(path: Path, signals: Sequence[Signal], frames: int) -> list[NDArray[np.int32]]:
    """Return the samples of all signals of a file, in ADC units, of each as many as it has in `frames` frames.

    Raises RecordError if the library is not installed, or cannot read the file.
    """
    form, offset = signals[0].format, signals[0].offset
    if importlib.util.find_spec("wfdb") is None:
        raise RecordError(
            DropReason.UNKNOWN_FORMAT,
            f"{path.name}: WFDB format {form} needs wfdb: make install, or pip install -e '.[vendor]' in the checkout",
        )
    counts = [frames * signal.per_frame for signal in signals]
    question = {
        "frames": frames,
        "format": form,
        "offset": offset,
        "per_frame": [signal.per_frame for signal in signals],
        "first": [signal.first for signal in signals],
    }
    # Made here, so that nothing is left of it if a file ends the other process.
    with tempfile.TemporaryDirectory(prefix="ecg-wfdb-") as folder:
        _, data = _DECODER.ask(path, {**question, "folder": folder})
    return np.split(np.frombuffer(data, "<i4", sum(counts)), list(accumulate(counts[:-1])))


def library_version() -> str:
    """Return the library and its version, which are part of what read a file."""
    return f"wfdb {version('wfdb')}" if importlib.util.find_spec("wfdb") else "no wfdb"

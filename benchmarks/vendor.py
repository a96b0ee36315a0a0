"""Reading vendors' files in a process of its own, compared with the library alone in this one.

    python -m benchmarks.vendor FOLDER [--rounds 30] --json FILE

FOLDER has files of vendors' formats, in sub-folders or not. The library is ecgdatakit's `FileParser.parse`, for DICOM
pydicom's `waveform_array`, which names no lead. Times are processor time, of both processes together, since two that
take turns wait for each other on a busy machine; ours_wall_ms is by the clock. Both ways read each file in turn; ratio
is the median over rounds, overall_ratio that of the files' medians summed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from ecgdatakit import FileParser

from pipelines.formats.vendor import process
from pipelines.formats.vendor.read import read_vendor, recognize_file
from pipelines.formats.vendor.recognize import Kind


def main() -> None:
    """Print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    kinds = {file: recognize_file(file) for file in sorted(arguments.folder.rglob("*")) if file.is_file()}
    files = {file: kind for file, kind in kinds.items() if isinstance(kind, Kind)}
    figures = measured(files, arguments.rounds)
    arguments.json.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


def measured(files: dict[Path, Kind], rounds: int) -> dict[str, Any]:
    """Return the times of each file, both ways, and the ratio of ours to the library's."""
    rows = {file.name: _times(file, kind, rounds) for file, kind in files.items()}
    total = {way: sum(row[way] for row in rows.values()) for way in ("ours_ms", "library_ms")}
    return {"files": rows, "overall_ratio": total["ours_ms"] / total["library_ms"]}


def _times(file: Path, kind: Kind, rounds: int) -> dict[str, float]:
    for call in (lambda: read_vendor(file), lambda: _library(file, kind)):
        call()  # loads the libraries and starts the process
    ours, wall, library = [], [], []
    for _ in range(rounds):
        start = time.perf_counter()
        ours.append(_milliseconds(lambda: read_vendor(file)))
        wall.append(1000 * (time.perf_counter() - start))
        library.append(_milliseconds(lambda: _library(file, kind)))
    return {
        "ours_ms": statistics.median(ours),
        "ours_wall_ms": statistics.median(wall),
        "library_ms": statistics.median(library),
        "ratio": statistics.median(our / its for our, its in zip(ours, library, strict=True)),
    }


def _library(file: Path, kind: Kind) -> None:
    if kind is Kind.DICOM:
        pydicom.dcmread(file).waveform_array(0)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FileParser.parse(file)


def _milliseconds(call: Callable[[], object]) -> float:
    start = _processor_seconds()
    call()
    return 1000 * (_processor_seconds() - start)


def _processor_seconds() -> float:
    """Return the processor time of this process and of the one that decodes."""
    decoder = process._DECODER._process
    assert decoder is not None
    # Linux' number of the clock of another process's processor time (clock_getcpuclockid).
    return time.process_time() + time.clock_gettime((~decoder.pid << 3) | 2)


if __name__ == "__main__":
    main()

"""The process in which the library wfdb decodes: `python -m pipelines.formats.wfdb_worker`, by `wfdb_library.py`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.formats.wfdb_library import MEMORY
from pipelines.formats.worker import serve

with warnings.catch_warnings(action="ignore"):  # it uses what pandas 3 deprecates
    import wfdb


def answer(question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return no header and the samples as int32, one signal after another."""
    file, folder = Path(question["path"]), Path(question["folder"])
    number, offset = question["format"], question["offset"]
    if number == "61":  # big-endian, which wfdb 4.3 fails to split into signals
        np.fromfile(file, ">i2", offset=offset).astype("<i2").tofile(folder / "r.dat")
        number, offset = "16", 0
    else:
        (folder / "r.dat").symlink_to(file)
    lines = [f"r {len(question['per_frame'])} 1 {question['frames']}"]
    for at, (per_frame, first) in enumerate(zip(question["per_frame"], question["first"], strict=True)):
        lines.append(f"r.dat {number}x{per_frame}+{offset} 1(0)/mV 16 0 {first} 0 0 s{at}")
    (folder / "r.hea").write_text("\n".join(lines) + "\n")
    # Unmoved, since the checksums are those of the samples as they lie in the file.
    record: Any = wfdb.rdrecord(str(folder / "r"), physical=False, smooth_frames=False, ignore_skew=True, return_res=32)
    return {}, b"".join(np.ascontiguousarray(d_T, "<i4").tobytes() for d_T in record.e_d_signal)


def fault(question: dict[str, Any], error: Exception) -> str:
    name = Path(question["path"]).name
    return f"{name}: format {question['format']}: wfdb cannot read it ({type(error).__name__}): fetch it again"


if __name__ == "__main__":
    serve(answer, fault, MEMORY)

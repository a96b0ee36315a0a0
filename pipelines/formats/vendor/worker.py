"""The process that decodes vendors' files: `python -m pipelines.formats.vendor.worker`, started by `process.py`.

It reads requests from its standard input, a line of JSON each, and answers each on its standard output with the length
of a JSON header (4 bytes, big-endian), the header, and the samples as float32. A file can take no more memory than
MEMORY and no more of a processor than SECONDS: beyond the first, Python raises MemoryError or the process ends; beyond
the second, the kernel ends it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.formats.vendor import dicom, kit
from pipelines.formats.vendor.decoded import Decoded
from pipelines.formats.vendor.limits import MEMORY, READY, SECONDS
from pipelines.formats.vendor.recognize import Kind
from pipelines.formats.vendor.warned import plain
from pipelines.records import DropReason, RecordError


def main() -> None:
    """Answer requests until the standard input ends, which it does when the process that asks is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # nothing that a library prints may come between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to end
    kit.find_parsers()
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = MEMORY if allowed == resource.RLIM_INFINITY else min(MEMORY, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write(READY)
    answers.flush()
    os.dup2(nothing, 2)  # a library's texts of one file are nobody's concern
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        header, samples = answer(Path(request["path"]), Kind(request["kind"]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, header, samples)


def answer(path: Path, kind: Kind) -> tuple[dict[str, Any], bytes]:
    """Return the header and the samples that answer a request."""
    try:
        decoded = dicom.decode(path) if kind is Kind.DICOM else kit.decode(path, kind)
    except RecordError as error:
        return {"reason": error.reason, "detail": error.detail}, b""
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            return {"errno": error.errno, "detail": error.strerror}, b""
        # Whatever else a library raises while it reads a file (pydicom: OSError, too) is a fault of that file.
        text = f"{path.name}: {type(error).__name__} ({plain(str(error), path.name)}): export it again"
        return {"reason": DropReason.UNREADABLE_SIGNAL, "detail": text}, b""
    return _header(decoded), decoded.reading.signal_LT.astype("<f4").tobytes()


def _header(decoded: Decoded) -> dict[str, Any]:
    reading = decoded.reading
    return {
        "leads": reading.leads,
        "samples": reading.signal_LT.shape[1],
        "rate": reading.rate,
        "age": reading.age,
        "sex": reading.sex,
        "notes": reading.notes,
        "units": reading.units,
        "form": reading.form,
        "details": reading.details,
        "patient_id": decoded.patient_id,
    }


def _send(answers: BinaryIO, header: dict[str, Any], samples: bytes) -> None:
    text = json.dumps(header).encode()
    answers.write(struct.pack(">I", len(text)) + text)
    answers.write(samples)
    answers.flush()


if __name__ == "__main__":
    main()

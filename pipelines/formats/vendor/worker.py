"""The process that decodes vendors' files: `python -m pipelines.formats.vendor.worker`, started by `process.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.formats.vendor import dicom, kit
from pipelines.formats.vendor.decoded import Decoded
from pipelines.formats.vendor.limits import MEMORY
from pipelines.formats.vendor.recognize import Kind
from pipelines.formats.vendor.warned import plain
from pipelines.formats.worker import serve
from pipelines.records import DropReason, RecordError


def main() -> None:
    """Answer questions of a path and a kind."""
    kit.find_parsers()
    serve(lambda question: answer(Path(question["path"]), Kind(question["kind"])), MEMORY)


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
        "rate": reading.rate,
        "age": reading.age,
        "sex": reading.sex,
        "notes": reading.notes,
        "units": reading.units,
        "form": reading.form,
        "details": reading.details,
        "patient_id": decoded.patient_id,
    }


if __name__ == "__main__":
    main()

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


def main() -> None:
    """Answer questions of a path and a kind."""
    kit.find_parsers()
    serve(answer, fault, MEMORY)


def answer(question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the header and the samples that answer a question."""
    path, kind = Path(question["path"]), Kind(question["kind"])
    decoded = dicom.decode(path) if kind is Kind.DICOM else kit.decode(path, kind)
    return _header(decoded), decoded.reading.signal_LT.astype("<f4").tobytes()


def fault(question: dict[str, Any], error: Exception) -> str:
    """Say what a library raised over a file, without what it quotes of it."""
    name = Path(question["path"]).name
    return f"{name}: {type(error).__name__} ({plain(str(error), name)}): export it again"


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

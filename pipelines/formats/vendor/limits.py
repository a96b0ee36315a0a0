"""What a vendor's file may cost: bytes of each format, and memory of the process that decodes it."""

from __future__ import annotations

from pipelines.formats.limits import MIB
from pipelines.formats.vendor.recognize import Kind

MEMORY = 512 << 20
"""Address space of the process that decodes, bytes; a fifth of it is Python and the libraries."""
MOST_BYTES = {
    Kind.DICOM: 64 * MIB,
    Kind.SCP: 4 * MIB,
    Kind.AECG: 16 * MIB,
    Kind.MUSE: 16 * MIB,
    Kind.PHILIPS: 4 * MIB,  # LZW: what a file unfolds to is about 250 times as large
    Kind.MORTARA: 16 * MIB,
    Kind.ISHNE: 32 * MIB,
    Kind.MFER: 16 * MIB,
    Kind.EDF: 32 * MIB,
}
"""Bytes of a file that is read; real ones are far smaller."""

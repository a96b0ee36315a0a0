"""What a vendor's file may cost: bytes of each format, and memory and time of the process that decodes it."""

from __future__ import annotations

from pipelines.formats.vendor.recognize import Kind

MEMORY = 512 << 20
"""Address space of the process that decodes, bytes; a fifth of it is Python and the libraries."""
SECONDS = 2.0
"""Processor time for a file. Time on the clock would drop files of a busy machine."""
PATIENCE = 120.0
"""Seconds on the clock after which the process is given up."""
READY = b"ready\n"
"""What the process writes when its libraries are loaded."""

_MIB = 1 << 20
MOST_BYTES = {
    Kind.SCP: 4 * _MIB,
    Kind.AECG: 16 * _MIB,
    Kind.MUSE: 16 * _MIB,
    Kind.PHILIPS: 4 * _MIB,  # LZW: what a file unfolds to is about 250 times as large
    Kind.MORTARA: 16 * _MIB,
    Kind.ISHNE: 32 * _MIB,
    Kind.MFER: 16 * _MIB,
    Kind.EDF: 32 * _MIB,
}
"""Bytes of a file that is read, by format; real ones are far smaller. DICOM's limit is in `dicom.py`, since an image
is refused for what it is and not for its size."""

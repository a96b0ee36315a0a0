"""What a vendor's XML states and ecgdatakit does not hand on: rates before rounding, Mindray's patient id.

The library has parsed the document before, and its rounded rate decides which of the numbers found here may count, so
the text is searched and not parsed a second time, which would cost as much as the first.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from pipelines.formats.vendor.recognize import Kind, text_of

_NUMBER = r"\s*([0-9.+-]{1,24})\s*"
_RATES = {
    Kind.MUSE: re.compile(rf"<SampleBase>{_NUMBER}</SampleBase>\s*<SampleExponent>{_NUMBER}<", re.IGNORECASE),
    Kind.PHILIPS: re.compile(rf"samplespersecond=[\"']{_NUMBER}[\"']|<samplingrate>{_NUMBER}<"),
    Kind.MORTARA: re.compile(rf"SAMPLE_FREQ=[\"']{_NUMBER}[\"']"),
}
_MINDRAY = re.compile(r"<PatientID>([^<]{1,200})</PatientID>")


def stated_rate(path: Path, kind: Kind, rounded: float) -> float:
    """Return the rate that a MUSE, Philips or Mortara document writes, if it is `rounded` but for its fraction."""
    rates = {_rate(kind, groups) for groups in _RATES[kind].findall(text_of(path.read_bytes()))}
    fitting = {rate for rate in rates if round(rate) == rounded}
    return fitting.pop() if len(fitting) == 1 else rounded


def mindray_patient(path: Path) -> str:
    """Return the text of Mindray's own element PatientID in an aECG, or empty text."""
    found = _MINDRAY.search(text_of(path.read_bytes()))
    return html.unescape(found[1]) if found else ""


def _rate(kind: Kind, groups: str | tuple[str, ...]) -> float:
    """Return a rate as a number, 0 if it is none."""
    texts = [groups] if isinstance(groups, str) else list(groups)
    try:
        if kind is Kind.MUSE:
            return float(texts[0]) * 10.0 ** float(texts[1])
        return float(next(filter(None, texts)))
    except (ValueError, OverflowError):
        return 0.0

"""WFDB records of any format, made from the format's description; FLAC by wfdb-python."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_model.leads import LEADS_12
from pipelines.formats.wfdb_header import FORMATS

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3.1 uses what pandas 3.1 deprecates
    import wfdb


def bytes_of(d_TL: np.ndarray, number: str) -> bytes:
    """Return the bytes of frames (T, L) in a format: https://physionet.org/physiotools/wag/signal-5.htm."""
    d = d_TL.reshape(-1).astype(np.int64)
    if number == "8":
        return np.diff(d_TL, axis=0, prepend=d_TL[:1]).astype("i1").tobytes()
    if number == "24":
        return (d & 0xFFFFFF).astype("<u4").view("u1").reshape(-1, 4)[:, :3].tobytes()
    if number in ("80", "160"):
        return (d + (128 if number == "80" else 32768)).astype("u1" if number == "80" else "<u2").tobytes()
    if number in ("16", "32", "61"):
        return d.astype({"16": "<i2", "32": "<i4", "61": ">i2"}[number]).tobytes()
    form = FORMATS[number]
    d = np.concatenate([d, np.zeros(-len(d) % form.samples, int)]).reshape(-1, form.samples)
    if number == "212":
        a, b = (d & 0xFFF).T
        blocks = [a & 0xFF, (a >> 8) | ((b >> 8) << 4), b & 0xFF]
    else:
        a, b, c = (d & 0x3FF).T
        word = a | (b << 10) | (c << 20)
        blocks = [word & 0xFF, (word >> 8) & 0xFF, (word >> 16) & 0xFF, word >> 24]
        if number == "310":
            blocks = [(a & 0x7F) << 1, (a >> 7) | ((c & 0x1F) << 3), (b & 0x7F) << 1, (b >> 7) | ((c >> 5) << 3)]
    return np.stack(blocks, axis=1).astype("u1").tobytes()


def put_record(
    folder: Path,
    signals: np.ndarray | Sequence[np.ndarray],
    number: str,
    *,
    name: str = "r",
    leads: Sequence[str] = LEADS_12,
    per_frame: Sequence[int] | None = None,
    skew: Sequence[int] | None = None,
    gain: float = 1000,
    baseline: int = 0,
    ahead: int = 0,
    comments: Sequence[str] = (),
) -> Path:
    """Write a record at 500 frames a second and return its header.

    signals: digital values (T, L), or a list with one array a lead. ahead: bytes before the samples.
    """
    rows = list(signals.T) if isinstance(signals, np.ndarray) else list(signals)
    per = list(per_frame or [1] * len(rows))
    late = list(skew or [0] * len(rows))
    frames = len(rows[0]) // per[0]
    if FORMATS[number].packed:
        data = _flac(rows, number)
    else:
        frame = np.concatenate([row.reshape(frames, count) for row, count in zip(rows, per, strict=True)], axis=1)
        data = bytes(ahead) + bytes_of(frame, number)
    (folder / f"{name}.dat").write_bytes(data)
    lines = [f"{name} {len(rows)} 500 {frames}"]
    for row, lead, count, delay in zip(rows, leads, per, late, strict=False):
        form = f"{number}{f'x{count}' if count > 1 else ''}{f':{delay}' if delay else ''}{f'+{ahead}' if ahead else ''}"
        lines.append(
            f"{name}.dat {form} {gain!r}({baseline})/mV 16 0 {row[0]} {int(row.sum(dtype=np.int64)) % 65536} 0 {lead}"
        )
    path = folder / f"{name}.hea"
    path.write_text("\n".join([*lines, *(f"# {line}" for line in comments)]) + "\n")
    return path


def flac_head(data: bytes, samples: int) -> bytes:
    """Return a FLAC file whose head states another number of samples (RFC 9639, 8.2)."""
    stated = int.from_bytes(data[18:26]) >> 36 << 36 | samples
    return data[:18] + stated.to_bytes(8) + data[26:]


def _flac(rows: Sequence[np.ndarray], number: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        form = {"fmt": [number] * len(rows), "adc_gain": [1.0] * len(rows), "baseline": [0] * len(rows)}
        names = [f"s{at}" for at in range(len(rows))]
        wfdb.wrsamp("r", 500, ["mV"] * len(rows), names, d_signal=np.stack(rows, axis=1), write_dir=folder, **form)
        return (Path(folder) / "r.dat").read_bytes()

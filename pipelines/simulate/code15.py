"""CODE-15% in its native layout, with simulated ECGs: zips of HDF5, a table, and the answer of Zenodo's API."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np

from pipelines.simulate.diagnosis import CODES, Diagnosis
from pipelines.simulate.mirror_tree import Defect, Tree, spread
from pipelines.simulate.simulator import SimulatedECG, simulate

RECORD = "4916206"
FILES = f"zenodo.org/records/{RECORD}/files"
API = f"zenodo.org/api/records/{RECORD}.json"

RATE, SAMPLES, SHORT_SAMPLES = 400, 4096, 2934
# 63 % of the real exams are short ones, which are dropped as too short for 10 s; fewer here, so that the demo has a
# corpus.
SHORT_SHARE = 0.25
# Real amplitudes are 1.6 to 1.9 times those of the other sources, and the signals are not filtered.
GAIN, NOISE = 1.7, 2.0

_SEED = 10
_FIRST_EXAM = 1_000_001
_DEFECTS = (Defect.ZERO_TRACE, Defect.MISSING_SAMPLES, Defect.ZERO_TRACE)
_FINDINGS = ("1dAVb", "RBBB", "LBBB", "SB", "ST", "AF")
_COLUMNS = (
    *("exam_id", "age", "is_male", "nn_predicted_age", *_FINDINGS),
    *("patient_id", "death", "timey", "normal_ecg", "trace_file"),
)


def write_code15(tree: Tree, sizes: Sequence[int], seed: int, tick: Callable[[], None]) -> None:
    """Write exams_part{i}.zip, exams.csv and the API's answer.

    A part has exam_id (N,) and tracings (N, 4096, 12) at 400 Hz, with a row of zeros at the end.
    """
    defects = spread(_DEFECTS, sum(sizes))
    files: dict[str, bytes] = {}
    rows: list[list[object]] = []
    index = 0
    for part, size in enumerate(sizes):
        name = f"exams_part{part}.hdf5"
        exam_N = np.zeros(size + 1, dtype="<i8")
        tracings_NTL = np.zeros((size + 1, SAMPLES, 12), dtype="<f4")
        for place in range(size):
            exam = _FIRST_EXAM + index
            rng = np.random.default_rng((seed, _SEED, index))
            defect = defects.get(index)
            samples = SHORT_SAMPLES if rng.random() < SHORT_SHARE and defect is None else SAMPLES
            ecg = simulate((seed, _SEED, index), rate=RATE, seconds=samples / RATE, noise=NOISE)
            exam_N[place] = exam
            tracings_NTL[place] = _tracing(ecg, samples, defect)
            # A short exam is dropped as a real one is, so it counts among the planted defects.
            if defect is None and samples == SHORT_SAMPLES:
                defect = Defect.TOO_SHORT
            if defect is not None:
                tree.plant("code15", defect, str(exam))
            rows.append(_row(exam, ecg, rng, name))
            index += 1
            tick()
        tree.plant("code15", Defect.DUMMY_ROW, "0")
        files[f"exams_part{part}.zip"] = zip_bytes(name, hdf5_bytes(exam_id=exam_N, tracings=tracings_NTL))
    # The real table is in another order than the parts.
    order = np.random.default_rng((seed, _SEED)).permutation(len(rows))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows[place] for place in order)
    files["exams.csv"] = table.getvalue().encode()
    for key, content in files.items():
        tree.write(f"{FILES}/{key}", content)
    tree.write(API, json.dumps(_api(files), indent=1))
    tree.records["code15"] = index + len(sizes)


def _tracing(ecg: SimulatedECG, samples: int, defect: Defect | None) -> np.ndarray:
    """Return float32 (T, L), millivolt: the ECG between zeros, in steps of a microvolt, with its defect."""
    x_TL = np.zeros((SAMPLES, 12), dtype="<f4")
    start = (SAMPLES - samples) // 2
    x_TL[start : start + samples] = np.rint(ecg.signal_LT.T * GAIN * 1000) / 1000
    if defect is Defect.ZERO_TRACE:
        x_TL[:] = 0
    if defect is Defect.MISSING_SAMPLES:
        x_TL[1000:1040, 7] = np.nan
    return x_TL


def hdf5_bytes(**datasets: np.ndarray) -> bytes:
    """Return an HDF5 file with these datasets."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, values in datasets.items():
            file.create_dataset(name, data=values)
    return buffer.getvalue()


def zip_bytes(name: str, content: bytes) -> bytes:
    """Return a zip of one file, with a fixed date so that the same content gives the same bytes."""
    entry = zipfile.ZipInfo(name, date_time=(2021, 6, 9, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, content, compresslevel=1)
    return buffer.getvalue()


def _row(exam: int, ecg: SimulatedECG, rng: np.random.Generator, file: str) -> list[object]:
    """Return an exam's row of exams.csv."""
    columns = {CODES[d].code15 for d in ecg.diagnoses}
    findings = [finding in columns for finding in _FINDINGS]
    predicted = f"{ecg.age + rng.normal(0, 8):.6f}"
    patient, years = exam - _FIRST_EXAM + 1, f"{rng.uniform(0.1, 7):.6f}"
    normal = Diagnosis.NORMAL in ecg.diagnoses
    return [exam, ecg.age, ecg.sex == "male", predicted, *findings, patient, rng.random() < 0.03, years, normal, file]


def _api(files: dict[str, bytes]) -> dict[str, Any]:
    return {
        "id": int(RECORD),
        "metadata": {"version": "1.0.0", "license": {"id": "cc-by-4.0"}},
        "files": [
            {
                "key": key,
                "size": len(files[key]),
                "checksum": f"md5:{hashlib.md5(files[key], usedforsecurity=False).hexdigest()}",
                "links": {"self": f"https://zenodo.org/api/records/{RECORD}/files/{key}/content"},
            }
            for key in sorted(files)
        ],
    }

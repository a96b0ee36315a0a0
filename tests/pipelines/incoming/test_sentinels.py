"""Integers that stand for a missing sample: in arrays of any width, HDF5 and csv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from tests.support.drops import array_fields, describe, ecgs, reasons, records, shard_of, write_npy

RAW = array_fields(units="raw", gain=200)
PLACES = (slice(1500, 1503), 6)  # of V1, at 3 s
LONG = 2**31


def counts(kind: Any, missing: int | None, baseline: int = 0) -> np.ndarray:
    """(T, L) of an ECG in counts."""
    x_TL = np.rint(ecgs(1)[0].T * 200 + baseline).astype(kind)
    if missing is not None:
        x_TL[PLACES] = missing
    return x_TL


@pytest.mark.parametrize(
    ("kind", "missing", "baseline"),
    [
        ("<i2", -32768, 0),
        (">i2", -32768, 0),
        ("i1", -128, 0),
        ("<i4", -32768, 0),
        ("<i4", -LONG, 0),
        ("<i8", -LONG, 0),
        ("<i8", -(2**63), 0),
        ("<f4", -32768, 0),
        ("<f8", -LONG, 0),
        ("<u2", 0, 32768),
    ],
)
def test_the_lowest_integer_is_a_missing_sample(
    drop: Path, tmp_path: Path, kind: str, missing: int, baseline: int
) -> None:
    scale = 50 if kind == "i1" else 1  # a byte holds few steps
    x_TL = np.clip(counts("<i8", None, baseline), -127, 127) if scale == 50 else counts("<i8", None, baseline)
    x_TL = x_TL.astype(kind)
    x_TL[PLACES] = missing
    write_npy(drop / "a.npy", x_TL.T[None], **RAW, baseline=baseline)
    (record,) = records(drop)
    assert np.argwhere(np.isnan(record.signal_LT)).tolist() == [[6, 1500], [6, 1501], [6, 1502]]
    (dropped,) = shard_of(drop, tmp_path / "out").drops().to_pylist()
    assert (dropped["reason"], "V1 3; the first at 3.000 s" in dropped["detail"]) == ("missing samples", True)


@pytest.mark.parametrize(
    ("kind", "lowest", "baseline"),
    [("<i2", -32767, 0), ("<i4", -32769, 0), ("<u2", 0, 0), ("<u2", 0, 2048), ("<f8", -128, 0)],
)
def test_other_numbers_are_samples(drop: Path, kind: str, lowest: int, baseline: int) -> None:
    x_TL = counts("<i8", None, baseline)
    if kind == "<u2":
        x_TL = np.abs(x_TL)
    x_TL = x_TL.astype(kind)
    x_TL[PLACES] = lowest
    if kind == "<i4":
        x_TL[9, 9] = -32768  # among lower ones
    write_npy(drop / "a.npy", x_TL.T[None], **RAW, baseline=baseline)
    (record,) = records(drop)
    assert np.isfinite(record.signal_LT).all()


@pytest.mark.parametrize("form", ["csv", "npz", "h5"])
def test_in_every_format_of_arrays(drop: Path, tmp_path: Path, form: str) -> None:
    x_TL = counts("<i2", -32768)
    if form == "csv":
        rows = [",".join(LEADS_12), *(",".join(map(str, row)) for row in x_TL)]
        (drop / "a.csv").write_text("\n".join(rows))
        describe(drop / "a.csv", rate=500, units="raw", gain=200)
    elif form == "npz":
        np.savez(drop / "a.npz", a=x_TL.T)
        describe(drop / "a.npz", **RAW)
    else:
        with h5py.File(drop / "a.h5", "w") as file:
            file["signals"] = x_TL.T[None]
        describe(drop / "a.h5", **RAW)
    (record,) = records(drop)
    assert np.isnan(record.signal_LT).sum() == 3
    assert reasons(shard_of(drop, tmp_path / "out")) == {"a": "missing samples"}

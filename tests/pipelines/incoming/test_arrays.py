"""NumPy and CSV files that are damaged or made to harm."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from pipelines.incoming.arrays import Npz, read_csv
from pipelines.records import DropReason, RecordError
from tests.support.drops import (
    array_fields,
    describe,
    ecgs,
    only_drop,
    read,
    reasons,
    records,
    shard_of,
)


def test_python_objects_are_never_unpickled(drop: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "unpickled"),))

    array = np.array([Bomb()], object)
    np.save(drop / "a.npy", array, allow_pickle=True)
    np.savez(drop / "b.npz", x=array)
    describe(drop / "a.npy", **array_fields(ids=["a"]))
    describe(drop / "b.npz", **array_fields())
    found = read(drop)
    assert [(item.record_id, getattr(item, "reason", None)) for item in found] == [
        ("a.npy", DropReason.UNREADABLE_SIGNAL),
        ("x", DropReason.UNREADABLE_SIGNAL),
    ]
    assert all("which is a pickle" in getattr(item, "detail", "") for item in found)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("shape", [(10**9, 12, 5000), (10**18, 10**18, 10**18), (0, 12, 5000), (1, 12, 4999), ()])
@pytest.mark.parametrize("form", ["npy", "npz"])
def test_a_header_that_promises_other_than_there_is_allocates_nothing(
    drop: Path, form: str, shape: tuple[int, ...]
) -> None:
    path = drop / "a.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
        stream.write(bytes(4 * 12 * 5000))
    if form == "npz":
        with zipfile.ZipFile(drop / "a.npz", "w") as archive:
            archive.write(path, "a.npy")
        path.unlink()
    describe(drop / "a", **array_fields(ids=["a"]))
    found = only_drop(drop)
    assert found.reason == DropReason.UNREADABLE_SIGNAL
    assert "needs" in found.detail


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("", "not a csv of numbers"),
        ("I,II\n1,2\n3\n", "not a csv of numbers"),
        ("I,II\n1,x\n", "not a csv of numbers"),
        ("I;II\n1,5;x\n", "not a csv of numbers"),
        ("\x00\xff\xfe", "not a csv of numbers"),
    ],
)
def test_a_csv_that_is_none_is_a_drop(drop: Path, text: str, detail: str) -> None:
    (drop / "a.csv").write_bytes(text.encode("latin-1"))
    describe(drop / "drop", rate=500, units="mV")
    found = only_drop(drop)
    assert found.reason in (DropReason.UNREADABLE_SIGNAL, DropReason.UNREADABLE_HEADER)
    assert detail in found.detail


def test_an_empty_field_of_a_csv_is_a_missing_sample(drop: Path, tmp_path: Path) -> None:
    rows = ecgs(1)[0].T.astype(str)
    rows[17, 4] = ""
    # Whole numbers first, as a table begins that is long enough to be guessed wrong.
    rows[:100] = "0"
    text = "\n".join([" , ".join(LEADS_12), *(",".join(row) for row in rows)])
    (drop / "a.csv").write_text("﻿" + text)
    describe(drop / "drop", rate=500, units="mV")
    (record,) = records(drop)
    assert record.leads == LEADS_12
    rows_missing = np.argwhere(np.isnan(record.signal_LT))
    assert rows_missing.tolist() == []
    (drop / "a.csv").write_text(text.replace("\n0,", "\n,", 1))
    assert reasons(shard_of(drop, tmp_path / "out")) == {"a": "missing samples"}


def test_a_blank_line_of_a_csv_is_a_gap_and_never_joined_over(tmp_path: Path) -> None:
    one = tmp_path / "one.csv"
    one.write_text("II\n0.1\n\n0.3\n")
    np.testing.assert_array_equal(read_csv(one).x_LT, [[0.1, np.nan, 0.3]])
    two = tmp_path / "two.csv"
    two.write_text("I,II\n0.1,0.2\n\n0.3,0.4\n")
    try:
        found = read_csv(two).x_LT
    except RecordError:
        return  # refused is as good: nothing is joined
    assert np.isnan(found[:, 1]).all()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_that_is_damaged_anywhere_is_a_record_error(save: Callable[..., None], tmp_path: Path) -> None:
    whole = tmp_path / "whole.npz"
    save(whole, ecg=np.random.default_rng(0).integers(-900, 900, (8, 300), dtype=np.int16))
    data, damaged = whole.read_bytes(), tmp_path / "damaged.npz"
    rng = np.random.default_rng(1)
    places = [*range(60), *range(len(data) - 160, len(data)), *rng.integers(0, len(data), 100).tolist()]
    refused = 0
    for place in places:
        damaged.write_bytes(data[:place] + bytes([data[place] ^ (1 + int(rng.integers(255)))]) + data[place + 1 :])
        try:
            with Npz(damaged) as archive:
                archive.read("ecg")
        except RecordError:
            refused += 1
    assert refused > 40

"""Descriptions of arrays: each wrong field is named with its remedy."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS_12
from pipelines.incoming.description import FIELDS
from pipelines.records import DropReason
from tests.support.drops import (
    array_fields,
    describe,
    ecgs,
    only_drop,
    read,
    records,
    write_npy,
)


def test_a_file_says_more_than_the_drop_and_an_array_less_than_its_json(drop: Path) -> None:
    describe(drop / "drop", rate=250, units="uV")
    with h5py.File(drop / "a.h5", "w") as file:
        file["signals"] = ecgs(1)
        file.attrs.update({"rate": 1000, "leads": LEADS_12, "units": "mV"})
    describe(drop / "a", rate=500, ids=["a"])
    (record,) = records(drop)
    assert record.rate == 500
    assert np.abs(record.signal_LT).max() > 0.5, "mV, as its attribute says"


@pytest.mark.parametrize(
    ("fields", "reason", "detail"),
    [
        ({"units": "mmHg"}, DropReason.UNKNOWN_UNIT, '"mV", "uV", "V", or "raw" with a gain'),
        ({"units": None}, DropReason.UNKNOWN_UNIT, "units None"),
        ({"units": "raw"}, DropReason.UNREADABLE_HEADER, "gain None: a number is needed"),
        ({"units": "raw", "gain": 0}, DropReason.IMPLAUSIBLE_GAIN, "gain 0: 10 to 100000"),
        ({"units": "raw", "gain": [200, 200]}, DropReason.UNREADABLE_HEADER, "or a list of 12"),
        ({"gain": 200}, DropReason.UNREADABLE_HEADER, 'with gain or baseline, units are "raw"'),
        ({"rate": 50}, DropReason.UNREADABLE_HEADER, "rate 50: samples a second, 100 to 2000"),
        ({"rate": float("nan")}, DropReason.UNREADABLE_HEADER, "rate nan"),
        ({"rate": True}, DropReason.UNREADABLE_HEADER, "rate True"),
        ({"leads": "I,II"}, DropReason.UNREADABLE_HEADER, "name each row"),
        ({"leads": ["I", "II"]}, DropReason.UNREADABLE_SIGNAL, "12 rows for 2 leads"),
        ({"axes": ["time", "lead"]}, DropReason.UNREADABLE_HEADER, "axes ['time', 'lead']"),
        ({"ids": ["a", "b"]}, DropReason.UNREADABLE_HEADER, "ids, 2 of them: a list of 1"),
        ({"ids": [""]}, DropReason.UNREADABLE_HEADER, "text of 1 to 128"),
        ({"ids": ["a\nb"]}, DropReason.UNREADABLE_HEADER, "text of 1 to 128"),
        ({"ids": [1.5]}, DropReason.UNREADABLE_HEADER, "1.5 in ids"),
        ({"sex_codes": {"1": "m"}}, DropReason.UNREADABLE_HEADER, "map codes to sexes"),
        ({"sampling_rate": 500}, DropReason.UNREADABLE_HEADER, "field 'sampling_rate': there are"),
    ],
)
def test_a_description_that_is_wrong_names_the_field_and_the_remedy(
    drop: Path, fields: dict[str, Any], reason: DropReason, detail: str
) -> None:
    write_npy(drop / "a.npy", ecgs(1), **{**array_fields(ids=["a"]), **fields})
    found = only_drop(drop)
    assert found.reason == reason
    assert detail in found.detail


def test_a_file_without_its_description_or_with_a_broken_one_is_a_drop(drop: Path) -> None:
    np.save(drop / "alone.npy", ecgs(1))
    np.save(drop / "broken.npy", ecgs(1))
    (drop / "broken.json").write_text('{"rate": 500')
    np.save(drop / "deep.npy", ecgs(1))
    (drop / "deep.json").write_text("[" * 100_000)
    found = {item.record_id: (getattr(item, "reason", None), getattr(item, "detail", "")) for item in read(drop)}
    assert found["alone.npy"][0] == DropReason.FILE_MISSING
    assert "alone.json is not there" in found["alone.npy"][1]
    assert found["broken.npy"][0] == found["deep.npy"][0] == DropReason.UNREADABLE_HEADER


def test_a_fault_of_what_the_whole_drop_leans_on_is_an_error(drop: Path) -> None:
    write_npy(drop / "a.npy", ecgs(1), **array_fields())
    describe(drop / "drop", ids=["a"])
    with pytest.raises(ValueError, match=r"drop\.json: ids: write what belongs to one file's records"):
        read(drop)
    (drop / "drop.json").write_text("nothing")
    with pytest.raises(ValueError, match=r"drop\.json: it: it is no JSON"):
        read(drop)


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["mV", "raw", "record", "lead", "time", "I", "V1", "signals", "../a", "\x00", ""])
    | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.sampled_from(["signals", "ids", "x"]), inside),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(
    fields=st.dictionaries(st.sampled_from(sorted(FIELDS)), _VALUES, max_size=3),
    form=st.sampled_from(["npy", "npz", "h5"]),
)
def test_whatever_a_description_says_is_read_or_dropped(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], form: str
) -> None:
    folder = tmp_path_factory.mktemp("described")
    x_NLT = ecgs(2, 3, rate=100)
    if form == "npy":
        np.save(folder / "a.npy", x_NLT)
    elif form == "npz":
        np.savez(folder / "a.npz", x=x_NLT[0], y=x_NLT[1])
    else:
        with h5py.File(folder / "a.h5", "w") as file:
            file["signals"] = x_NLT
    describe(folder / "a", **{**array_fields(LEADS_12[:3], rate=100, ids=["x", "y"]), **fields})
    found = read(folder)
    assert [item.record_id for item in found] == [f"a.{form}"] or len(found) == 2
    shutil.rmtree(folder)

"""HDF5 files: their datasets, their attributes, and those made to harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from pipelines.records import DropReason
from tests.support.drops import (
    array_fields,
    describe,
    ecgs,
    only_drop,
    read,
    records,
)


def test_the_people_of_an_hdf5_file_are_in_its_datasets(drop: Path) -> None:
    with h5py.File(drop / "a.hdf5", "w") as file:
        file["tracings"] = ecgs(2).astype("f2")
        file["exam"], file["patient_ids"], file["ages"] = [5, 6], np.array([b"p", b""]), [44.0, np.nan]
        file["tracings"].attrs.update({"rate": np.int16(500), "units": b"mV", "leads": np.array(LEADS_12, "S4")})
    describe(drop / "a.hdf5", datasets={"signals": "tracings", "ids": "exam"})
    one, two = records(drop)
    assert (one.record_id, one.patient_id, one.age) == ("5", "p", 44.0)
    assert (two.record_id, two.patient_id, two.age) == ("6", None, None)


def test_an_hdf5_file_that_claims_more_than_it_can_hold_is_refused(drop: Path) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        file.create_dataset("signals", (100_000, 12, 5000), "f4", chunks=(1, 12, 5000))
        file.attrs.update({"rate": 500, "units": "mV", "leads": LEADS_12})
    assert "states 24,000,000,000 bytes, 0 are stored" in only_drop(drop).detail


def test_hdf5_links_do_not_lead_out_of_the_file(drop: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "elsewhere.h5", "w") as file:
        file["signals"] = ecgs(1)
    attributes = {"rate": 500, "units": "mV", "leads": LEADS_12}
    for name in ("external", "soft", "virtual", "raw", "missing", "group"):
        with h5py.File(drop / f"{name}.h5", "w") as file:
            file.attrs.update(attributes)
            file["ids"] = ["a"]
            if name == "external":
                file["signals"] = h5py.ExternalLink(str(tmp_path / "elsewhere.h5"), "signals")
            elif name == "soft":
                file["signals"] = h5py.SoftLink("/ids")
            elif name == "virtual":
                layout = h5py.VirtualLayout((1, 12, 5000), "f8")
                layout[:] = h5py.VirtualSource(tmp_path / "elsewhere.h5", "signals", (1, 12, 5000))
                file.create_virtual_dataset("signals", layout)
            elif name == "raw":
                outside = [(str(tmp_path / "elsewhere.h5"), 0, 480_000)]
                file.create_dataset("signals", (1, 12, 5000), "f8", external=outside)
            elif name == "group":
                file.create_group("signals")
    found = {item.record_id: getattr(item, "detail", "read") for item in read(drop)}
    assert len(found) == 6
    for name in ("external", "soft"):
        assert "signals is a link" in found[f"{name}.h5"]
    for name in ("virtual", "raw"):
        assert "lies in another file" in found[f"{name}.h5"]
    for name in ("missing", "group"):
        assert "no dataset 'signals'" in found[f"{name}.h5"]


def test_a_damaged_place_in_an_hdf5_file_costs_the_record_that_it_is_of(drop: Path) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        signals = file.create_dataset("signals", data=ecgs(5), chunks=(1, 12, 5000), fletcher32=True)
        file["ids"] = list(range(5))
        file.attrs.update({"rate": 500, "units": "mV", "leads": LEADS_12})
        place = signals.id.get_chunk_info(3).byte_offset
    damaged = bytearray((drop / "a.h5").read_bytes())
    damaged[place + 1000] ^= 1
    (drop / "a.h5").write_bytes(damaged)
    found = {item.record_id: getattr(item, "reason", None) for item in read(drop)}
    assert found == {"0": None, "1": None, "2": None, "3": DropReason.UNREADABLE_SIGNAL, "4": None}


@pytest.mark.parametrize("name", ["../other", "a/../../b", "", "/", "a//b", 5])
def test_names_in_a_description_are_names(drop: Path, name: Any) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        file["signals"] = ecgs(1)
    describe(drop / "a", **array_fields(ids=["a"], datasets={"signals": name}))
    assert "is no plain name" in only_drop(drop).detail


def test_a_fill_value_of_netcdf_is_a_missing_sample(drop: Path) -> None:
    x_NLT = (ecgs(2) * 1000).round().astype(np.int16)
    x_NLT[1, 6, 100] = -999
    with h5py.File(drop / "a.h5", "w") as file:
        file["signals"], file["ids"] = x_NLT, ["a", "b"]
        file.attrs.update({"rate": 500, "units": "uV", "leads": LEADS_12})
        file["signals"].attrs.update({"_FillValue": np.array([-999], np.int16), "scale_factor": 1.0})
    one, two = records(drop)
    assert np.isfinite(one.signal_LT).all()
    assert np.argwhere(np.isnan(two.signal_LT)).tolist() == [[6, 100]]


@pytest.mark.parametrize("packed", [{"scale_factor": 0.5}, {"add_offset": 100.0}, {"scale_factor": "half"}])
def test_packed_numbers_of_netcdf_are_refused_with_a_way_out(drop: Path, packed: dict[str, Any]) -> None:
    with h5py.File(drop / "a.h5", "w") as file:
        file["signals"], file["ids"] = (ecgs(1) * 1000).astype(np.int16), ["a"]
        file.attrs.update({"rate": 500, "units": "uV", "leads": LEADS_12})
        file["signals"].attrs.update(packed)
    assert "write the numbers themselves" in only_drop(drop).detail

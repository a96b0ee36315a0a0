"""A file that contradicts its description is refused, not believed in one of both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from tests.support.drops import array_fields, describe, ecgs, only_drop, records


def write_csv(folder: Path, names: list[str], columns_LT: np.ndarray) -> None:
    np.savetxt(folder / "a.csv", columns_LT.T, delimiter=",", header=",".join(names), comments="")
    describe(folder / "a.csv", rate=500, units="mV")


@pytest.mark.parametrize(
    ("name", "step", "rates"),
    [("time", 0.001, "1000 Hz"), ("time (s)", 0.004, "250 Hz"), ("Time_ms", 1.0002, "999.8 Hz"), ("t", 4, "250 Hz")],
)
def test_a_column_of_times_of_another_rate_refuses_the_ecg(drop: Path, name: str, step: float, rates: str) -> None:
    times_1T = step * np.arange(5000)[None]
    write_csv(drop, [name, *LEADS_12], np.concatenate([times_1T, ecgs(1)[0]]))
    assert f"rate 500, and the column {name!r}" in only_drop(drop).detail
    assert rates in only_drop(drop).detail


@pytest.mark.parametrize(
    ("name", "start", "step"), [("time", 0, 0.002), ("ms", 12.5, 2), ("time", 0, 1), ("t", 0, 0), ("index", 0, 5)]
)
def test_times_that_fit_and_what_only_counts_are_left_out(drop: Path, name: str, start: float, step: float) -> None:
    times_1T = start + step * np.arange(5000)[None]
    write_csv(drop, [name, *LEADS_12], np.concatenate([times_1T, ecgs(1)[0]]))
    assert len(records(drop)) == 1


@pytest.mark.parametrize("form", ["{} (uV)", "{} [V]", "{}_uv", "{} µV"])
def test_a_unit_in_the_names_that_is_not_the_stated_one_refuses_the_ecg(drop: Path, form: str) -> None:
    write_csv(drop, [form.format(lead) for lead in LEADS_12], ecgs(1)[0])
    assert "and units are 'mV': correct the one that is wrong" in only_drop(drop).detail


def test_a_unit_in_the_names_that_is_the_stated_one_is_read(drop: Path) -> None:
    write_csv(drop, [f"{lead} (mV)" for lead in LEADS_12], ecgs(1)[0])
    (record,) = records(drop)
    np.testing.assert_allclose(record.signal_LT, ecgs(1)[0], atol=1e-6)


def test_the_unit_of_raw_numbers_is_their_gain_s(drop: Path) -> None:
    np.save(drop / "a.npy", (ecgs(1) * 200).round().astype(np.int16))
    leads = tuple(f"{lead} (uV)" for lead in LEADS_12)
    describe(drop / "a.npy", **{**array_fields(leads), "units": "raw", "gain": 200, "ids": ["a"]})
    assert len(records(drop)) == 1

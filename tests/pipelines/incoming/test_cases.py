"""Files as people have reported them in public: each is read right or dropped with a reason that helps."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from ecg_model.leads import known_leads
from pipelines.incoming.check import DropReport, check_drop
from pipelines.incoming.listing import list_drop
from pipelines.incoming.readers import contents
from pipelines.records import Record
from tests.support.paths import ROOT

CASES = ROOT.parent / "shared" / "cases"
DROPS = sorted(folder.parent.name for folder in CASES.glob("*/drop"))
HALF_A_UNIT = 0.0006  # mV: what is expected is rounded to a thousandth

pytestmark = pytest.mark.skipif(not DROPS, reason="the cases are not here")


@dataclass(frozen=True)
class Case:
    """What a case's drop comes to, beside the values of EXPECTED.json."""

    kept: int = 1
    dropped: Mapping[str, str] = field(default_factory=dict)
    """What the detail of each dropped record has to say, by id."""


def one_is_refused(record: str, words: str) -> Case:
    return Case(0, {record: words})


EXPECTED = {
    "accents_in_comments": Case(2),
    "age_sex_forms": Case(9),
    "base_time_forms": Case(6),
    "code_zero_padding": Case(2, {"3445096": "padding trimmed: 648 samples before, 648 after"}),
    "counter_frequency": Case(3),
    "cpsc_original_mat": one_is_refused("A0001", "a MATLAB file without a WFDB header is not read: write its matrix"),
    "csv_locale": Case(3, {"utf16.csv": "save it as UTF-8 csv"}),
    "csv_no_header": Case(1, {"nh2.asc": "read are", "nh3.txt": "a text of numbers"}),
    "csv_time_column": Case(3),
    "csv_transposed": one_is_refused("tr.csv", "rows and columns are swapped"),
    # All of its channels have the code of lead I, and the names of others.
    "dicom": one_is_refused("ecg.dcm", "export it again"),
    "dicom_cd": Case(1, {"IM000001": "export it again"}),
    "dx_with_other_gain": Case(3),
    "float_rates": Case(8),
    "gain_forms": Case(14),
    "gain_zero": one_is_refused("g0", "put the true gain into the header"),
    "h5_people_types": Case(6),
    "incart": Case(2),
    "lead_names": Case(14),
    "lead_off_midway": one_is_refused("off1", "V3"),
    "mimic_iv_ecg": Case(2),
    "nan_places": Case(2, {"nan_first": "I 1; the first at 0.000 s", "nan_mid": "V1 1; the first at 3.000 s"}),
    "near_duplicate_chain": Case(18),
    "npy_kinds": Case(5),
    "one_sample_short": one_is_refused("os1", "719976 bytes, 12 leads need 720000 bytes"),
    "other_tables": Case(
        0,
        dict.fromkeys(("a.parquet", "b.csv.gz", "c.xlsx", "d.pkl", "e.zarr/c/0/0", "f.zip"), ""),
    ),
    "patient_ids_of_pandas": Case(9),
    "record_name_forms": Case(2),
    "same_names_in_folders": Case(6),
    # Without the five samples that its chest leads lack, it is shorter than ten seconds.
    "skew": one_is_refused("sk1", "4995 samples at 500 Hz"),
    "sph_h5": Case(2),
    "ten_seconds_less_one": Case(0, dict.fromkeys(("tl4990", "tl4992", "tl4999"), "repeat_from")),
    "xml_vendors": Case(2, {"philips.xml": "export it again, or as DICOM"}),
}
"""Of the other cases, one record is there, and it is kept."""


OTHERS = {"csv_no_header": {"nh3"}, "multi_segment": {"ms_0001", "ms_0002"}}
"""What EXPECTED.json lists and is no record of its own: a text of numbers, the segments of a record."""


def report_of(name: str) -> DropReport:
    return check_drop(CASES / name / "drop")


def read(name: str) -> dict[str, Record]:
    folder = CASES / name / "drop"
    found = contents(folder, [file.path for file in list_drop(folder).files])
    items = [origin.item for part in found.parts for origin in part.read()]
    return {item.record_id: item for item in items if isinstance(item, Record)}


@pytest.mark.parametrize("name", DROPS)
def test_a_case_is_kept_or_dropped_with_a_reason_that_helps(name: str) -> None:
    case = EXPECTED.get(name, Case())
    report = report_of(name)
    assert report.kept == case.kept
    assert sorted(drop.record.record_id for drop in report.drops) == sorted(case.dropped)
    for drop in (refusal.record for refusal in report.drops):
        assert case.dropped[drop.record_id] in drop.detail
    assert report.records == report.kept + len(report.drops)


@pytest.mark.parametrize("name", DROPS)
def test_a_case_is_read_to_the_number(name: str) -> None:
    expected = json.loads((CASES / name / "EXPECTED.json").read_text())["records"]
    records = read(name)
    dropped = EXPECTED.get(name, Case()).dropped
    assert set(expected) - {each.split(".")[0] for each in dropped} - OTHERS.get(name, set()) <= set(records)
    for record_id in set(expected) & set(records) - {"sk1"}:
        right, record = expected[record_id], records[record_id]
        assert record.rate == pytest.approx(right["rate"])
        named = dict(zip(known_leads(record.leads), record.signal_LT, strict=True))
        for lead, first in zip(known_leads(tuple(right["first_mV"])), right["first_mV"].values(), strict=True):
            if lead is not None:
                read_T = named[lead][:5]
                right_T = np.where(np.isnan(read_T), np.nan, first)  # a missing sample has a number in the file
                assert np.isnan(read_T).mean() < 0.5
                np.testing.assert_allclose(read_T, right_T, rtol=0, atol=HALF_A_UNIT, err_msg=lead)


def test_segments_are_joined_in_time() -> None:
    expected = json.loads((CASES / "multi_segment" / "EXPECTED.json").read_text())["records"]
    record = read("multi_segment")["ms"]
    for at, segment in enumerate(("ms_0001", "ms_0002")):
        for x_T, first in zip(record.signal_LT, expected[segment]["first_mV"].values(), strict=True):
            np.testing.assert_allclose(x_T[5000 * at :][:5], first, rtol=0, atol=HALF_A_UNIT)


def test_skewed_leads_are_aligned() -> None:
    stored_LT = np.fromfile(CASES / "skew" / "drop" / "sk1.dat", "<i2").reshape(-1, 12).T / 1000
    record = read("skew")["sk1"]
    np.testing.assert_allclose(record.signal_LT[:6], stored_LT[:6, :4995], rtol=0, atol=HALF_A_UNIT)
    np.testing.assert_allclose(record.signal_LT[6:], stored_LT[6:, 5:], rtol=0, atol=HALF_A_UNIT)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("age_sex_forms", {"as8"}), ("incart", ()), ("mimic_iv_ecg", ()), ("two_signal_files_ptbdb", ())],
)
def test_whose_ecg_it_is_is_read(name: str, wrong: Collection[str]) -> None:
    """wrong: what could be read in two ways (`6M`: months, or a man of six) is left out with a note."""
    expected = json.loads((CASES / name / "EXPECTED.json").read_text())
    for record_id, record in read(name).items():
        for field_name in ("patient_id", "age", "sex"):
            everyone = expected.get(f"{field_name}s", {})
            if record_id in wrong and field_name == "age":
                assert (record.age, "age '6M' left out" in " ".join(record.notes)) == (None, True)
            elif field_name in expected or record_id in everyone:
                assert getattr(record, field_name) == everyone.get(record_id, expected.get(field_name)), record_id


def test_two_patients_with_accents_in_another_encoding_stay_two() -> None:
    assert len({record.patient_id for record in read("accents_in_comments").values()}) == 2


def test_numbers_of_pandas_are_read_and_each_odd_entry_is_noted() -> None:
    found = read("patient_ids_of_pandas")
    assert [found[name].patient_id for name in ("pa0", "pa1", "pa2")] == ["17", "18", None]
    assert [found[name].age for name in ("pb0", "pb1", "pb2")] == [63.0, None, 63.0]
    assert [found[name].sex for name in ("pc0", "pc1", "pc2")] == ["male", None, None]
    assert [name for name, record in found.items() if record.notes] == ["pc2"]

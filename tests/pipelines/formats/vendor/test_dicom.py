"""DICOM: which group, which lead, which unit, what is missing, and what holds no ECG."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.vendor.read import read_vendor, recognize_file
from pipelines.formats.vendor.recognize import Kind, Unread
from pipelines.records import DropReason, RecordError
from tests.support.vendor_files import EIGHT, Ecg, Group, counts, dicom


def refused(path: Path) -> tuple[DropReason, str]:
    with pytest.raises(RecordError) as caught:
        read_vendor(path)
    return caught.value.reason, caught.value.detail


def test_the_longest_original_group_with_the_eight_leads_is_taken(put):
    beat = Group(ecg=Ecg(d_LT=counts(8, 600)), original=False, label="MEDIAN BEAT")
    strip = Group(ecg=Ecg(d_LT=counts(1, 9000), leads=("II",)), label="STRIP")
    short, long = Group(ecg=Ecg(d_LT=counts(8, 1250))), Group(ecg=Ecg(d_LT=counts(8, 5000, seed=2)))
    reading = read_vendor(put("a.dcm", dicom(beat, strip, short, long)))
    np.testing.assert_allclose(reading.signal_LT, long.ecg.millivolt_LT, atol=1e-6)
    shown = [text for name, text in reading.details if name == "not read"]
    assert len(shown) == 3
    assert "derived" in shown[0]
    assert refused(put("b.dcm", dicom(beat)))[0] == DropReason.NO_WAVEFORM


@pytest.mark.parametrize("code", ["5.6.3-9-", "2:", "MDC_ECG_LEAD_"])
def test_leads_are_known_by_any_code(code: str, put):
    ecg = Ecg(d_LT=counts(11), leads=("aVF", "III", "aVR", *EIGHT))
    assert read_vendor(put("a.dcm", dicom(Group(ecg=ecg, code=code)))).leads == ecg.leads


@pytest.mark.parametrize("meaning", ["Lead II", "Lead II (Einthoven)", "II", "lead ii"])
def test_leads_are_known_by_their_meaning_if_the_code_is_a_makers_own(meaning: str, put):
    ecg = Ecg(d_LT=counts(1), leads=("II",))
    assert read_vendor(put("a.dcm", dicom(Group(ecg=ecg, code="OWN-", meaning=meaning)))).leads == ("II",)


@pytest.mark.parametrize("meaning", ["-aVR", "V3R", "Lead V12", "augmented"])
def test_other_leads_are_not_taken_for_one_of_the_twelve(meaning: str, put):
    ecg = Ecg(d_LT=counts(1), leads=("II",))
    assert refused(put("a.dcm", dicom(Group(ecg=ecg, code="OWN-", meaning=meaning))))[0] == DropReason.LEAD_MISSING


def test_a_code_and_a_meaning_that_disagree_are_refused(put):
    ecg = Ecg(d_LT=counts(1), leads=("I",))
    reason, text = refused(put("a.dcm", dicom(Group(ecg=ecg, meaning="Lead II"))))
    assert reason == DropReason.UNREADABLE_HEADER
    assert "I by its code, II by its meaning" in text


def test_units_correction_and_baseline_count(put):
    ecg = Ecg()
    group = Group(ecg=ecg, units="mV", correction=1.25, baseline=0.5)
    reading = read_vendor(put("a.dcm", dicom(group)))
    np.testing.assert_allclose(reading.signal_LT, ecg.millivolt_LT * 1.25 + 0.5, atol=1e-5)
    assert reading.units == "6.25 uV a count"


def test_missing_is_an_instant_at_which_all_channels_hold_the_padding_value(put):
    d_LT = counts()
    d_LT[0, 10:20] = 7  # one channel alone: a sample
    d_LT[:, 4000:] = 7
    x_LT = read_vendor(put("a.dcm", dicom(Group(ecg=Ecg(d_LT=d_LT), padding=7)))).signal_LT
    assert np.isnan(x_LT[:, 4000:]).all()
    assert np.isfinite(x_LT[:, :4000]).all()
    assert np.isfinite(read_vendor(put("b.dcm", dicom(Group(ecg=Ecg(d_LT=d_LT))))).signal_LT).all()


def test_big_endian_is_read_and_deflated_is_not(put):
    ecg = Ecg()
    reading = read_vendor(put("a.dcm", dicom(Group(ecg=ecg), big=True)))
    np.testing.assert_allclose(reading.signal_LT, ecg.millivolt_LT, atol=1e-6)
    reason, text = refused(put("b.dcm", dicom(Group(ecg=ecg), deflated=True)))
    assert reason == DropReason.UNKNOWN_FORMAT
    assert "deflated" in text


def test_a_lead_that_is_skewed_by_a_sample_is_refused(put):
    assert refused(put("a.dcm", dicom(Group(ecg=Ecg(), skew=2.0))))[0] == DropReason.UNREADABLE_SIGNAL
    assert read_vendor(put("b.dcm", dicom(Group(ecg=Ecg(), skew=0.1)))).leads == EIGHT


@pytest.mark.parametrize(
    ("age", "kept"), [("063Y", 63), ("018M", 1.5), ("    ", 63), ("999Y", None), ("093Y", 90), ("junk", 63)]
)
def test_ages(age: str, kept: float | None, put):
    data = dicom(Group(ecg=Ecg())).replace(b"063Y", age.encode())  # of the birth date if none is stated
    assert read_vendor(put("a.dcm", data)).age == kept


def test_an_object_without_a_waveform_is_named(put):
    reason, text = refused(put("a.dcm", dicom()))
    assert reason == DropReason.NO_WAVEFORM
    assert "12-lead ECG" in text
    image = dicom().replace(b"1.2.840.10008.5.1.4.1.1.9.1.1", b"1.2.840.10008.5.1.4.1.1.2\0\0\0\0")
    assert "CT Image" in refused(put("b", image))[1]


def test_dicom_is_found_without_an_ending_and_a_directory_is_ignored(put):
    ecg = put("IM000001", dicom(Group(ecg=Ecg())))
    assert recognize_file(ecg) is Kind.DICOM
    assert read_vendor(ecg).leads == EIGHT
    uid = put("1.2.840.113619.2.80", ecg.read_bytes())
    assert recognize_file(uid) is Kind.DICOM
    directory = recognize_file(put("DICOMDIR", ecg.read_bytes()))
    assert isinstance(directory, Unread)
    assert directory.ignored
    marked = b"\0" * 128 + b"DICM" + b"\2\0\2\0UI\x14\0" + b"1.2.840.10008.1.3.10" + b"\2\0\3\0UI"
    other = recognize_file(put("index", marked))
    assert isinstance(other, Unread)
    assert other.ignored


@pytest.mark.parametrize("field", ["samples", "channels"])
def test_sizes_that_do_not_fit_the_bytes_are_refused(field: str, put):
    data = dicom(Group(ecg=Ecg()))
    tag, old = {"samples": (b"\x3a\0\x10\0UL\4\0", 5000), "channels": (b"\x3a\0\5\0US\2\0", 8)}[field]
    width = 4 if field == "samples" else 2
    at = data.index(tag) + len(tag)
    assert data[at : at + width] == old.to_bytes(width, "little")
    for new in (0, old + 1, 256**width - 1):
        changed = data[:at] + new.to_bytes(width, "little") + data[at + width :]
        assert refused(put("a.dcm", changed))[0] == DropReason.WRONG_FILE_SIZE

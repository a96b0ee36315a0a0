"""Vendors' files are read right: real ones against values of other decoders, and one of each format that we write."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pipelines.formats.vendor import read
from pipelines.formats.vendor.read import read_vendor, reader_version, record_id
from pipelines.records import DropReason, RecordError
from tests.support import vendor_files
from tests.support.paths import SHARED
from tests.support.vendor_files import EIGHT, PATIENT, PERSON, WRITERS, Ecg, Group, counts

VENDOR = SHARED / "vendor"
KEY = bytes(range(32))
XLI = ' compression="XLI"'

real = pytest.mark.skipif(not VENDOR.is_dir(), reason="needs ../shared/vendor, which is not part of the repository")


def refused(path: Path) -> tuple[DropReason, str]:
    with pytest.raises(RecordError) as caught:
        read_vendor(path)
    return caught.value.reason, caught.value.detail


def expected() -> dict[str, dict]:
    return json.loads((VENDOR / "expected.json").read_text()) if VENDOR.is_dir() else {}


@real
@pytest.mark.parametrize("name", [name for name in expected() if not name.startswith("unknown/")])
def test_real_files_give_the_values_of_other_decoders(name: str):
    right = expected()[name]
    reading = read_vendor(VENDOR / name, KEY)
    assert reading.leads == tuple(right["leads_in_file_order"])
    assert reading.rate == right["sampling_rate_hz"]
    # Of a Philips recording the first ten seconds are ECG; the calibration pulse behind is in expected.json, too.
    philips = name.startswith("philips")
    assert reading.signal_LT.shape[1] == (5000 if philips else right["samples_per_lead"])
    half = 1e-3 * float(reading.units.split()[0]) / 2
    if name == "edf/made_plus_mixed_rates.edf":
        half *= 2  # its writer cut off where it should have rounded: all decoders are off its source by a whole unit
    for lead, x_T in zip(reading.leads, reading.signal_LT, strict=True):
        assert np.isfinite(x_T).all()
        for key, value in (("min_mv", x_T.min()), ("max_mv", x_T.max()), ("mean_mv", x_T.mean(dtype=float))):
            if not philips:
                assert value == pytest.approx(right[key][lead], abs=half), (lead, key)
    for lead, first in right["first8_mv"].items():
        assert reading.signal_LT[reading.leads.index(lead), :8] == pytest.approx(first, abs=half)
    assert reading.patient_named
    assert reading.patient is not None
    assert "TEST" not in repr(reading)


@real
@pytest.mark.parametrize("name", ["muse_xml/muse9_500hz.xml", "muse_xml/muse7_250hz.xml"])
def test_muse_is_what_elementtree_and_base64_give(name: str):
    root = ElementTree.parse(VENDOR / name).getroot()
    rhythm = next(item for item in root.findall("Waveform") if item.findtext("WaveformType") == "Rhythm")
    reading = read_vendor(VENDOR / name)
    for lead, x_T in zip(rhythm.findall("LeadData"), reading.signal_LT, strict=True):
        data = np.frombuffer(base64.b64decode(lead.findtext("WaveFormData") or ""), "<i2")
        scale = float(lead.findtext("LeadAmplitudeUnitsPerBit") or "nan") / 1000
        np.testing.assert_allclose(x_T, data * scale, atol=1e-6)


@real
@pytest.mark.parametrize("name", ["hl7_aecg/fda_500hz.xml", "hl7_aecg/mindray_100hz.xml"])
def test_aecg_is_what_elementtree_gives(name: str):
    space = {"h": "urn:hl7-org:v3"}
    root = ElementTree.parse(VENDOR / name).getroot()
    reading = read_vendor(VENDOR / name)
    rows = {}
    sequences = root.find("h:component/h:series/h:component/h:sequenceSet", space)
    assert sequences is not None
    for sequence in sequences.findall("h:component/h:sequence", space):
        code = sequence.find("h:code", space)
        digits, scale = sequence.find("h:value/h:digits", space), sequence.find("h:value/h:scale", space)
        if code is not None and digits is not None and scale is not None:
            unit = {"uV": 1e-3, "mV": 1.0}[scale.get("unit", "")]
            rows[code.get("code", "")] = (
                np.array((digits.text or "").split(), float) * float(scale.get("value", "")) * unit
            )
    assert len(rows) == len(reading.leads)
    for lead, x_T in zip(reading.leads, reading.signal_LT, strict=True):
        row = next(value for code, value in rows.items() if code.upper().endswith(f"_{lead.upper()}"))
        np.testing.assert_allclose(x_T, row, atol=1e-6)


@real
def test_the_calibration_pulse_of_a_philips_is_not_ecg():
    for name in ("v103_xli.xml", "v104_utf16.xml"):
        reading = read_vendor(VENDOR / "philips_xml" / name)
        row = dict(zip(reading.leads, reading.signal_LT, strict=True))
        assert np.abs(row["III"] - (row["II"] - row["I"])).max() < 0.011
        assert any("calibration" in text for _, text in reading.details)


@real
def test_padding_of_zero_is_no_missing_sample():
    reading = read_vendor(VENDOR / "dicom" / "padding_zero_500hz.dcm")
    same = read_vendor(VENDOR / "hl7_aecg" / "fda_500hz.xml")
    order = [same.leads.index(lead) for lead in reading.leads]
    np.testing.assert_allclose(reading.signal_LT, same.signal_LT[order], atol=1e-6)


@real
def test_dialects_that_are_not_read_are_named_with_a_way_out():
    reason, text = refused(VENDOR / "unknown" / "schiller.xml")
    assert reason == DropReason.UNKNOWN_FORMAT
    assert "Schiller" in text
    assert "DICOM or HL7 aECG" in text
    reason, text = refused(VENDOR / "unknown" / "healforce_dialect.scp")
    assert reason == DropReason.UNKNOWN_FORMAT
    assert "Healforce" in text


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_is_read_as_written_and_nobody_is_named(name: str, put: Callable[[str, bytes], Path]):
    twelve = ("I", "II", "III", "aVR", "aVL", "aVF", *EIGHT[2:])
    ecg = Ecg(d_LT=counts(12), leads=twelve)
    reading = read_vendor(put(name, WRITERS[name](ecg)), KEY)
    assert reading.leads == twelve
    assert reading.rate == 500
    np.testing.assert_allclose(reading.signal_LT, ecg.millivolt_LT, atol=2.4e-3)
    assert reading.signal_LT.dtype == np.float32
    if not name.endswith(".edf"):
        np.testing.assert_allclose(reading.signal_LT, ecg.millivolt_LT, atol=1e-6)
    assert reading.notes == ()
    assert reading.sex == "female"
    shown = repr(reading)
    for private in (PERSON, PATIENT, "1960", "2023", "Confirmed"):
        assert private not in shown


def test_one_patient_has_one_pseudonym_in_all_formats_and_another_under_another_key(put):
    files = [put(name, write(Ecg())) for name, write in WRITERS.items()]
    files.append(put("plain.edf", vendor_files.edf(Ecg(), plus=False)))
    assert len({read_vendor(file, KEY).patient for file in files}) == 1
    one = files[0]
    assert read_vendor(one, KEY).patient != read_vendor(one, bytes(32)).patient
    without = read_vendor(one)
    assert without.patient is None
    assert without.patient_named
    other = put("other.xml", vendor_files.muse(Ecg(patient="MRN-4712")))
    assert read_vendor(other, KEY).patient != read_vendor(one, KEY).patient


@pytest.mark.parametrize("nobody", ["", "?", "0000", "UNKNOWN", "Anonymous", "N/A"])
def test_a_file_that_names_nobody_has_no_patient(nobody: str, put):
    reading = read_vendor(put("a.xml", vendor_files.muse(Ecg(patient=nobody))), KEY)
    assert reading.patient is None
    assert not reading.patient_named


def test_mindrays_own_patient_element_is_read(put):
    text = vendor_files.aecg(Ecg(patient="")).replace(b"<name>", b"<PatientID>MRN-4711</PatientID><name>")
    same = read_vendor(put("b.xml", vendor_files.muse(Ecg())), KEY)
    assert read_vendor(put("a.xml", text), KEY).patient == same.patient


@pytest.mark.parametrize(("age", "kept"), [(63, 63), (89, 89), (90, 90), (97, 90)])
def test_ages_above_89_are_90_with_a_note(age: int, kept: int, put):
    for name in ("muse.xml", "scp.scp", "philips.xml"):
        reading = read_vendor(put(name, WRITERS[name](Ecg(age=age))))
        assert reading.age == kept
        assert any("above 89" in note for note in reading.notes) == (age > 89)
        assert "97" not in repr(reading.notes)


def test_rates_are_not_rounded(put):
    cases = {
        "a.xml": vendor_files.muse(Ecg(rate=499.6)),
        "b.xml": vendor_files.aecg(Ecg(rate=499.6), increment='value="2.0016012" unit="ms"'),
        "c.xml": vendor_files.mortara(Ecg(rate=499.6)),
        "d.xml": vendor_files.philips(Ecg(rate=499.6), seconds=9.9),
        "e.mwf": vendor_files.mfer(Ecg(rate=499.6)),
        "f.dcm": vendor_files.dicom(Group(ecg=Ecg(rate=499.6))),
    }
    for name, data in cases.items():
        assert read_vendor(put(name, data)).rate == pytest.approx(499.6, abs=1e-4), name
    assert read_vendor(put("g.xml", vendor_files.aecg(Ecg(), increment='value="1953.125" unit="us"'))).rate == 512
    assert read_vendor(put("h.scp", vendor_files.scp(Ecg(rate=256)))).rate == 256  # 3,906 us


def test_counts_without_a_scale_are_refused(put):
    cases = {
        "a.xml": vendor_files.muse(Ecg(), units="COUNTS"),
        "b.xml": vendor_files.aecg(Ecg(), unit="mm", origin=""),
        "bb.xml": vendor_files.aecg(Ecg()).replace(b'<scale value="5"', b'<scale value="nan"'),
        "bc.xml": vendor_files.aecg(Ecg()).replace(b'<scale value="5"', b"<scale"),
        "c.edf": vendor_files.edf(Ecg(), unit=""),
        "d.scp": vendor_files.scp(Ecg(step=0)),
        "e.ecg": vendor_files.ishne(Ecg(step=0)),
        "f.dcm": vendor_files.dicom(Group(ecg=Ecg(), units=None)),
        "g.xml": vendor_files.mortara(Ecg()).replace(b'UNITS_PER_MV="200"', b""),
    }
    for name, data in cases.items():
        reason, text = refused(put(name, data))
        assert reason == DropReason.UNKNOWN_UNIT, name
        assert "lead I " in text


def test_one_bad_lead_that_nothing_uses_costs_a_note(put):
    twelve = ("I", "II", "III", "aVR", "aVL", "aVF", *EIGHT[2:])
    ecg = Ecg(d_LT=counts(12), leads=twelve)

    def spoilt(lead: str) -> Callable[[str], str]:
        return lambda text: text.replace("MICROVOLTS", "COUNTS") if f"<LeadID>{lead}<" in text else text

    reading = read_vendor(put("a.xml", vendor_files.muse(ecg, lead=spoilt("aVR"))))
    assert "aVR" not in reading.leads
    assert len(reading.leads) == 11
    assert any("aVR" in note for note in reading.notes)
    assert refused(put("b.xml", vendor_files.muse(ecg, lead=spoilt("V4"))))[0] == DropReason.UNKNOWN_UNIT


def test_leads_of_unequal_length_are_refused(put):
    d_LT = counts()

    def shorter(text: str) -> str:
        if "<LeadID>V3<" not in text or "<LeadSampleCountTotal>5000<" not in text:
            return text
        half = base64.b64encode(d_LT[4, :2500].astype("<i2").tobytes()).decode()
        head = text.split("<LeadDataCRC32>")[0].replace(">10000<", ">5000<", 1).replace("Total>5000<", "Total>2500<")
        head = head.replace("<LeadByteCountTotal>2500<", "<LeadByteCountTotal>5000<")
        return f"{head}<WaveFormData>{half}</WaveFormData></LeadData>"

    reason, text = refused(put("a.xml", vendor_files.muse(Ecg(d_LT=d_LT), lead=shorter)))
    assert reason == DropReason.UNREADABLE_SIGNAL
    assert "V3 2500" in text


def test_what_readers_apply_differently_is_refused(put):
    def based(text: str) -> str:
        return text.replace("<FirstSampleBaseline>0<", "<FirstSampleBaseline>7<")

    assert "FirstSampleBaseline" in refused(put("a.xml", vendor_files.muse(Ecg(), lead=based)))[1]
    assert "OFFSET" in refused(put("b.xml", vendor_files.mortara(Ecg(), more='OFFSET="3"')))[1]
    assert "place of the samples" in refused(put("c.ecg", vendor_files.ishne(Ecg(), offset=4096)))[1]
    assert "one after another" in refused(put("d.scp", vendor_files.scp(Ecg(), first=2501)))[1]


def test_a_wrong_checksum_of_the_rhythm_drops_and_of_the_rest_is_a_note(put):
    def changed(text: str) -> str:
        return text.replace("<LeadDataCRC32>", "<LeadDataCRC32>1") if "SampleCountTotal>5000<" in text else text

    reason, _ = refused(put("a.xml", vendor_files.muse(Ecg(), lead=changed)))
    assert reason == DropReason.CHECKSUM_WRONG
    assert refused(put("b.scp", vendor_files.scp(Ecg(), wrong=[6])))[0] == DropReason.CHECKSUM_WRONG
    for path in (
        put("c.scp", vendor_files.scp(Ecg(), wrong=[1])),
        put("d.ecg", vendor_files.ishne(Ecg()).replace(PERSON.encode(), b"X" * len(PERSON))),
        put("e.scp", vendor_files.scp(Ecg()).replace(PERSON.encode(), b"X" * len(PERSON))),
    ):
        reading = read_vendor(path)
        assert any("checksum" in note for note in reading.notes), path.name
        np.testing.assert_allclose(reading.signal_LT, Ecg().millivolt_LT, atol=1e-6)


def test_a_repeated_lead_is_left_out_if_alike_and_refused_if_not(put):
    d_LT = counts()
    alike = Ecg(d_LT=np.vstack([d_LT, d_LT[1:2]]), leads=(*EIGHT, "II"))
    reading = read_vendor(put("a.xml", vendor_files.muse(alike)))
    assert reading.leads == EIGHT
    assert any("II" in note for note in reading.notes)
    other = Ecg(d_LT=np.vstack([d_LT, d_LT[2:3]]), leads=(*EIGHT, "II"))
    assert refused(put("b.xml", vendor_files.muse(other)))[0] == DropReason.LEAD_REPEATED


def test_further_leads_come_along_and_a_median_alone_is_no_ecg(put):
    more = Ecg(d_LT=counts(10), leads=(*EIGHT, "V3R", "V7"))
    assert read_vendor(put("a.xml", vendor_files.muse(more))).leads == (*EIGHT, "V3R", "V7")
    assert refused(put("b.xml", vendor_files.muse(Ecg(), rhythm="Other")))[0] == DropReason.NO_WAVEFORM
    brain = Ecg(d_LT=counts(2), leads=("Fp1", "Fp2"))
    assert refused(put("c.edf", vendor_files.edf(brain)))[0] == DropReason.LEAD_MISSING


def test_the_count_that_means_no_value_is_missing(put):
    d_LT = counts()
    d_LT[3, 100:110] = -32768
    for name in ("muse.xml", "ishne.ecg", "scp.scp", "dicom.dcm", "mortara.xml"):
        x_LT = read_vendor(put(name, WRITERS[name](Ecg(d_LT=d_LT)))).signal_LT
        assert np.isnan(x_LT).sum() == 10, name
        assert np.isnan(x_LT[3, 100:110]).all(), name


def test_compressed_samples_are_read_as_written(put):
    twelve = ("I", "II", "III", "aVR", "aVL", "aVF", *EIGHT[2:])
    d_LT = counts(12, 5500)
    d_LT[0, 50:60] = (300, -300) * 5  # differences of more than a byte
    d_LT[:, 5000:] = 0
    d_LT[:, 5350:5450] = 200  # the calibration pulse
    data = vendor_files.philips(Ecg(d_LT=d_LT, leads=twelve), data=vendor_files.xli(d_LT), compression=XLI)
    reading = read_vendor(put("a.xml", data))
    np.testing.assert_allclose(reading.signal_LT, d_LT[:, :5000] * 5e-3, atol=1e-6)
    assert any("calibration" in text for _, text in reading.details)
    ecg = Ecg(d_LT=d_LT[:8])
    reading = read_vendor(put("b.scp", vendor_files.scp(ecg, compressed=True)))
    np.testing.assert_allclose(reading.signal_LT, ecg.millivolt_LT, atol=1e-6)
    assert reading.notes == ()


def test_a_long_recording_is_cut_with_a_note(put):
    reading = read_vendor(put("a.ecg", vendor_files.ishne(Ecg(d_LT=counts(8, 20_000)))))
    assert reading.signal_LT.shape == (8, 15_000)
    assert reading.notes == ("the first 30 s of 40 s are read",)


def test_a_cut_off_edf_is_read_as_far_as_it_goes_with_a_note(put):
    data = vendor_files.edf(Ecg(d_LT=counts(8, 6000)))
    reading = read_vendor(put("a.edf", data[:-10_000]))
    assert reading.signal_LT.shape == (8, 5000)
    assert any("cut off" in note for note in reading.notes)
    unclosed = read_vendor(put("b.edf", vendor_files.edf(Ecg(), records=-1)))
    assert any("close" in note for note in unclosed.notes)


def test_a_scale_beyond_belief_is_refused(put):
    for name, data in (
        ("a.xml", vendor_files.muse(Ecg(step=1e300))),
        ("b.xml", vendor_files.aecg(Ecg(step=1e300))),
        ("c.dcm", vendor_files.dicom(Group(ecg=Ecg(step=1e300)))),
    ):
        assert refused(put(name, data))[0] == DropReason.IMPLAUSIBLE_GAIN, name


def test_a_record_is_called_by_its_bytes(put):
    one, same = put("PRIVATE.xml", vendor_files.muse(Ecg())), put("b.xml", vendor_files.muse(Ecg()))
    assert record_id(one) == record_id(same) != record_id(put("c.xml", vendor_files.muse(Ecg(age=64))))
    assert "PRIVATE" not in record_id(one)
    assert "ecgdatakit 2" in reader_version()


def test_without_the_libraries_the_text_says_what_to_install(put, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(read, "_missing_libraries", lambda: ("ecgdatakit",))
    reason, text = refused(put("a.xml", vendor_files.muse(Ecg())))
    assert reason == DropReason.UNKNOWN_FORMAT
    assert "pip install -e '.[vendor]'" in text

"""Formats are named by their first bytes, dialects by their root element, and no entity is expanded."""

import pytest

from pipelines.formats.vendor.recognize import HEAD, Kind, Unread, recognize, root_of
from tests.support.vendor_files import WRITERS, Ecg, edf, mfer

KINDS = {
    "muse.xml": Kind.MUSE,
    "aecg.xml": Kind.AECG,
    "philips.xml": Kind.PHILIPS,
    "mortara.xml": Kind.MORTARA,
    "ishne.ecg": Kind.ISHNE,
    "mfer.mwf": Kind.MFER,
    "plus.edf": Kind.EDF,
    "scp.scp": Kind.SCP,
    "dicom.dcm": Kind.DICOM,
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_is_known_by_its_bytes_whatever_its_name(name: str):
    head = WRITERS[name](Ecg())[:HEAD]
    assert recognize(head, name) is KINDS[name]
    assert recognize(head, "a.bin") is KINDS[name]
    assert recognize(head, name.upper()) is KINDS[name]


def test_mfer_without_its_mark_is_known_by_its_ending():
    data = mfer(Ecg())
    assert recognize(data[34:], "a.mwf") is Kind.MFER
    assert recognize(data[34:], "a.bin") is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<CardiologyXML/>", "CardioSoft"),
        ("<com.xiriuz.sema.xml.schillerEDI.SchillerEDI>", "Schiller"),
        ('<?xml version="1.0"?><!-- a > b --><ClinicalDocument xmlns="urn:hl7-org:v3">', "CDA"),
        ("<ns0:ClinicalDocument>", "CDA"),
        ("<settings>", "settings"),
        ("<ECG><OTHER/></ECG>", "ECG"),
        ("<!DOCTYPE x [ <!ENTITY a 'b'> <!ENTITY c '&a;&a;'> ]><CardiologyXML>", "CardioSoft"),
        ("<!-- only a comment", "without a root"),
        ("<", "without a root"),
        ("no XML", "does not begin as XML"),
        ("", "does not begin as XML"),
    ],
)
def test_other_xml_is_named_with_a_way_out(text: str, what: str):
    for data in (text.encode(), text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode()):
        found = recognize(data, "a.xml")
        assert isinstance(found, Unread)
        assert what in found.what
        assert "DICOM or HL7 aECG" in found.instead
        assert not found.ignored


@pytest.mark.parametrize("ending", [".dcm", ".SCP", ".ecg", ".edf", ".mwf"])
def test_an_ending_without_its_mark_is_told_of(ending: str):
    found = recognize(b"\xff" * 512, f"a{ending}")
    assert isinstance(found, Unread)


@pytest.mark.parametrize("data", [b"", b"\0" * 600, b"<html>", b"\x89PNG", edf(Ecg())[:200]])
def test_what_is_no_vendors_is_left_to_others(data: bytes):
    assert recognize(data, "a.dat") is None
    assert recognize(data, "README") is None


@pytest.mark.parametrize("text", ["<a", "<!" * 30_000, "<?" * 30_000, "<!--" * 20_000, "<!x[" * 20_000, ">" * 60_000])
def test_roots_are_sought_in_linear_time(text: str):
    assert root_of(text) in (None, "a")

"""Hostile files: one drop each, with a reason, and the process and the other files go on."""

import base64
import os
import random
import struct
from pathlib import Path

import pytest

from pipelines.formats.vendor import process
from pipelines.formats.vendor.read import read_vendor
from pipelines.formats.vendor.recognize import Kind
from pipelines.records import DropReason, RecordError
from tests.support import vendor_files
from tests.support.vendor_files import EIGHT, WRITERS, Ecg

LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha" * 50}">' for i in range(9))
XML = [name for name in WRITERS if name.endswith(".xml")]


def refused(path: Path) -> tuple[DropReason, str]:
    with pytest.raises(RecordError) as caught:
        read_vendor(path)
    return caught.value.reason, caught.value.detail


def with_entities(name: str, declared: str, used: str) -> bytes:
    encoding = "utf-16" if name == "philips.xml" else "latin-1"
    text = WRITERS[name](Ecg()).decode(encoding)
    if "<!DOCTYPE" in text:
        text = text.replace(' SYSTEM "restecg.dtd"', f" [{declared}]")
    else:
        text = text.replace("?>", f"?><!DOCTYPE x [{declared}]>", 1)
    return text.replace("MRN-4711", used).encode(encoding)


@pytest.mark.parametrize("name", XML)
@pytest.mark.parametrize(
    ("declared", "used"),
    [(LAUGHS, "&a8;"), ('<!ENTITY a SYSTEM "file:///etc/hostname">', "&a;"), ('<!ENTITY a "b">', "&a;")],
)
def test_entities_are_refused(name: str, declared: str, used: str, put):
    reason, text = refused(put(name, with_entities(name, declared, used)))
    assert reason == DropReason.UNREADABLE_HEADER
    assert "entities" in text


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_at_each_tenth_is_refused_or_shorter(name: str, put):
    data = WRITERS[name](Ecg())
    for tenth in range(10):
        path = put(name, data[: len(data) * tenth // 10])
        try:
            reading = read_vendor(path)
        except RecordError:
            continue
        # Of a header without checksums, the samples that are there can be read, with a note.
        assert any("cut off" in note or "more than it holds" in note for note in reading.notes)


def lzw_bomb(size: int) -> str:
    """XLI chunks of one code over and over, each of which stands for a longer string than the one before."""
    codes = [0, *range(256, 1022)]
    codes += [1021] * (size * 8 // 10)
    bits = "".join(f"{code:010b}" for code in codes)
    packed = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    return base64.b64encode(struct.pack("<iHh", len(packed), 0, 0) + packed).decode()


@pytest.mark.slow
def test_an_lzw_bomb_ends_in_a_drop_and_the_next_file_is_read(put):
    bomb = vendor_files.philips(Ecg(), data=lzw_bomb(800_000), compression=' compression="XLI"')
    reason, text = refused(put("bomb.xml", bomb))
    assert reason == DropReason.UNREADABLE_SIGNAL
    assert "2 s of a processor" in text or "memory" in text.lower()
    assert read_vendor(put("good.xml", vendor_files.philips(Ecg()))).leads == EIGHT


def test_a_deflate_bomb_is_not_unfolded(put):
    data = vendor_files.dicom(vendor_files.Group(ecg=Ecg()), deflated=True)
    at = data.index(b"1.2.840.10008.1.2.1.99") + 22
    assert refused(put("a.dcm", data[: at + 400] + bytes(400_000)))[0] == DropReason.UNKNOWN_FORMAT


def test_too_large_a_file_is_refused_before_it_is_read(put):
    path = put("a.xml", vendor_files.philips(Ecg()))
    os.truncate(path, 5 << 20)
    reason, text = refused(path)
    assert reason == DropReason.UNREADABLE_SIGNAL
    assert "4,194,304" in text
    for name, most in (("b.ecg", 33), ("c.edf", 33), ("d.mwf", 17), ("e.scp", 5), ("f.xml", 17)):
        writer = {"b": "ishne.ecg", "c": "plus.edf", "d": "mfer.mwf", "e": "scp.scp", "f": "muse.xml"}[name[0]]
        large = put(name, WRITERS[writer](Ecg()))
        os.truncate(large, most << 20)
        assert "at most" in refused(large)[1]


@pytest.mark.slow
def test_what_a_file_left_in_memory_does_not_decide_on_the_next(put):
    """XML of many elements takes 100 MiB, and the largest EDF nearly all that there is."""
    many = put("a.xml", WRITERS["muse.xml"](Ecg()).replace(b"<MuseInfo>", b"<a/>" * 500_000 + b"<MuseInfo>"))
    assert read_vendor(many).leads == EIGHT
    large = put("b.edf", WRITERS["plus.edf"](Ecg(d_LT=vendor_files.counts(8, 500).repeat(4000, axis=1))))
    assert large.stat().st_size > 30 << 20
    assert read_vendor(large).signal_LT.shape == (8, 15_000)


@pytest.mark.slow
def test_the_largest_files_that_are_read_fit_into_the_memory(put):
    for name, mib in (("ishne.ecg", 31), ("plus.edf", 31), ("mfer.mwf", 15)):
        samples = (mib << 20) // 16 // 500 * 500
        path = put(name, WRITERS[name](Ecg(d_LT=vendor_files.counts(8, 500).repeat(samples // 500, axis=1))))
        assert read_vendor(path).signal_LT.shape == (8, 15_000), name


ABSURD = {
    "scp.scp": [(b"\x01\0\0\0\x88\x13\0\0\x01", b"\x01\0\0\0\xff\xff\xff\xff\x01"), (b"SCPECG", b"\xff" * 6)],
    "ishne.ecg": [(b"\x00\0\0\0\x88\x13\0\0\x0a\x02", b"\xff\xff\xff\x7f\x88\x13\0\0\x0a\x02")],
    "mfer.mwf": [(b"\x04\x04\0\0\x13\x88", b"\x04\x04\x7f\xff\xff\xff"), (b"\x05\x02\0\x08", b"\x05\x02\xff\xff")],
    "plus.edf": [(b"8   ECG I", b"9999ECG I"), (b"500     500 ", b"99999999500 ")],
    "aecg.xml": [(b'value="0.002"', b'value="1e-300"'), (b'value="0.002"', b'value="nan"')],
    "muse.xml": [(b"<SampleBase>500<", b"<SampleBase>1e300<"), (b"Size>2<", b"Size>4<")],
    "mortara.xml": [(b'SAMPLE_FREQ="500"', b'SAMPLE_FREQ="1e300"'), (b'DURATION="5000"', b'DURATION="9e99"')],
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_numbers_are_refused(name: str, put):
    data = WRITERS[name](Ecg())
    for old, new in ABSURD[name]:
        assert old in data, old
        path = put(name, data.replace(old, new))
        with pytest.raises(RecordError):
            read_vendor(path)


def test_what_a_file_says_of_a_person_is_in_no_text(put):
    """A drop's reason is stored and shown: it quotes nothing of the file."""
    for name, old, new in (
        ("aecg.xml", b"<digits>", b"<digits>PRIVATE "),
        ("plus.edf", b"-32767  ", b"PRIVATE "),
        ("muse.xml", b"<WaveFormData>", b"<WaveFormData>PRIVATE!"),
        ("mortara.xml", b'SAMPLE_FREQ="500"', b'SAMPLE_FREQ="PRIVATE"'),
    ):
        data = WRITERS[name](Ecg()).replace(vendor_files.PERSON.encode(), b"x")
        text = refused(put(name, data.replace(old, new)))[1]
        assert "PRIVATE" not in text, text
    warned = WRITERS["mfer.mwf"](Ecg()).replace(struct.pack(">BHHBB", 63, 0, 1960, 2, 29), b"\x3f\0\0\x07\xa8\x0d\x63")
    assert "1960" not in repr(read_vendor(put("a.mwf", warned)))


def test_no_other_file_is_opened(put, tmp_path: Path):
    """A format that names others is not taken from the library, whatever a file is called."""
    put("x.hea", b"x 1 500 5000\nx.dat 16 200 16 0 0 0 0 I\n")
    with pytest.raises(RecordError) as caught:
        read_vendor(tmp_path / "x.hea")
    assert caught.value.reason == DropReason.UNKNOWN_FORMAT
    with pytest.raises(RecordError) as caught:
        process.ask(tmp_path / "x.hea", Kind.EDF)
    assert caught.value.reason == DropReason.UNKNOWN_FORMAT


def test_random_bytes_behind_each_mark(put):
    shuffled = random.Random(3)
    marks = {
        "a.ecg": b"ISHNE1.0",
        "b.edf": b"0       ",
        "c.mwf": b"\x40\x20MFR ",
        "d": b"\0" * 128 + b"DICM",
        "e.scp": b"\0" * 10 + b"\x88\0\0\0" + b"\0" * 14 + b"\7\0\0\0",
        "f.xml": b"<RestingECG>",
    }
    for name, mark in marks.items():
        for size in (0, 300, 5000):
            with pytest.raises(RecordError):
                read_vendor(put(name, mark + shuffled.randbytes(size)))

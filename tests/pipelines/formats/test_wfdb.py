"""The WFDB reader against wfdb-python on real records, and against everything that can be wrong with a record."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.wfdb import read_wfdb
from pipelines.formats.wfdb_header import named_files, parse_header
from pipelines.formats.wfdb_signals import decode
from pipelines.records import DropReason, RecordError
from pipelines.sources.challenge import GAIN
from tests.support.paths import SHARED

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3.1 uses what pandas 3.1 deprecates
    import wfdb

FILES = SHARED / "real" / "mirror" / "physionet.org" / "files"
OLD = SHARED / "real" / "damaged" / "old_headers"

real = pytest.mark.skipif(not FILES.is_dir(), reason=f"no real records at {FILES}")

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def record(d_TL: np.ndarray) -> tuple[str, bytes]:
    """A challenge record A1 of digital values: its header's text and the bytes of its .mat."""
    samples, leads = d_TL.shape
    head = np.array([30, leads, samples, 0, 4], "<i4").tobytes() + b"val\0"
    lines = [f"A1 {leads} 500 {samples}"]
    for lead, values in zip(LEADS, d_TL.T.astype(np.int64), strict=False):
        checksum = int(np.int16(np.uint16(values.sum() % 65536)))
        lines.append(f"A1.mat 16+24 1000/mV 16 0 {values[0]} {checksum} 0 {lead}")
    text = "\n".join([*lines, "#Age: 60", "#Sex: Male", "#Dx: 426783006"]) + "\n"
    return text, head + d_TL.astype("<i2").tobytes()


def noise(seed: int = 0, samples: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2000, 2000, (samples, 12))


def read(text: str, data: bytes) -> np.ndarray:
    return decode(parse_header(text, "A1", gains=GAIN), data)


def refused(text: str, data: bytes) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read(text, data)
    return caught.value


TEXT, DATA = record(noise())


@real
@pytest.mark.parametrize("project", ["ecg-arrhythmia", "challenge-2020", "ludb", "ptb-xl"])
def test_every_real_record_is_what_wfdb_reads(project):
    headers = sorted((FILES / project).rglob("*.hea"))
    assert headers
    for path in headers:
        ours = read_wfdb(path)
        expected = wfdb.rdrecord(str(path.with_suffix("")))
        assert ours.leads == tuple(expected.sig_name)
        assert ours.header.rate == expected.fs
        assert ours.signal_LT.dtype == np.float32
        # float32 holds one part in 1.7e7.
        np.testing.assert_allclose(ours.signal_LT, expected.p_signal.T, rtol=1e-7, atol=1e-6, equal_nan=True)


@pytest.mark.skipif(not OLD.is_dir(), reason=f"no damaged records at {OLD}")
def test_early_headers_are_refused_for_what_is_wrong_with_them(tmp_path):
    wrong_gain = 0
    for path in sorted(OLD.glob("*.hea")):
        with pytest.raises(RecordError, match="record line") as caught:
            read_wfdb(path)
        assert caught.value.reason is DropReason.UNREADABLE_HEADER
        # With the record line put right, what is left is the gain.
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace(f"{path.stem}.mat 12", f"{path.stem} 12", 1))
        shutil.copy(path.with_suffix(".mat"), tmp_path)
        if "4880/mV" in text:
            wrong_gain += 1
            with pytest.raises(RecordError, match="4880/mV") as caught:
                read_wfdb(tmp_path / path.name, gains=GAIN)
            assert caught.value.reason is DropReason.IMPLAUSIBLE_GAIN
        else:
            assert read_wfdb(tmp_path / path.name, gains=GAIN).signal_LT.shape == (12, 5000)
    assert wrong_gain == 7


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb 4.3.1 and pandas 3.1
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_any_gain_baseline_and_unit_that_wfdb_writes(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("wfdb")
    leads = data.draw(st.integers(1, 12))
    unit, millivolt = data.draw(st.sampled_from([("mV", 1.0), ("uV", 1e-3), ("V", 1e3)]))
    gain = [data.draw(st.floats(20, 90_000)) * millivolt for _ in range(leads)]
    baseline = [data.draw(st.integers(-500, 500)) for _ in range(leads)]
    seed = data.draw(st.integers(0, 2**32 - 1))
    d_TL = np.random.default_rng(seed).integers(-32768, 32768, (data.draw(st.integers(1, 40)), leads))
    wfdb.wrsamp(
        "x1",
        fs=data.draw(st.sampled_from([100, 257, 500, 1000])),
        units=[unit] * leads,
        sig_name=list(LEADS[:leads]),
        d_signal=d_TL,
        fmt=["16"] * leads,
        adc_gain=gain,
        baseline=baseline,
        write_dir=str(folder),
    )
    expected = wfdb.rdrecord(str(folder / "x1"))
    ours = read_wfdb(folder / "x1.hea")
    assert ours.header.rate == expected.fs
    assert ours.leads == tuple(LEADS[:leads])
    np.testing.assert_allclose(ours.signal_LT, expected.p_signal.T * millivolt, rtol=3e-7, atol=1e-9, equal_nan=True)
    assert np.array_equal(np.isnan(ours.signal_LT), d_TL.T == -32768)


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 599), change=st.integers(1, 65535))
def test_no_changed_sample_is_read_as_a_good_one(at, change):
    values = np.frombuffer(DATA, "<u2", offset=24).astype(np.uint32)
    values[at] += change
    error = refused(TEXT, DATA[:24] + (values % 65536).astype("<u2").tobytes())
    assert error.reason is DropReason.CHECKSUM_WRONG
    assert LEADS[at % 12] in error.detail


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_mutated_header_is_read_or_refused_and_nothing_else(data):
    raw = bytearray(TEXT.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with suppress(RecordError):
        assert read(raw.decode("utf-8", "replace"), DATA).shape == (12, 50)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(0, 3000).filter(lambda size: size != len(DATA)))
def test_another_size_is_refused(size):
    error = refused(TEXT, (DATA * 3)[:size])
    assert error.reason is DropReason.WRONG_FILE_SIZE
    assert f"{size} bytes" in error.detail


@real
def test_a_merged_header_is_rebuilt_and_says_so(tmp_path):
    path = FILES / "ecg-arrhythmia/1.0.0/WFDBRecords/01/010/JS00001.hea"
    whole = path.read_text().splitlines()
    # As JS01052.hea and JS23074.hea are published: "\nJS00001.mat 16+24 10" is lost.
    merged = whole[1].removeprefix("JS00001.mat 16+24 10")
    (tmp_path / "JS00001.hea").write_text("\n".join([f"JS00001 12 500 5000{merged}", *whole[2:]]))
    shutil.copy(path.with_suffix(".mat"), tmp_path)
    repaired = read_wfdb(tmp_path / "JS00001.hea", gains=GAIN)
    np.testing.assert_array_equal(repaired.signal_LT, read_wfdb(path).signal_LT)
    assert repaired.leads == LEADS
    assert repaired.header.comments == read_wfdb(path).header.comments
    assert "repaired" in repaired.header.notes[0]
    # The repair is proven by the first lead's checksum.
    other = merged.replace("21756", "21757")
    (tmp_path / "JS00001.hea").write_text("\n".join([f"JS00001 12 500 5000{other}", *whole[2:]]))
    with pytest.raises(RecordError) as caught:
        read_wfdb(tmp_path / "JS00001.hea")
    assert caught.value.reason is DropReason.CHECKSUM_WRONG


@pytest.mark.parametrize(
    "start",
    [
        "",
        " 2006",
        " 12:30",
        " 10:00:00 12/3/199",
        " 2021-05-06 10:00:00",
        " 9:49 5/5/20",
        " 12:33:59",
        " 12:33:59 12/05/2020",
        " 12-May-2020 12:33:59",
        " 12:33:59.250 12-May-2020",
        " 12-May-2020",
    ],
)
def test_date_and_time_of_any_form_cost_no_ecg(start):
    assert read(TEXT.replace("A1 12 500 50\n", f"A1 12 500 50{start}\n"), DATA).shape == (12, 50)


@pytest.mark.parametrize(
    "line", ["A1 12 500/500 50\n", "A1 12 500/1000(0) 50\n", "A1 12 500.0/1e3(-25.5) 50\n", "g/x/A1 12 500 50\n"]
)
def test_counters_and_folders_in_the_record_line_are_passed_over(line):
    header = parse_header(TEXT.replace("A1 12 500 50\n", line), "A1")
    assert (header.record, header.rate, header.frames) == ("A1", 500, 50)
    np.testing.assert_array_equal(decode(header, DATA), read(TEXT, DATA))


@pytest.mark.parametrize(
    ("gain", "millivolt"),
    [
        ("1000.0(0)/mV", 1000),
        ("+1000(+0)/mV", 1000),
        ("1e3(0.0)/mv", 1000),
        ("1000/millivolts", 1000),
        ("0.2/uV", 200),
        ("1/µV", 1000),
        ("1/microvolt", 1000),
        ("0.001/nV", 1000),
        ("1e6/V", 1000),
        ("200", 200),
    ],
)
def test_gains_as_headers_write_them(gain, millivolt):
    header = parse_header(TEXT.replace("1000/mV", gain), "A1")
    assert [signal.gain for signal in header.signals] == pytest.approx([millivolt] * 12)


def test_a_header_without_checksums_is_read_and_says_so():
    lines = TEXT.splitlines()
    lines[1:13] = [" ".join([*line.split()[:5], "0", "0", *line.split()[7:]]) for line in lines[1:13]]
    header = parse_header("\n".join(lines), "A1")
    assert header.notes == ("samples not compared: the header has no first values and checksums",)
    np.testing.assert_array_equal(decode(header, DATA), read(TEXT, DATA))
    lines[1] = TEXT.splitlines()[1]  # one lead has them: they are compared, and those of the others are wrong
    assert refused("\n".join(lines), DATA).reason is DropReason.CHECKSUM_WRONG


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "latin-1"])
def test_a_header_as_windows_writes_it(encoding, tmp_path):
    text = (TEXT + "# Patient: M\u00fcller-17\n").replace("1000/mV", "1/\u00b5V").replace("\n", "\r\n")
    (tmp_path / "A1.hea").write_bytes(text.encode(encoding))
    (tmp_path / "A1.mat").write_bytes(DATA)
    found = read_wfdb(tmp_path / "A1.hea")
    np.testing.assert_array_equal(found.signal_LT, read(TEXT, DATA))
    assert "Patient: M\u00fcller-17" in found.header.comments


def test_leads_in_several_files_of_any_name_are_read_together(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    x_TL = np.random.default_rng(0).integers(-900, 900, (60, 15))
    names = [*LEADS, "vx", "vy", "vz"]
    form = {"fmt": ["16"] * 15, "adc_gain": [2000.0] * 15, "baseline": [0] * 15}
    wfdb.wrsamp("p", 1000, ["mV"] * 15, names, d_signal=x_TL.astype(np.int64), write_dir=str(tmp_path), **form)
    (tmp_path / "p.dat").unlink()
    x_TL[:, :12].astype("<i2").tofile(tmp_path / "p_ecg.dat")
    (tmp_path / "p.xyz").write_bytes(b"head" + x_TL[:, 12:].astype("<i2").tobytes())
    lines = (tmp_path / "p.hea").read_text().splitlines()
    lines = [lines[0], *(line.replace("p.dat", "p_ecg.dat") for line in lines[1:13])] + [
        line.replace("p.dat 16", "p.xyz 16+4") for line in lines[13:]
    ]
    (tmp_path / "p.hea").write_text("\n".join(lines))
    found = read_wfdb(tmp_path / "p.hea")
    assert found.leads == tuple(names)
    np.testing.assert_allclose(found.signal_LT, x_TL.T / 2000, atol=1e-6)
    assert named_files(tmp_path / "p.hea").signals == ("p_ecg.dat", "p.xyz")
    (tmp_path / "p.xyz").write_bytes(b"head" + x_TL[:50, 12:].astype("<i2").tobytes())
    with pytest.raises(RecordError) as caught:
        read_wfdb(tmp_path / "p.hea")
    assert caught.value.reason is DropReason.WRONG_FILE_SIZE


@pytest.mark.parametrize("line", ["A1 12 500\n", "A1 12 500 0\n"])
def test_a_length_that_is_not_given_is_the_files(line):
    assert read(TEXT.replace("A1 12 500 50\n", line), DATA).shape == (12, 50)


REASON_OF_EDIT = [
    ("A1 12 500 50\n", "", DropReason.UNREADABLE_HEADER, "record line"),
    ("A1 12 500 50\n", "A1.mat 12 500 50\n", DropReason.UNREADABLE_HEADER, "record line"),
    ("A1 12 500 50\n", "A2 12 500 50\n", DropReason.UNREADABLE_HEADER, "'A2'"),
    ("A1 12 500 50\n", "A1 11 500 50\n", DropReason.UNREADABLE_HEADER, "12 signal lines"),
    ("A1 12 500 50\n", "A1 12 0 50\n", DropReason.UNREADABLE_HEADER, "rate"),
    ("A1 12 500 50\n", "A1/3 12 500 50\n", DropReason.UNREADABLE_HEADER, "several segments"),
    ("A1 12 500 50\n", "A1 12 500 50 $1\n", DropReason.UNREADABLE_HEADER, "record line"),
    ("A1 12 500 50\n", "A1 12 500 51\n", DropReason.WRONG_FILE_SIZE, "1248 bytes"),
    ("A1.mat 16+24", "../A1.mat 16+24", DropReason.UNREADABLE_HEADER, "../A1.mat"),
    ("A1.mat 16+24", "/etc/A1.mat 16+24", DropReason.UNREADABLE_HEADER, "beside the header"),
    ("A1.mat 16+24", "..mat 16+24", DropReason.UNREADABLE_HEADER, "..mat"),
    ("A1.mat 16+24", "A1.mat 212", DropReason.UNREADABLE_HEADER, "'212'"),
    ("A1.mat 16+24", "A1.mat 16", DropReason.UNREADABLE_HEADER, "'16'"),
    ("A1.mat 16+24", "A1.mat 16x2+24", DropReason.UNREADABLE_HEADER, "16x2+24"),
    ("1000/mV", "1000/bpm", DropReason.UNKNOWN_UNIT, "'bpm'"),
    ("1000/mV", "0/mV", DropReason.IMPLAUSIBLE_GAIN, "gain 0/mV"),
    ("1000/mV", "-1000/mV", DropReason.IMPLAUSIBLE_GAIN, "gain -1000/mV"),
    ("1000/mV", "1e999/mV", DropReason.IMPLAUSIBLE_GAIN, "1e999"),
    ("1000/mV", "1000/uV", DropReason.IMPLAUSIBLE_GAIN, "1000/uV"),
    ("1000/mV", "4880/mV", DropReason.IMPLAUSIBLE_GAIN, "4880/mV"),
    ("1000/mV", "high/mV", DropReason.UNREADABLE_HEADER, "high/mV"),
    (" 0 aVF\n", "\n", DropReason.UNREADABLE_HEADER, "nine fields"),
]


@pytest.mark.parametrize(("old", "new", "reason", "words"), REASON_OF_EDIT)
def test_what_is_wrong_has_its_reason_and_its_words(old, new, reason, words):
    assert old in TEXT
    error = refused(TEXT.replace(old, new), DATA)
    assert error.reason is reason
    assert words in error.detail
    assert "A1" in error.detail  # the file


def with_gain(d_TL: np.ndarray, gain: str) -> tuple[str, bytes]:
    """The record of digital values with another gain of lead aVF."""
    text, data = record(d_TL)
    lines = text.split("\n")
    lines[6] = lines[6].replace("1000/mV", gain)
    return "\n".join(lines), data


def test_a_fine_gain_is_believed_of_a_lead_that_fills_its_bits():
    d_TL = noise()
    d_TL[:, 5] = np.linspace(-32767, 32767, len(d_TL)).round()
    d_TL[3, 5] = -32768  # missing
    text, data = with_gain(d_TL, "1300000/mV")
    read_LT = decode(parse_header(text, "A1"), data)
    assert np.nanmax(read_LT[5]) == pytest.approx(32767 / 1.3e6)
    text, data = with_gain(d_TL, "1300001/mV")
    with pytest.raises(RecordError, match=r"10 to 1,300,000 a millivolt .*put the true gain") as caught:
        parse_header(text, "A1")
    assert caught.value.reason is DropReason.IMPLAUSIBLE_GAIN
    with pytest.raises(RecordError, match=r"gain 1300000/mV of lead aVF: 1,000 a millivolt"):
        read(*with_gain(d_TL, "1300000/mV"))  # a collection whose gain is known


@pytest.mark.parametrize("gain", ["100001/mV", "1000/uV"])
def test_a_fine_gain_of_another_lead_is_a_wrong_unit(gain):
    d_TL = noise()
    d_TL[3, 5] = -32768  # missing: it fills nothing
    text, data = with_gain(d_TL, gain)
    with pytest.raises(RecordError, match=r"of lead aVF: above 100,000 .* fills 16 bits, .* span 3,\d\d\d") as caught:
        decode(parse_header(text, "A1"), data)
    assert caught.value.reason is DropReason.IMPLAUSIBLE_GAIN


def test_a_container_that_is_none_is_refused():
    error = refused(TEXT, DATA[:4] + b"\x0b" + DATA[5:])
    assert error.reason is DropReason.UNREADABLE_SIGNAL
    assert "MATLAB" in error.detail


def test_a_file_that_is_not_there_is_named(tmp_path):
    (tmp_path / "A1.hea").write_text(TEXT)
    for name in ("A1", "A2"):
        with pytest.raises(RecordError, match=rf"{name}\.(mat|hea)") as caught:
            read_wfdb(tmp_path / f"{name}.hea")
        assert caught.value.reason is DropReason.FILE_MISSING

"""WFDB beyond plain 16 bit, against wfdb-python: formats, samples per frame, skew, segments, and damage to them."""

import os
import signal
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS_12
from pipelines.formats import wfdb_library, wfdb_signals
from pipelines.formats.wfdb import read_wfdb
from pipelines.formats.wfdb_header import FORMATS, parse_header
from pipelines.formats.wfdb_signals import decode
from pipelines.records import DropReason, RecordError
from tests.support.wfdb_files import bytes_of, flac_head, put_record

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3.1 uses what pandas 3.1 deprecates
    import wfdb

FIXED = [number for number, form in FORMATS.items() if not form.packed]
FLAC = [number for number, form in FORMATS.items() if form.packed]


def noise(number: str, frames: int = 601, leads: int = 5, seed: int = 0) -> np.ndarray:
    """Digital values (frames, leads) over all bits of a format, the one for "no value" among them."""
    bits = FORMATS[number].bits if number != "8" else 7
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    d_TL = np.random.default_rng(seed).integers(low, high, (frames, leads), endpoint=True)
    d_TL[0] = low
    d_TL[1:2] = high
    return np.cumsum(d_TL, axis=0) if number == "8" else d_TL


def millivolt(d_TL: np.ndarray, number: str, baseline: int = 0, gain: float = 1000) -> np.ndarray:
    missing = FORMATS[number].missing
    return np.where(d_TL == missing, np.nan, (d_TL - baseline) / gain).T


def refused(path: Path) -> RecordError:
    with pytest.raises(RecordError) as caught:
        read_wfdb(path)
    return caught.value


def expected(path: Path, **options) -> np.ndarray:
    return wfdb.rdrecord(str(path.with_suffix("")), **options).p_signal.T


@pytest.mark.parametrize("number", FORMATS)
@pytest.mark.parametrize("frames", [2, 600, 601])
def test_every_format_is_what_wfdb_reads_and_what_was_written(number, frames, tmp_path):
    d_TL = noise(number, frames)
    path = put_record(tmp_path, d_TL, number, gain=400, baseline=7)
    found = read_wfdb(path)
    assert found.leads == LEADS_12[:5]
    np.testing.assert_allclose(found.signal_LT, expected(path), rtol=3e-7, atol=1e-9, equal_nan=True)
    np.testing.assert_allclose(found.signal_LT, millivolt(d_TL, number, 7, 400), rtol=3e-7, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_both_readers_give_one_result_on_what_both_read(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("both")
    leads, frames = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 300))
    d_TL = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-32768, 32767, (frames, leads), endpoint=True)
    ahead = data.draw(st.sampled_from([0, 3, 24]))
    gain, baseline = data.draw(st.floats(20, 90_000)), data.draw(st.integers(-500, 500))
    path = put_record(folder, d_TL, "16", gain=gain, baseline=baseline, ahead=ahead)
    header = parse_header(path.read_text(), path.stem)
    ours = decode(header, path.with_suffix(".dat").read_bytes())
    library = wfdb_signals._by_library(header, 1, path.with_suffix(".dat"))
    np.testing.assert_array_equal(ours, library)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_format_frames_and_bytes_ahead(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    number = data.draw(st.sampled_from(FIXED))
    d_TL = noise(number, data.draw(st.integers(1, 50)), data.draw(st.integers(1, 12)), data.draw(st.integers(0, 99)))
    path = put_record(folder, d_TL, number, ahead=data.draw(st.sampled_from([0, 1, 24])))
    if data.draw(st.booleans()):  # a length that is not given is the file's
        path.write_text(path.read_text().replace(f" {len(d_TL)}\n", "\n", 1))
    found = read_wfdb(path).signal_LT
    assert found.shape[1] - len(d_TL) in (range(3) if FORMATS[number].samples > 1 else (0,))
    np.testing.assert_allclose(found[:, : len(d_TL)], millivolt(d_TL, number), rtol=3e-7, atol=1e-9)


def test_a_header_of_another_dialect_is_read_in_any_format(tmp_path):
    d_TL = noise("212")
    path = put_record(tmp_path, d_TL, "212")
    text = path.read_text().replace(" 500 601", " 500/1000(0) 601 2006").replace("1000(0)/mV", "+1(+0.0)/\u00b5V")
    path.write_bytes(("\ufeff" + text + "# Patient: M\u00fcller\n").replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(np.isnan(read_wfdb(path).signal_LT), d_TL.T == -2048)


@pytest.mark.parametrize("number", ["16", "212", "516"])
def test_several_samples_a_frame_make_the_rate(number, tmp_path):
    d_TL = noise(number, 600, 3)
    path = put_record(tmp_path, d_TL, number, per_frame=[4, 4, 4])
    found = read_wfdb(path)
    assert found.header.rate == 2000
    np.testing.assert_allclose(found.signal_LT, millivolt(d_TL, number), rtol=3e-7, atol=1e-9)


def test_a_channel_of_another_rate_is_left_out_with_a_note(tmp_path):
    fast, slow = noise("16", 400, 2), noise("16", 100, 1)
    path = put_record(
        tmp_path, [fast[:, 0], fast[:, 1], slow[:, 0]], "16", per_frame=[4, 4, 1], leads=["I", "V1", "Resp"]
    )
    found = read_wfdb(path)
    assert (found.leads, found.header.rate) == (("I", "V1"), 2000)
    assert found.header.notes == ("channels left out, of another rate: Resp (500 Hz)",)
    assert found.signal_LT.shape == (2, 400)
    # What is faster than the ECG is left out as well.
    path = put_record(tmp_path, [slow[:, 0], fast[:, 0]], "16", per_frame=[1, 4], leads=["II", "microphone"])
    found = read_wfdb(path)
    assert (found.leads, found.header.rate, found.signal_LT.shape) == (("II",), 500, (1, 100))


@pytest.mark.parametrize("number", ["16", "24"])
def test_late_leads_are_aligned(number, tmp_path):
    d_TL = noise(number)
    path = put_record(tmp_path, d_TL, number, skew=[0, 5, 0, 9, 0])
    found = read_wfdb(path)
    assert found.signal_LT.shape == (5, 592)
    assert "aligned by the header's skew: the last 9 samples" in found.header.notes[0]
    shifted_TL = np.stack([d_TL[late : 592 + late, at] for at, late in enumerate([0, 5, 0, 9, 0])], axis=1)
    np.testing.assert_allclose(found.signal_LT, millivolt(shifted_TL, number), rtol=3e-7, atol=1e-9)
    path = put_record(tmp_path, d_TL, number, skew=[3, 3, 3, 3, 3])  # alike, so none is late
    assert read_wfdb(path).signal_LT.shape == (5, 601)
    path = put_record(tmp_path, d_TL, number, skew=[0, 0, 0, 0, 601])
    assert refused(path).reason is DropReason.UNREADABLE_HEADER


def test_rows_and_leads_agree_where_files_take_turns(tmp_path):
    d_TL = noise("16", 50, 4)
    path = put_record(tmp_path, d_TL, "16")
    lines = path.read_text().splitlines()
    lines[2], lines[4] = (line.replace("r.dat 16", "s.dat 212") for line in (lines[2], lines[4]))
    second = noise("212", 50, 2)
    sums = [f"{d_T[0]} {int(d_T.sum()) % 65536}" for d_T in second.T]
    for at, of_lead in zip((2, 4), sums, strict=True):
        fields = lines[at].split()
        lines[at] = " ".join([*fields[:5], of_lead, *fields[7:]])
    path.write_text("\n".join(lines) + "\n")
    (tmp_path / "r.dat").write_bytes(bytes_of(d_TL[:, [0, 2]], "16"))
    (tmp_path / "s.dat").write_bytes(bytes_of(second, "212"))
    found = read_wfdb(path)
    by_lead = dict(zip(found.leads, found.signal_LT, strict=True))
    assert set(by_lead) == {"I", "II", "III", "aVR"}
    np.testing.assert_allclose(by_lead["III"], millivolt(d_TL, "16")[2], rtol=3e-7)
    np.testing.assert_allclose(by_lead["aVR"], millivolt(second, "212")[1], rtol=3e-7)


# Segments


def put_segments(folder: Path, lines: list[str], frames: int, comments: str = "") -> Path:
    path = folder / "m.hea"
    path.write_text(f"m/{len(lines)} 3 500 {frames}\n" + "\n".join(lines) + "\n" + comments)
    return path


@pytest.mark.parametrize("number", ["16", "80"])
def test_segments_are_joined_as_wfdb_joins_them(number, tmp_path):
    parts = [noise(number, frames, 3, seed) for seed, frames in enumerate((200, 150))]
    for name, d_TL in zip(("s1", "s2"), parts, strict=True):
        put_record(tmp_path, d_TL, number, name=name, comments=["Age: 63"])
    path = put_segments(tmp_path, ["s1 200", "s2 150"], 350, "# Patient: p1\n")
    found = read_wfdb(path)
    assert (found.header.record, found.leads, found.header.rate) == ("m", ("I", "II", "III"), 500)
    assert found.header.comments == ("Patient: p1", "Age: 63")
    assert found.header.notes == ("joined from 2 segments",)
    np.testing.assert_allclose(found.signal_LT, expected(path), rtol=3e-7, atol=1e-9, equal_nan=True)


def test_segments_of_other_signals_and_gaps_leave_missing_samples(tmp_path):
    first, second = noise("16", 40, 3), noise("212", 50, 2, seed=1)
    put_record(tmp_path, first, "16", name="s1")
    put_record(tmp_path, second, "212", name="s2", leads=["V1", "II"])
    lines = [f"~ 0 1000(0)/mV 0 0 0 0 0 {lead}" for lead in ("I", "II", "III", "V1")]
    (tmp_path / "m_layout.hea").write_text("m_layout 4 500 0\n" + "\n".join(lines) + "\n")
    path = put_segments(tmp_path, ["m_layout 0", "~ 7", "s1 40", "~ 13", "s2 50"], 110)
    path.write_text(path.read_text().replace("m/5 3", "m/5 4"))
    found = read_wfdb(path)
    oracle = wfdb.rdrecord(str(path.with_suffix("")))
    assert found.leads == tuple(oracle.sig_name) == ("I", "II", "III", "V1")
    np.testing.assert_allclose(found.signal_LT, oracle.p_signal.T, rtol=3e-7, atol=1e-9, equal_nan=True)
    assert np.isnan(found.signal_LT[:, :7]).all()


@pytest.mark.parametrize(
    ("lines", "frames", "words"),
    [
        (["s1 200", "s3 150"], 350, "s3.hea is not there"),
        (["s1 200", "s2 151"], 351, "its own header says 150"),
        (["s1 200", "s2 150"], 300, "segments of 350 samples"),
        (["s1 200", "m 150"], 350, "cannot be a segment of another one"),
        (["s1 200", "../s2 150"], 350, "segment line"),
        (["s1 200", "/etc/s2 150"], 350, "segment line"),
        (["s1 200", "http://x/s2 150"], 350, "segment line"),
        (["~ 0", "~ 9"], 9, "no segment with samples"),
        (["s1 200", "~ 999999999999"], 0, "samples with gaps: at most"),
        (["s1 200"] * 10_001, 0, "at most 10,000"),
    ],
)
def test_segments_that_cannot_be_joined(lines, frames, words, tmp_path):
    for seed, name, count in ((0, "s1", 200), (1, "s2", 150)):
        put_record(tmp_path, noise("16", count, 3, seed), "16", name=name)
    assert words in refused(put_segments(tmp_path, lines, frames)).detail


def test_segments_of_another_rate_are_refused(tmp_path):
    put_record(tmp_path, noise("16", 200, 3), "16", name="s1")
    path = put_record(tmp_path, noise("16", 150, 3), "16", name="s2")
    path.write_text(path.read_text().replace("s2 3 500", "s2 3 250"))
    assert "at 250 Hz" in refused(put_segments(tmp_path, ["s1 200", "s2 150"], 350)).detail
    put_record(tmp_path, noise("16", 300, 3), "16", name="s2", per_frame=[2, 2, 2])
    assert "segments at 500 and 1000 Hz" in refused(put_segments(tmp_path, ["s1 200", "s2 150"], 350)).detail


# Damage


@pytest.mark.parametrize("number", FORMATS)
def test_no_changed_sample_is_read_as_a_good_one(number, tmp_path):
    path = put_record(tmp_path, noise(number, 600), number)
    file = path.with_suffix(".dat")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x04
    file.write_bytes(data)
    assert refused(path).reason in (DropReason.CHECKSUM_WRONG, DropReason.UNREADABLE_SIGNAL)


@pytest.mark.parametrize("number", FORMATS)
def test_another_length_is_refused_before_anything_is_read(number, tmp_path, monkeypatch):
    path = put_record(tmp_path, noise(number, 600), number)
    monkeypatch.setattr(wfdb_signals, "read_samples", None)
    text = path.read_text()
    if number != "16":
        for frames in ("599", "601", "999999999999"):
            path.write_text(text.replace(" 600\n", f" {frames}\n", 1))
            error = refused(path)
            assert (error.reason, frames in error.detail.replace(",", "")) == (DropReason.WRONG_FILE_SIZE, True)
    path.write_text(text)
    (tmp_path / "r.dat").unlink()
    assert refused(path).reason is DropReason.FILE_MISSING


def test_a_flac_that_unfolds_to_more_than_is_read(tmp_path, monkeypatch):
    """2**36 samples of silence, by the word of the file and of the header."""
    path = put_record(tmp_path, np.zeros((600, 8), int), "516")
    file = path.with_suffix(".dat")
    data = file.read_bytes()
    frames = (1 << 36) - 1
    file.write_bytes(flac_head(data, frames))
    path.write_text(path.read_text().replace(" 600\n", f" {frames}\n", 1))
    monkeypatch.setattr(wfdb_signals, "read_samples", None)
    error = refused(path)
    assert "549,755,813,880 samples: at most 16,777,216" in error.detail
    path.write_text(path.read_text().replace(f" {frames}\n", " 600\n", 1))
    assert refused(path).reason is DropReason.WRONG_FILE_SIZE


def test_a_flac_that_has_less_than_it_says(tmp_path):
    path = put_record(tmp_path, noise("516", 600), "516")
    file = path.with_suffix(".dat")
    file.write_bytes(flac_head(file.read_bytes(), 2_000_000))
    path.write_text(path.read_text().replace(" 600\n", " 2000000\n", 1))
    assert refused(path).reason is DropReason.UNREADABLE_SIGNAL
    assert read_wfdb(put_record(tmp_path, noise("212"), "212")).signal_LT.shape == (5, 601)  # and it goes on


@pytest.mark.parametrize("name", ["r.dat", "s1.hea", "s1.dat"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_folders_and_pipes_of_a_files_name_are_not_opened(name, make, tmp_path):
    """To open a pipe would wait for ever."""
    path = put_record(tmp_path, noise("16"), "16")
    if name != "r.dat":
        put_record(tmp_path, noise("212", 200), "212", name="s1")
        path = put_segments(tmp_path, ["s1 200"], 200)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    error = refused(path)
    assert error.reason is DropReason.FILE_MISSING
    assert f"{name} is not there" in error.detail


@pytest.mark.parametrize("number", FLAC)
def test_what_is_no_flac_is_refused(number, tmp_path):
    path = put_record(tmp_path, noise("16"), "16")
    path.write_text(path.read_text().replace("r.dat 16", f"r.dat {number}"))
    assert "not that of FLAC" in refused(path).detail


@pytest.mark.parametrize("form", ["0", "9", "17", "16x0", "16x10000", "212:x", "516+", "16x2+24 "])
def test_a_format_that_is_none_is_named(form, tmp_path):
    path = put_record(tmp_path, noise("16"), "16")
    path.write_text(path.read_text().replace("r.dat 16", f"r.mat {form}"))
    error = refused(path)
    assert error.reason is DropReason.UNREADABLE_HEADER
    assert form.strip() in error.detail


@pytest.mark.parametrize("number", ["16", "32", "80"])
def test_a_matlab_matrix_of_each_kind(number, tmp_path):
    d_TL = noise(number)
    path = put_record(tmp_path, d_TL, number, ahead=24)
    path.write_text(path.read_text().replace("r.dat", "r.mat"))
    data = path.with_suffix(".dat").read_bytes()[24:]
    head = struct.pack("<5i4s", {"16": 30, "32": 20, "80": 50}[number], 5, 601, 0, 4, b"val\0")
    path.with_suffix(".mat").write_bytes(head + data)
    assert read_wfdb(path).signal_LT.shape == (5, 601)
    path.with_suffix(".mat").write_bytes(bytes(24) + data)
    assert "MATLAB 4 matrix" in refused(path).detail


def test_a_fine_gain_is_believed_of_a_lead_that_fills_its_bits(tmp_path):
    assert read_wfdb(put_record(tmp_path, noise("24"), "24", gain=8e6)).signal_LT.shape == (5, 601)
    path = put_record(tmp_path, noise("24") // 4, "24", gain=8e6)
    assert "fills 24 bits" in refused(path).detail
    assert refused(put_record(tmp_path, noise("212"), "212", gain=200_000)).reason is DropReason.IMPLAUSIBLE_GAIN


def test_without_the_library_the_message_names_the_extra(tmp_path, monkeypatch):
    path = put_record(tmp_path, noise("212"), "212")
    monkeypatch.setattr(wfdb_library.importlib.util, "find_spec", lambda name: None)
    error = refused(path)
    assert error.reason is DropReason.UNKNOWN_FORMAT
    assert "WFDB format 212 needs wfdb: make install, or pip install -e '.[vendor]' in the checkout" in error.detail
    assert wfdb_library.library_version() == "no wfdb"
    assert read_wfdb(put_record(tmp_path, noise("16"), "16")).signal_LT.shape == (5, 601)


def test_nothing_is_left_of_a_file_that_ended_the_process(tmp_path, monkeypatch):
    path = put_record(tmp_path, noise("212"), "212")
    read_wfdb(path)
    process = wfdb_library._DECODER._process
    assert process is not None
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(wfdb_library.tempfile, "tempdir", str(tmp_path / "tmp"))
    os.kill(process.pid, signal.SIGSTOP)  # it waits in the file
    threading.Timer(0.2, os.kill, (process.pid, signal.SIGKILL)).start()
    assert "ended the process, which may have 1024 MiB" in refused(path).detail
    assert list((tmp_path / "tmp").iterdir()) == []
    assert read_wfdb(path).signal_LT.shape == (5, 601)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_library_opens_no_file_but_the_one_that_was_checked(tmp_path):
    """What stands in a comment or a lead's name stays there."""
    path = put_record(tmp_path, noise("212"), "212", leads=["I", "II", "http://x/y", "../z", "~"], comments=["s3://a"])
    assert read_wfdb(path).leads == ("I", "II", "http://x/y", "../z", "~")

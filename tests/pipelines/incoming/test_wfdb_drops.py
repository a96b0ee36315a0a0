"""WFDB records of every form in a drop: one ECG is one record, whatever its number of files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ecg_model.leads import LEADS
from pipelines.incoming.check import DropReport, check_drop
from pipelines.incoming.readers import read_file
from pipelines.records import DroppedRecord, Record
from tests.support.drops import read
from tests.support.paths import SHARED
from tests.support.wfdb_files import put_record

CASES = SHARED / "cases"


def by_id(folder: Path) -> dict[str, Record | DroppedRecord]:
    items = read(folder)
    found = {item.record_id: item for item in items}
    assert len(found) == len(items)
    return found


def ecg(seed: int, seconds: int = 10) -> np.ndarray:
    """Digital values (T, 8) of what looks like eight leads of an ECG."""
    t = np.arange(500 * seconds) / 500
    beats = np.exp(-(((t % 0.8) - 0.4) ** 2) / 0.0005)
    noise = np.random.default_rng(seed).normal(0, 20, (len(t), 8))
    return (beats[:, None] * np.linspace(300, 900, 8) + noise).round().astype(int)


def put_master(folder: Path, name: str, *segments: str) -> Path:
    lines = [f"{segment} 5000" for segment in segments]
    path = folder / f"{name}.hea"
    path.write_text("\n".join([f"{name}/{len(lines)} 8 500 {5000 * len(lines)}", *lines]) + "\n")
    return path


def test_segments_are_one_record_and_none_of_their_own(drop: Path) -> None:
    for seed, name in enumerate(("ms_0001", "ms_0002")):
        put_record(drop, ecg(seed), "212", name=name, leads=LEADS)
    put_record(drop, ecg(3), "16", name="other", leads=LEADS)
    put_master(drop, "ms", "ms_0001", "ms_0002")
    found = by_id(drop)
    assert list(found) == ["ms", "other"]
    assert isinstance(found["ms"], Record)
    assert found["ms"].signal_LT.shape == (8, 10_000)
    assert "joined from 2 segments" in found["ms"].notes
    report = check_drop(drop)
    assert (report.records, report.kept, report.unread) == (2, 2, 0)
    (drop / "ms_0002.dat").unlink()  # nothing of a record that cannot be read whole is taken
    dropped = by_id(drop)["ms"]
    assert isinstance(dropped, DroppedRecord)
    assert "ms_0002.dat is not there" in dropped.detail
    # A segment that is asked for by name is read by itself, and the record by the header that joins it.
    (one,) = read_file(drop / "ms_0001.hea")
    assert isinstance(one.item, Record)
    assert (one.item.record_id, one.units) == ("ms_0001", "1000 units a millivolt, format 212")


def test_no_record_is_lost_to_a_header_that_claims_it(drop: Path) -> None:
    put_record(drop, ecg(0), "16", name="p1", leads=LEADS)
    put_master(drop, "a", "b")
    put_master(drop, "b", "a")
    put_master(drop, "c", "c")
    put_record(drop, ecg(1), "16", name="p2", leads=LEADS)
    (drop / "p2.hea").write_text((drop / "p2.hea").read_text().replace("p2.dat", "p1.hea", 1))
    found = by_id(drop)
    assert list(found) == ["a", "b", "c", "p1", "p2"]
    assert [name for name, item in found.items() if isinstance(item, Record)] == ["p1"]


def test_signal_files_of_any_name_are_of_their_record(drop: Path) -> None:
    path = put_record(drop, ecg(0), "516", name="p1", leads=LEADS)
    path.write_text(path.read_text().replace("p1.dat", "ward_7.flac"))
    (drop / "p1.dat").rename(drop / "ward_7.flac")
    report = check_drop(drop)
    assert (report.records, report.kept, report.unread, report.ignored) == (1, 1, 0, ())


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("format_212", 1),
        ("format_32", 1),
        ("format_516", 1),
        ("samples_per_frame", 1),
        ("multi_segment", 1),
        ("two_signal_files_ptbdb", 1),
        ("signal_file_other_name", 1),
        ("base_time_forms", 6),
        ("counter_frequency", 3),
        ("bom_header", 1),
        ("uppercase_files", 1),
        ("inline_comment", 1),
        ("record_name_forms", 2),
        ("gain_forms", 14),
        ("accents_in_comments", 2),
        ("zero_checksums", 1),
        ("float_rates", 8),
    ],
)
def test_cases_of_public_reports_are_kept_and_right(name: str, kept: int) -> None:
    report = report_of(name)
    assert (report.records, report.kept, report.unread) == (kept, kept, 0)
    expected = json.loads((CASES / name / "EXPECTED.json").read_text())["records"]
    for item in read(CASES / name / "drop"):
        assert isinstance(item, Record)
        # Of the joined record, the first segment's values are known.
        values = expected["ms_0001" if name == "multi_segment" else item.record_id]
        assert item.rate == values["rate"]
        leads = [lead.partition(" #")[0] for lead in item.leads]
        for lead, first in values["first_mV"].items():
            np.testing.assert_allclose(item.signal_LT[leads.index(lead), : len(first)], first, atol=6e-4)


@pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases at {CASES}")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("skew", "4995 samples at 500 Hz"),  # aligned, and then a hundredth of a second too short
        ("one_sample_short", "719976 bytes, 12 leads need 720000 bytes"),
        ("gain_zero", "put the true gain into the header"),
    ],
)
def test_cases_of_public_reports_that_are_refused(name: str, words: str) -> None:
    report = report_of(name)
    assert (report.records, report.kept) == (1, 0)
    assert words in report.drops[0].record.detail


def report_of(name: str) -> DropReport:
    return check_drop(CASES / name / "drop")


def test_capitals_in_every_ending_of_segments(drop: Path) -> None:
    put_record(drop, ecg(0), "212", name="S1", leads=LEADS)
    put_record(drop, ecg(1), "212", name="S2", leads=LEADS)
    put_master(drop, "M", "S1", "S2")
    for path in list(drop.iterdir()):
        path.write_bytes(path.read_bytes().replace(b".dat", b".DAT"))
        shutil.move(path, path.with_suffix(path.suffix.upper()))
    assert list(by_id(drop)) == ["M"]
    assert check_drop(drop).kept == 1


@pytest.mark.parametrize("scale", ["12.8/mmHg", "0.5(-3)/Ohm", "1023/NU", "1e6/mV", "0/mV"])
def test_a_channel_that_is_no_lead_may_have_any_unit_or_gain(drop: Path, scale: str) -> None:
    x_TL = np.column_stack([ecg(0), np.arange(5000) % 90])
    header = put_record(drop, x_TL, "16", leads=(*LEADS, "ABP"))
    *leads, abp = header.read_text().splitlines()
    header.write_text("\n".join([*leads, abp.replace("1000(0)/mV", scale)]) + "\n")
    record = by_id(drop)["r"]
    assert isinstance(record, Record)
    np.testing.assert_allclose(record.signal_LT[:8], ecg(0).T / 1000, rtol=1e-6)
    assert check_drop(drop).kept == 1
    # Names that drop.json maps to leads may be any: where none is a lead's, each unit is needed.
    header.write_text("\n".join([*(f"{line}x" for line in leads[1:]), abp.replace("1000(0)/mV", scale)]))
    header.write_text("\n".join([leads[0], header.read_text()]) + "\n")
    assert isinstance(by_id(drop)["r"], DroppedRecord)

"""What was never recorded is trimmed, missing or noted, in every format, with figures on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_model.leads import LEADS_12
from pipelines.formats.shard import open_shard
from pipelines.harmonize.convert import encodable, harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.window import Incomplete
from pipelines.records import Record
from tests.pipelines.harmonize.test_harmonize import changed, only_drop, record, run
from tests.support.drops import read
from tests.support.paths import SHARED

CASES = SHARED / "cases"


def padded(base: Record, before: int, after: int, value: float = 0.0) -> Record:
    return replace(base, signal_LT=np.pad(base.signal_LT, ((0, 0), (before, after)), constant_values=value))


@pytest.mark.parametrize("value", [0.0, np.nan, -6.5536])
def test_padding_is_trimmed_and_said_whatever_it_holds(tmp_path: Path, value: float) -> None:
    base = record()
    (row,) = run(tmp_path / "padded", padded(base, 300, 400, value)).records().to_pylist()
    (alone,) = run(tmp_path / "alone", base).records().to_pylist()
    assert row["notes"] == ["padding trimmed: 300 samples before, 400 after"]
    assert {**row, "notes": []} == alone


def test_a_record_that_is_too_short_without_its_padding_names_both(tmp_path: Path) -> None:
    short = padded(record(rate=400, seconds=7), 648, 648)
    reason, detail = only_drop(run(tmp_path / "out", short))
    assert reason == "too short"
    assert "2800 samples at 400 Hz" in detail
    assert "repeat_from (a setting of own ECGs) of 7 or less keeps it" in detail
    assert detail.endswith("; padding trimmed: 648 samples before, 648 after")
    out = tmp_path / "repeated"
    harmonize([short], out, source="own", limits=QualityLimits(), incomplete=Incomplete(repeat_from=7))
    (row,) = open_shard(out).records().to_pylist()
    assert (row["samples"], row["notes"][1]) == (2800, "repeated to fill the window: 7.00 s were recorded")
    found = encodable(short)  # a model encodes it as it is
    assert isinstance(found, Record)
    assert found.signal_LT.shape == (8, 2800)


def test_a_lead_that_was_off_is_missing_from_then_on(tmp_path: Path) -> None:
    reason, detail = only_drop(run(tmp_path, changed(record(), LEADS_12.index("V3"), slice(500, None), 0.0)))
    assert reason == "missing samples"
    assert "of 5,000 in a lead: V3 4,500; the first at 1.000 s; not recorded in part: V3" in detail


def test_a_lead_that_nothing_needs_may_be_off_with_a_note(tmp_path: Path) -> None:
    (row,) = run(tmp_path, changed(record(), LEADS_12.index("aVL"), slice(500, None), 0.0)).records().to_pylist()
    assert row["notes"][0].startswith("not recorded in part: aVL")
    assert row["notes"][1] == "leads with missing samples not used: aVL"
    assert row["quality_missing_share"] == pytest.approx(4500 / 60_000)


def test_what_was_not_recorded_behind_the_window_is_a_note(tmp_path: Path) -> None:
    base = record(seconds=20)
    (row,) = run(tmp_path, changed(base, LEADS_12.index("V6"), slice(7000, None), 0.1)).records().to_pylist()
    assert row["notes"][0].startswith("not recorded in part: V6")
    assert row["quality_missing_share"] == pytest.approx(3000 / 120_000, rel=1e-3)


def test_a_shorter_hold_is_kept_and_noted(tmp_path: Path) -> None:
    (row,) = run(tmp_path, changed(record(), LEADS_12.index("V6"), slice(0, 650), 0.0)).records().to_pylist()
    assert row["notes"] == ["V6 holds one value for 1.30 s from 0.00 s on"]
    assert row["quality_missing_share"] == 0


def test_leads_that_are_constant_throughout_stay_flat_leads(tmp_path: Path) -> None:
    flat = changed(record(), LEADS_12.index("V3"), slice(None), 0.0)
    assert only_drop(run(tmp_path / "one", flat))[0] == "flat lead"
    assert only_drop(run(tmp_path / "padded", padded(flat, 300, 0)))[0] == "flat lead"
    nothing = replace(record(), signal_LT=np.zeros((12, 5000), np.float32))
    assert only_drop(run(tmp_path / "all", nothing))[0] == "flat lead"


def test_the_counts_of_a_shard_say_what_was_missing_by_lead(tmp_path: Path) -> None:
    items = [
        record(0),
        padded(record(1), 300, 0),
        changed(record(2), LEADS_12.index("V3"), slice(500, None), 0.0),
        changed(record(3), LEADS_12.index("aVR"), slice(0, 5), np.nan),
    ]
    counts = harmonize(items, tmp_path, source="test", limits=QualityLimits())
    assert counts.trimmed == 1
    assert counts.missing == {"aVR": pytest.approx(0.001 / 4), "V3": pytest.approx(0.9 / 4)}


RIGHT = {
    "code_zero_padding": {"1079629": "", "590673": "", "3445096": "too short"},
    "lead_off_midway": {"off1": "missing samples"},
    "nan_places": {"nan_mid": "missing samples", "nan_first": "missing samples", "nan_after": "", "nan_avr": ""},
    "ten_seconds_less_one": {"tl4999": "too short", "tl4992": "too short", "tl4990": "too short"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_cases_of_public_reports(tmp_path: Path, name: str) -> None:
    if not CASES.is_dir():
        pytest.skip("needs ../shared/cases")
    items = read(CASES / name / "drop")
    harmonize(items, tmp_path, source="own", limits=QualityLimits())
    drops = {row["record_id"]: row for row in open_shard(tmp_path).drops().to_pylist()}
    found = {item.record_id: drops[item.record_id]["reason"] if item.record_id in drops else "" for item in items}
    assert found == RIGHT[name]

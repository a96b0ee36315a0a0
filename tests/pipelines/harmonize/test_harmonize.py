"""Harmonization: every record that enters is in the array or in the table of dropped records."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import derived_leads, prepare
from pipelines.cache import Workspace, digest_of_tree
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import built_corpus, materialize_corpus
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.formats.shard import SIGNALS, Shard, open_shard
from pipelines.harmonize.checks import COUNTS_ADD_UP, recorded_findings
from pipelines.harmonize.convert import BATCH, harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.records import DroppedRecord, DropReason, Record
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.sources.base import RemoteFile
from tests.support.paths import ROOT, SHARED

MIRROR = SHARED / "real" / "mirror"
LIMITS = QualityLimits()


def record(at: int = 0, *, rate: float = 500.0, seconds: float = 10.0) -> Record:
    """A 12-lead recording of noise that obeys Einthoven's law."""
    x_LT = np.random.default_rng(at).normal(0, 0.3, (12, round(rate * seconds))).astype(np.float32)
    x_LT[2:6] = derived_leads(x_LT[:2])
    return Record(record_id=f"r{at:04d}", signal_LT=x_LT, leads=LEADS_12, rate=rate)


def changed(base: Record, lead: int, samples: slice, value: float) -> Record:
    x_LT = base.signal_LT.copy()
    x_LT[lead, samples] = value
    return replace(base, signal_LT=x_LT)


def run(tmp_path: Path, *items: Record | DroppedRecord, limits: QualityLimits = LIMITS) -> Shard:
    harmonize(items, tmp_path, source="test", limits=limits)
    return open_shard(tmp_path)


def only_drop(shard: Shard) -> tuple[str, str]:
    assert len(shard) == 0
    (drop,) = shard.drops().to_pylist()
    return drop["reason"], drop["detail"]


def test_a_record_is_stored_as_the_model_would_see_it(tmp_path: Path) -> None:
    item = replace(
        record(), patient_id="p1", age=61.0, sex="female", labels=("a", "b"), fold=3, notes=("header rebuilt",)
    )
    shard = run(tmp_path, item)
    expected = prepare(item.signal_LT, leads=item.leads, rate=item.rate)
    np.testing.assert_allclose(shard.signals()[0] * 0.001, expected, atol=0.00051)
    (row,) = shard.records().to_pylist()
    assert {name: row[name] for name in ("source", "record_id", "patient_id", "age", "sex", "rate", "samples")} == {
        "source": "test",
        "record_id": "r0000",
        "patient_id": "p1",
        "age": 61.0,
        "sex": "female",
        "rate": 500.0,
        "samples": 5000,
    }
    assert (row["labels"], row["fold"], row["notes"]) == (["a", "b"], 3, ["header rebuilt"])
    assert row["quality_missing_share"] == 0
    assert row["quality_einthoven"] == pytest.approx(0, abs=1e-6)
    assert row["quality_flat_leads"] == 0


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    base = record()
    eight = replace(base, signal_LT=base.signal_LT[[0, 1, *range(6, 12)]], leads=LEADS, age=float("nan"))
    (row,) = run(tmp_path, eight).records().to_pylist()
    assert [row[name] for name in ("patient_id", "age", "sex", "fold", "quality_einthoven")] == [None] * 5


BAD = {
    "lead missing": (replace(record(), leads=LEADS_12[:11], signal_LT=record().signal_LT[:11]), "leads V6 are missing"),
    "lead named twice": (replace(record(), leads=(*LEADS_12[:11], "v1")), "are lead V1, and their samples differ"),
    "unreadable header": (replace(record(), rate=40.0), "rate 40.0 Hz: 50 to 2000 can be resampled"),
    "unreadable signal": (replace(record(), leads=LEADS_12[:11]), r"\(12, 5000\) does not fit 11 lead names"),
    "too short": (
        record(seconds=9.998),
        "the window of 10 s needs 5000; repeat_from .* of 9.99 or less",
    ),
    "missing samples": (
        changed(record(), 7, slice(4990, None), np.nan),
        r"of 5,000 in a lead: V2 10; the first at 9.980 s",
    ),
    "flat lead": (changed(record(), 8, slice(None), 0.2), "1 of I, II, .* are constant; flat_leads allows 0"),
    "amplitude out of range": (changed(record(), 9, slice(100, 200), 40.0), "to 4.* mV"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_record_that_cannot_be_kept_is_dropped_with_its_reason(tmp_path: Path, reason: str) -> None:
    bad, detail = BAD[reason]
    shard = run(tmp_path, record(1), bad, record(2))
    assert shard.records()["record_id"].to_pylist() == ["r0001", "r0002"]
    (drop,) = shard.drops().to_pylist()
    assert (drop["source"], drop["record_id"], drop["reason"]) == ("test", "r0000", reason)
    assert re.search(detail, drop["detail"])


def test_channels_that_nothing_needs_cost_a_note_and_not_the_record(tmp_path: Path) -> None:
    base = record()
    beside = np.full((3, 5000), np.nan, np.float32)
    strip = base.signal_LT[1:2]
    wide = replace(
        base,
        signal_LT=np.concatenate([beside[:2], base.signal_LT, strip, beside[2:]]),
        leads=("vx", "RESP", *LEADS_12, "ii", " "),
    )
    (row,) = run(tmp_path / "wide", wide).records().to_pylist()
    (alone,) = run(tmp_path / "alone", base).records().to_pylist()
    assert row["notes"] == ["channels not used: vx, RESP, ii, one without a name"]
    assert row["content_hash"] == alone["content_hash"]
    assert row["quality_einthoven"] == alone["quality_einthoven"]


def test_a_gap_counts_where_it_is_used_alone(tmp_path: Path) -> None:
    base = record()
    shard = run(tmp_path / "avr", changed(base, LEADS_12.index("aVR"), slice(10, 12), np.nan))
    (row,), (alone,) = shard.records().to_pylist(), run(tmp_path / "alone", base).records().to_pylist()
    assert row["notes"] == ["leads with missing samples not used: aVR"]
    assert row["content_hash"] == alone["content_hash"]
    assert row["quality_missing_share"] == pytest.approx(2 / 60_000)


def test_lead_i_is_computed_from_two_limb_leads_and_said(tmp_path: Path) -> None:
    base = record()
    there = [at for at, name in enumerate(LEADS_12) if name not in ("I", "aVR")]
    less = replace(base, signal_LT=base.signal_LT[there], leads=tuple(LEADS_12[at] for at in there))
    shard = run(tmp_path / "less", less)
    (row,) = shard.records().to_pylist()
    assert row["notes"] == ["computed from II, III, aVL, aVF: I"]
    assert row["quality_einthoven"] is None  # it would compare the computed lead with its own sources
    whole = run(tmp_path / "whole", base)
    assert np.abs(shard.signals()[0].astype(int) - whole.signals()[0].astype(int)).max() <= 1


def test_a_computed_lead_may_be_flat(tmp_path: Path) -> None:
    base = record()
    there = [at for at, name in enumerate(LEADS_12) if name not in ("I", "aVR", "aVL", "aVF")]
    x_LT = base.signal_LT[there].copy()
    x_LT[1] = x_LT[0]  # III = II: both electrodes of lead I see the same
    less = replace(base, signal_LT=x_LT, leads=tuple(LEADS_12[at] for at in there))
    (drop,) = run(tmp_path, less, record(1)).drops().to_pylist()
    assert (drop["reason"], drop["detail"][:5]) == ("flat lead", "1 of ")


@pytest.mark.parametrize("value", [1e7, 3e38])
def test_numbers_that_overflow_are_a_drop(tmp_path: Path, value: float) -> None:
    """The filters would make of them what is no number, and that is above no limit."""
    steps = changed(record(), 9, slice(100, 200), value)
    steps.signal_LT[9, 100:200:2] *= -1
    reason, detail = only_drop(run(tmp_path, steps))
    assert reason == "amplitude out of range"
    assert "check the file" in detail


@pytest.mark.parametrize("rate", [30.0, 4000.0, float("nan")])
def test_a_rate_that_cannot_be_resampled_is_a_drop(tmp_path: Path, rate: float) -> None:
    reason, detail = only_drop(run(tmp_path, replace(record(), rate=rate)))
    assert reason == "unreadable header"
    assert "50 to 2000 can be resampled" in detail


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gap_behind_the_window_costs_nothing(tmp_path: Path, value: float) -> None:
    long = record(seconds=12)
    gap = changed(long, 3, slice(5010, 5011), value)
    shard = run(tmp_path, gap)
    expected = prepare(long.signal_LT[:, :5000], leads=LEADS_12, rate=500)
    np.testing.assert_allclose(shard.signals()[0] * 0.001, expected, atol=0.00051)
    assert shard.records()["quality_missing_share"][0].as_py() == pytest.approx(1 / (12 * 6000))


def test_limits_are_the_callers(tmp_path: Path) -> None:
    flat = changed(record(), 8, slice(None), 0.2)
    assert len(run(tmp_path, flat, limits=QualityLimits(flat_leads=1))) == 1


def test_a_record_that_comes_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    shard = run(tmp_path, record(1), replace(record(2), record_id="r0001"), record(3))
    assert shard.records()["record_id"].to_pylist() == ["r0001", "r0003"]
    assert shard.drops()["reason"].to_pylist() == ["record id twice"]
    first = prepare(record(1).signal_LT, leads=LEADS_12, rate=500)
    np.testing.assert_allclose(shard.signals()[0] * 0.001, first, atol=0.00051)


def test_equal_signals_have_equal_hashes_and_others_not(tmp_path: Path) -> None:
    same = replace(record(1), record_id="again", leads=tuple(name.lower() for name in LEADS_12))
    hashes = run(tmp_path, record(1), record(2), same).records()["content_hash"].to_pylist()
    assert hashes[0] == hashes[2] != hashes[1]


def test_the_readers_order_is_kept_over_rates_and_batches(tmp_path: Path) -> None:
    items = [record(at, rate=(500.0, 100.0, 257.0)[at % 3]) for at in range(2 * BATCH + 5)]
    seen: list[int] = []
    counts = harmonize(items, tmp_path, source="test", limits=LIMITS, progress=seen.append)
    shard = open_shard(tmp_path)
    assert shard.records()["record_id"].to_pylist() == [item.record_id for item in items]
    for at in (0, 1, 2, BATCH, len(items) - 1):
        expected = prepare(items[at].signal_LT, leads=LEADS_12, rate=items[at].rate)
        np.testing.assert_allclose(shard.signals()[at] * 0.001, expected, atol=0.00051)
    assert seen == [BATCH, 2 * BATCH, 2 * BATCH + 5]
    assert counts.rates == Counter(f"{item.rate:g}" for item in items)


@given(kinds=st.lists(st.sampled_from(["good", "drop", "twice", *BAD]), min_size=1, max_size=30))
@settings(deadline=None, max_examples=15)
def test_counts_always_add_up(kinds: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    out = tmp_path_factory.mktemp("shard")
    items: list[Record | DroppedRecord] = []
    for at, kind in enumerate(kinds):
        if kind == "good":
            items.append(record(at))
        elif kind == "drop":
            items.append(DroppedRecord(f"r{at:04d}", DropReason.FILE_MISSING, "gone"))
        elif kind == "twice":
            items.append(replace(record(at), record_id="same"))
        else:
            items.append(replace(BAD[kind][0], record_id=f"r{at:04d}"))
    counts = harmonize(items, out, source="test", limits=LIMITS)
    shard = open_shard(out)
    assert counts.entered == len(items) == len(shard) + shard.drops().num_rows
    assert counts.kept == len(shard) == kinds.count("good") + min(1, kinds.count("twice"))
    assert sum(counts.dropped.values()) == shard.drops().num_rows
    assert counts.facts()["hours"] == pytest.approx(counts.kept / 360, abs=1e-4)


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        harmonize((record(at) for at in range(30)), tmp_path / name, source="test", limits=LIMITS)
    assert digest_of_tree(tmp_path / "one") == digest_of_tree(tmp_path / "two")


def test_a_partition_without_records_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="test: the partition holds no records: check that the mirror"):
        harmonize([], tmp_path, source="test", limits=LIMITS)


def build(root: Path, pause: float = 0.0) -> str:
    """Harmonize 130 records as a product, pausing some seconds before each ten, and return its digest."""

    def records() -> Iterator[Record]:
        for at in range(130):
            if at % 10 == 0:
                time.sleep(pause)
            yield record(at)

    product = Workspace(root).build(
        "ecgs/test/1",
        version="1",
        config={},
        inputs={},
        make=lambda out: harmonize(records(), out, source="test", limits=LIMITS).facts(),
    )
    return product.digest


def test_a_reader_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Record]:
        yield from (record(at) for at in range(BATCH + 1))
        raise ValueError("exams_part0.zip is not a zip: download it again")

    with pytest.raises(ValueError, match="is not a zip"):
        Workspace(tmp_path).build(
            "ecgs/test/1",
            version="1",
            config={},
            inputs={},
            make=lambda out: harmonize(broken(), out, source="test", limits=LIMITS).facts(),
        )
    assert [path.name for path in (tmp_path / "ecgs/test/1").iterdir() if path.name != ".lock"] == []


@pytest.mark.parametrize("moment", [0.02, 0.5])
def test_a_killed_process_leaves_nothing_that_looks_finished(tmp_path: Path, moment: float) -> None:
    root = tmp_path / "killed"
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path;"
        "from tests.pipelines.harmonize import test_harmonize as t;"
        "t.build(Path(sys.argv[2]), pause=0.05)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(ROOT), str(root)]) as process:
        while not list(root.glob("ecgs/test/1/*.partial/ecgs.zarr")):
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert Workspace(root).current("ecgs/test/1") is None
    assert not list(root.rglob("done.json"))
    assert build(root) == build(tmp_path / "undisturbed")


def mirrored(name: str) -> dict[str, list[RemoteFile]]:
    """The partitions of a source that the mirror of real ECGs holds, with their files."""
    if not MIRROR.is_dir():
        pytest.skip("needs ../shared/real/mirror")
    source = SOURCES[name]
    listing = source.list_files(lambda path: (MIRROR / path).read_bytes())
    return {partition: source.files_of(listing, partition) for partition in source.available(listing)}


# CODE-15%: two dummy rows; 42 exams of less than 10 s. Chapman: two recordings with leads off.
REAL = {
    "chapman": (42, {"flat lead": 2}),
    "code15": (66, {"too short": 42, "not in the source's table": 2}),
    "ptbxl": (40, {}),
    "cpsc2018": (9, {}),
    "georgia": (23, {}),
    "ludb": (50, {}),
}


@pytest.mark.parametrize("name", REAL)
def test_every_real_record_is_accounted_for(tmp_path: Path, name: str) -> None:
    source = SOURCES[name]
    entered, dropped = 0, Counter[str]()
    for partition, files in mirrored(name).items():
        out = tmp_path / partition
        out.mkdir()
        counts = harmonize(source.read(MIRROR, partition, files), out, source=name, limits=LIMITS)
        shard = open_shard(out)
        entered += counts.entered
        dropped.update(counts.dropped)
        assert counts.entered == len(shard) + shard.drops().num_rows
        signals_NLT = shard.signals()
        assert not (signals_NLT.min(axis=2) == signals_NLT.max(axis=2)).any()
        rates = shard.records()["quality_heart_rate"].to_numpy()
        assert ((rates > 25) & (rates < 250)).all()
    assert (entered, dict(dropped)) == REAL[name]


def test_a_real_partition_becomes_a_product_once(tmp_path: Path) -> None:
    mirrored("georgia")
    workspace, source = Workspace(tmp_path), SOURCES["georgia"]
    with pytest.raises(ValueError, match=r"'raw/georgia/g1' is not built in .*: materialize it first"):
        materialize_ecgs(workspace, source, "g1", limits=LIMITS)
    materialize_raw(workspace, source, "g1", mirror=Mirror.parse(str(MIRROR)), raw_root=tmp_path / "files")
    product = materialize_ecgs(workspace, source, "g1", limits=LIMITS)
    assert (product.name, product.facts["kept"], product.facts["role"]) == ("ecgs/georgia/g1", 8, "evaluation")
    assert len(open_shard(product.path)) == 8
    assert materialize_ecgs(workspace, source, "g1", limits=LIMITS).cached
    other = materialize_ecgs(workspace, source, "g1", limits=QualityLimits(amplitude=1.0))
    assert not other.cached
    assert other.facts["dropped"]["amplitude out of range"] > 0


@pytest.fixture
def simulated(tmp_path: Path) -> Workspace:
    """A workspace with raw files of two sources."""
    sizes = MirrorSizes(chapman=(12,), code15=(), ptbxl=(12,), cpsc2018=(), georgia=(), ludb=0)
    mirror, workspace = write_mirror(tmp_path / "mirror", sizes=sizes).path, Workspace(tmp_path / "home")
    for source, partition in (("chapman", "01"), ("ptbxl", "00000")):
        materialize_raw(
            *(workspace, SOURCES[source], partition), mirror=Mirror.parse(str(mirror)), raw_root=tmp_path / "files"
        )
    return workspace


@pytest.mark.parametrize("damage", ["a byte", "the table", "a file"])
def test_a_shard_that_was_damaged_since_is_made_again(simulated: Workspace, damage: str) -> None:
    whole = materialize_ecgs(simulated, SOURCES["chapman"], "01", limits=LIMITS)
    assert materialize_ecgs(simulated, SOURCES["chapman"], "01", limits=LIMITS).cached
    (signals,) = (path for path in (whole.path / SIGNALS / "signal").rglob("0") if path.is_file())
    if damage == "a byte":
        data = bytearray(signals.read_bytes())
        data[len(data) // 2] ^= 255
        signals.write_bytes(data)
    elif damage == "the table":
        (whole.path / "records.parquet").write_bytes(b"PAR1")
    else:
        signals.unlink()
    again = materialize_ecgs(simulated, SOURCES["chapman"], "01", limits=LIMITS)
    assert (again.cached, again.digest) == (False, whole.digest)
    assert materialize_ecgs(simulated, SOURCES["chapman"], "01", limits=LIMITS).cached


@pytest.mark.parametrize(("source", "partition"), [("chapman", "01"), ("ptbxl", "00000")])
def test_a_shard_that_did_not_pass_its_checks_is_refused_from_the_corpus_by_name(
    simulated: Workspace, source: str, partition: str
) -> None:
    def losing(root: Path, name: str, files: Sequence[RemoteFile]) -> Iterator[Record | DroppedRecord]:
        return islice(SOURCES[source].read(root, name, files), 1, None)

    for other, its_partition in (("chapman", "01"), ("ptbxl", "00000")):
        materialize_ecgs(simulated, SOURCES[other], its_partition, limits=LIMITS)
    materialize_corpus(simulated, CorpusConfig())
    bad = replace(SOURCES[source], read=losing, version="0")
    lost = materialize_ecgs(simulated, bad, partition, limits=LIMITS)
    assert not recorded_findings(lost)[COUNTS_ADD_UP].holds
    told = rf"ecgs/{source}/{partition} \({COUNTS_ADD_UP}: 11 entered.*lists 12\): materialize these partitions again"
    for ask in (materialize_corpus, built_corpus):
        with pytest.raises(ValueError, match=told):
            ask(simulated, CorpusConfig())
    assert not materialize_ecgs(simulated, bad, partition, limits=LIMITS).cached, (
        "it is tried again when it is asked for"
    )
    materialize_ecgs(simulated, SOURCES[source], partition, limits=LIMITS)
    assert materialize_corpus(simulated, CorpusConfig()).cached


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_complete_ptbxl_at_100_hz_is_accounted_for(tmp_path: Path) -> None:
    packed = SHARED / "real" / "ptbxl100.py"
    if not packed.is_file():
        pytest.skip("needs ../shared/real/ptbxl100.py")
    tree = tmp_path / "physionet.org" / "files"
    subprocess.run([sys.executable, str(packed), str(tree)], check=True, stdout=subprocess.DEVNULL)
    source = SOURCES["ptbxl100"]
    listing = source.list_files(lambda path: (tmp_path / path).read_bytes())
    entered, drops = 0, []
    for partition in source.available(listing):
        out = tmp_path / "out" / partition
        out.mkdir(parents=True)
        files = source.files_of(listing, partition)
        entered += harmonize(source.read(tmp_path, partition, files), out, source="ptbxl100", limits=LIMITS).entered
        drops += open_shard(out).drops().to_pylist()
    assert entered == 19601
    # Leads that were off for most of the ten seconds.
    assert {drop["record_id"]: drop["reason"] for drop in drops} == dict.fromkeys(
        ("12722", "19299", "20045"), "missing samples"
    )

"""Waves from annotations, from the simulator and from neurokit2; class maps, intervals and matched boundaries."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import prepare
from pipelines.cache import Workspace
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.evaluate.statistics.bootstrap import InsufficientData
from pipelines.evaluate.waves.annotations import (
    INTERVALS,
    SCHEMA,
    UNKNOWN,
    Wave,
    Waves,
    class_map,
    inside_window,
    intervals,
    waves_of,
)
from pipelines.evaluate.waves.boundaries import boundary_scores, match
from pipelines.evaluate.waves.config import PseudoConfig
from pipelines.evaluate.waves.delineation import (
    LEFT_OUT_FILE,
    Undelineated,
    WaveTask,
    drawn_waves,
    materialize_delineation,
    pseudo_waves,
    simulated_waves,
    usual_task,
    wave_data,
)
from pipelines.evaluate.waves.pseudo_labels import Failure
from pipelines.formats.shard import open_shard
from pipelines.formats.wfdb_annotations import AnnotationMark, parse_marks
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.simulate import Diagnosis, MirrorSizes, simulate, write_mirror
from pipelines.simulate.physionet import _marks as marks_of
from pipelines.simulate.wfdb_writer import annotation_bytes, digital
from pipelines.sources import SOURCES
from pipelines.sources.ludb import MarkedWave, waves_of_marks
from pipelines.tasks.catalogue import PTBXL100_FOLDS, SUITE_TASKS
from pipelines.tasks.splits import FoldProtocol, PatientProtocol
from tests.support.paths import SHARED

REAL = SHARED / "real" / "mirror"
LUDB = REAL / "physionet.org/files/ludb/1.0.1/data"
NAN = math.nan
needs_real = pytest.mark.skipif(not LUDB.is_dir(), reason="the real ECGs of ../shared/real are not here")


def table(*rows: tuple[int, int, int, float, float, float]) -> Waves:
    return Waves.of(rows)


def records(ids: list[str], rate: float = 500, samples: int = 5000) -> pa.Table:
    return pa.table({"record_id": ids, "rate": [rate] * len(ids), "samples": [samples] * len(ids)})


def harmonized(signal_LT: np.ndarray, rate: float) -> np.ndarray:
    """int16 (8, 2500), as the store holds it."""
    return np.rint(prepare(digital(signal_LT) / 1000, leads=LEADS_12, rate=rate) * 1000).astype(np.int16)


# Annotation files


@given(
    st.lists(st.tuples(st.integers(0, 40_000), st.sampled_from("pNt()")), max_size=40).map(lambda marks: sorted(marks))
)
@settings(deadline=None, max_examples=50)
def test_marks_are_read_as_they_were_written(marks):
    # Two marks at sample 0 would begin with the bytes that end a file.
    marks = [(sample + 1, symbol) for sample, symbol in marks]
    assert parse_marks(annotation_bytes(marks), "x") == tuple(AnnotationMark(*mark) for mark in marks)


def test_annotations_that_break_off_are_refused():
    data = annotation_bytes([(10, "("), (20, "N"), (5000, ")")])
    for length in range(len(data) - 1):
        with pytest.raises(ValueError, match=r"1\.ii: the annotations have no end"):
            parse_marks(data[:length], "1.ii")


@needs_real
def test_real_annotations_are_read_as_wfdb_reads_them():
    for path in sorted(LUDB.glob("7.*")) + sorted(LUDB.glob("1.*")):
        if path.suffix in (".hea", ".dat"):
            continue
        expected = wfdb.rdann(str(path.with_suffix("")), path.suffix[1:])
        assert parse_marks(path.read_bytes(), path.name) == tuple(
            map(AnnotationMark, expected.sample.tolist(), expected.symbol)
        )


def test_a_wave_takes_the_brackets_beside_its_peak():
    def of(text: str) -> list[tuple[int | None, ...]]:
        return [wave.marks for wave in waves_of_marks([AnnotationMark(at, s) for at, s in enumerate(text)], "II")]

    assert of("(p)(N)(t)") == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    assert of("(p)N()(t)") == [(0, 1, 2), (3, 3, 5), (6, 7, 8)], "the bracket that slipped behind the peak"
    assert of("N)(t)") == [(None, 0, 1), (2, 3, 4)]
    assert of("(pN)") == [(0, 1, None), (None, 2, 3)]
    assert of("") == []


# From marks to the window


@pytest.mark.parametrize(("rate", "seconds"), [(500, 10.0), (500, 14.0), (400, 10.24), (360, 12.0), (257, 10.5)])
def test_a_mark_lies_where_harmonization_puts_its_sample(rate, seconds):
    """A pulse at a sample of the recording comes out where the mark of that sample is said to be."""
    time_T = np.arange(round(seconds * rate)) / rate
    for sample in (round(0.9 * rate), round(4.321 * rate), round(9.7 * rate)):
        pulse_T = np.exp(-0.5 * ((time_T - sample / rate) / 0.02) ** 2)
        x_T = prepare(np.tile(pulse_T, (12, 1)), leads=LEADS_12, rate=rate)[0].astype(np.float64)
        delineated = drawn_waves(
            records(["a"], rate, len(time_T)), {"a": [MarkedWave("V1", "N", sample - 9, sample, sample + 9)]}
        )
        centre = (x_T * np.arange(2500)).sum() / x_T.sum()
        assert delineated.waves.peak_W[0] == pytest.approx(centre, abs=0.05)
        assert delineated.waves.offset_W[0] - delineated.waves.onset_W[0] == pytest.approx(18 * 250 / rate, abs=1e-3)
        assert delineated.waves.lead_W.tolist() == [LEADS.index("V1")]


def test_what_the_window_does_not_hold_is_left_out_and_what_has_no_marks_is_named():
    marked = [
        MarkedWave("I", "t", 4900, 4980, 5040),
        MarkedWave("I", "N", 5100, 5120, 5140),
        MarkedWave("III", "N", 100, 110, 120),
    ]
    ids = ["cut", "none", "short"]
    table_of = records(ids).set_column(2, "samples", pa.array([6000, 5000, 4000]))
    delineated = drawn_waves(table_of, {"cut": marked, "short": marked})
    assert (delineated.waves.onset_W.tolist(), delineated.waves.peak_W.tolist()) == ([2450.0], [2490.0])
    assert np.isnan(delineated.waves.offset_W).all()
    assert delineated.left_out == ((1, "all", Undelineated.NOT_ANNOTATED), (2, "all", Undelineated.REPEATED))


def test_the_truth_is_the_simulators_and_of_its_own_ecg_alone():
    ecgs = {str(seed): simulate(seed, noise=0.5) for seed in range(3)}
    signal_NLT = np.stack([harmonized(ecg.signal_LT, ecg.rate) for ecg in ecgs.values()])
    delineated = simulated_waves(records(list(ecgs)), signal_NLT[[0, 1, 1]], ecgs)
    assert delineated.left_out == ((2, "all", Undelineated.OTHER_ECG),)
    waves = delineated.waves
    of_first = waves[(waves.record_W == 0) & (waves.lead_W == 3) & (waves.wave_W == Wave.QRS)]
    whole_B3 = ecgs["0"].qrs_B3[~np.isnan(ecgs["0"].qrs_B3[:, 0])]
    marks_B3 = np.stack([of_first.onset_W, of_first.peak_W, of_first.offset_W], axis=1)
    np.testing.assert_allclose(marks_B3, whole_B3 * 250, atol=1e-3)
    figures = intervals(delineated.waves, 3)
    for row, ecg in enumerate(list(ecgs.values())[:2]):
        assert figures[row, 2:4] == pytest.approx([ecg.pr_ms, ecg.qrs_ms], abs=0.01)
        assert figures[row, 0] == pytest.approx(60 / np.median(np.diff(ecg.r_times_B)), abs=0.5)
        assert figures[row, 4] == pytest.approx(ecg.qt_ms, abs=8)
    assert np.isnan(figures[2]).all()


def test_a_simulated_record_and_its_annotation_files_agree():
    ecg = simulate(5, diagnosis=Diagnosis.NORMAL)
    marks = waves_of_marks(parse_marks(annotation_bytes(marks_of(ecg)), "ii"), "II")
    drawn = drawn_waves(records(["5"]), {"5": marks}).waves
    truth = simulated_waves(records(["5"]), harmonized(ecg.signal_LT, 500)[None], {"5": ecg}).waves
    scores = boundary_scores(drawn, truth, class_map(drawn, 1))
    assert all(score.sensitivity == score.ppv == 1.0 for score in scores if score.annotated)
    assert all(abs(score.mean_ms or 0) <= 1 and (score.sd_ms or 0) <= 1 for score in scores)


# Pseudo-labels


def test_pseudo_labels_are_near_the_truth_and_failures_are_counted():
    ecg = simulate(2, diagnosis=Diagnosis.NORMAL, noise=0.3)
    signal_NLT = np.stack([harmonized(ecg.signal_LT, 500), np.zeros((8, 2500), np.int16)])
    calls = []
    config = PseudoConfig(leads=("II",), share=1.0, processes=1)
    named = records(["good", "flat"])
    delineated = pseudo_waves(named, signal_NLT, config, lambda done, total: calls.append((done, total)))
    assert delineated.left_out in (((1, "II", Failure.FEW_BEATS),), ((1, "II", Failure.DELINEATOR),))
    assert calls[-1] == (2, 2)
    assert set(delineated.waves.lead_W.tolist()) == {1}
    truth = simulated_waves(records(["good"]), signal_NLT[:1], {"good": ecg}).waves
    of_two = truth[np.isin(truth.lead_W, [1])]
    scores = {(s.wave, s.side): s for s in boundary_scores(of_two, delineated.waves, class_map(of_two, 1))}
    assert scores["QRS", "offset"].sensitivity > 0.9
    assert intervals(delineated.waves, 1)[0, 0] == pytest.approx(ecg.heart_rate, abs=2)


def test_the_share_of_records_that_is_drawn_is_kept_to_and_does_not_move():
    ids = [str(number) for number in range(2000)]
    drawn = {share: [name for name in ids if PseudoConfig(share=share).draws(name)] for share in (0.2, 0.5, 1.0)}
    assert [len(names) for names in drawn.values()] == pytest.approx([400, 1000, 2000], rel=0.1)
    assert set(drawn[0.2]) < set(drawn[0.5])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [({"leads": ("V1", "II")}, "in this order"), ({"share": 0.0}, "share=0.0"), ({"processes": 0}, "processes=0")],
)
def test_pseudo_settings_that_cannot_be_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        PseudoConfig(**settings_)


# Class maps


def test_a_class_map_is_known_between_the_first_and_the_last_whole_wave():
    map_T = class_map(table((0, 2, Wave.P, 100.4, 110, 120.6), (0, 2, Wave.QRS, 140, 150, 160)), 1)[0, 2]
    assert (map_T[:100] == UNKNOWN).all()
    assert (map_T[161:] == UNKNOWN).all()
    assert (map_T[100:122] == Wave.P).all()
    assert (map_T[122:140] == Wave.BACKGROUND).all()
    assert (map_T[140:161] == Wave.QRS).all()


def test_a_wave_without_a_boundary_hides_up_to_its_neighbour():
    whole = [(0, 0, Wave.P, 100, 110, 120), (0, 0, Wave.T, 300, 320, 350), (0, 0, Wave.P, 500, 510, 520)]
    for marks, hidden in (
        ((NAN, 160, 170), (121, 171)),
        ((150, 160, NAN), (150, 300)),
        ((NAN, 160, NAN), (121, 300)),
        ((NAN, 400, 430), (351, 431)),
    ):
        map_T = class_map(table(*whole, (0, 0, Wave.QRS, *marks)), 1)[0, 0]
        unknown = np.flatnonzero(map_T[100:521] == UNKNOWN) + 100
        assert unknown.tolist() == list(range(*hidden))


def test_where_waves_overlap_the_first_keeps_the_sample():
    map_T = class_map(table((0, 0, Wave.P, 130, 140, 150), (0, 0, Wave.T, 100, 120, 135)), 1)[0, 0]
    assert map_T[135] == Wave.T
    assert map_T[136] == Wave.P
    inner_T = class_map(table((0, 0, Wave.T, 100, 120, 160), (0, 0, Wave.P, 130, 140, 150)), 1)[0, 0]
    assert (inner_T[100:161] == Wave.T).all()


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.integers(5, 60), st.integers(5, 60)), min_size=1, max_size=18),
    st.integers(0, 15),
)
@settings(deadline=None, max_examples=60)
def test_waves_come_back_from_their_class_map(parts, place):
    rows, at = [], 0
    for wave, gap, length in parts:
        rows.append((place // 8, place % 8, wave, at + gap, NAN, at + gap + length - 1))
        at += gap + length
    back = waves_of(class_map(table(*rows), 2))
    np.testing.assert_array_equal(
        np.stack([back.record_W, back.lead_W, back.wave_W, back.onset_W, back.offset_W], axis=1),
        np.array([(r, lead, w, on, off) for r, lead, w, on, _, off in rows]),
    )


def test_runs_that_are_too_short_are_noise_and_gaps_that_are_too_short_are_closed():
    map_NLT = np.zeros((2, 8, 2500), np.int8)
    map_NLT[0, 0, 100:120] = Wave.QRS
    map_NLT[0, 0, 122:140] = Wave.QRS
    map_NLT[0, 0, 108:110] = Wave.P
    map_NLT[0, 0, 200:203] = Wave.T
    map_NLT[0, 7, 2400:] = Wave.T
    map_NLT[1, 0, :30] = Wave.T
    waves = waves_of(map_NLT)
    assert list(zip(waves.record_W, waves.lead_W, waves.wave_W, waves.onset_W, waves.offset_W, strict=True)) == [
        (0, 0, 2, 100, 139),
        (0, 7, 3, 2400, 2499),
        (1, 0, 3, 0, 29),
    ]
    assert len(waves_of(np.zeros((1, 8, 2500), np.int8))) == 0


def test_a_table_of_waves_comes_back_and_holds_no_nan():
    waves = table((1, 0, Wave.P, NAN, 5, 9), (0, 7, Wave.T, 3, 4, NAN))
    stored = waves.to_table(["a", "b"])
    assert stored.schema == SCHEMA
    assert stored.to_pylist()[0] == {"record_id": "b", "lead": "I", "wave": "P", "onset": None, "peak": 5, "offset": 9}
    back = Waves.from_table(stored, ["a", "b"])
    for name, values in vars(waves).items():
        np.testing.assert_array_equal(getattr(back, name), values)
    with pytest.raises(ValueError, match="1 records of the waves are not among the ECGs, such as 'b'"):
        Waves.from_table(stored, ["a"])
    assert len(inside_window(table((0, 0, 1, -5, -3, -1), (0, 0, 1, 2500, 2510, 2520)))) == 0


# Intervals


def test_intervals_are_those_of_beats_drawn_by_hand():
    rows = []
    for lead, shift in ((0, 0), (4, 2)):
        for beat in range(6):
            r = 200 + 200 * beat + shift
            rows += [(0, lead, Wave.QRS, r - 10, r, r + 12), (0, lead, Wave.T, r + 60, r + 80, r + 100)]
            if beat not in (2, 3):
                rows.append((0, lead, Wave.P, r - 50, r - 40, r - 30))
    rows.append((0, 0, Wave.P, 140, 145, 149))  # a second P: the last before the QRS counts
    rows.append((0, 4, Wave.QRS, 238, 246, 255))  # within 250 ms of a QRS: no beat
    rows.append((2, 0, Wave.QRS, 10, 20, NAN))
    figures = intervals(Waves.of(rows[::-1]), 3)
    assert [interval.name for interval in INTERVALS] == ["heart_rate", "p", "pr", "qrs", "qt"]
    assert figures[0] == pytest.approx([60 * 250 / 200, 80, 160, 88, 440])
    assert np.isnan(figures[1:]).all()


# Matching


def brute_force(true, predicted, tolerance):
    """The most pairs within tolerance, and the least total distance of so many."""
    best = (0, 0.0)
    for size in range(min(len(true), len(predicted)) + 1):
        for chosen in itertools.combinations(range(len(true)), size):
            for others in itertools.permutations(range(len(predicted)), size):
                apart = [abs(true[i] - predicted[j]) for i, j in zip(chosen, others, strict=True)]
                if all(a <= tolerance for a in apart):
                    best = min(best, (-size, sum(apart)))
    return -best[0], best[1]


@given(*[st.lists(st.integers(0, 60), max_size=4)] * 2, st.integers(0, 30))
@settings(deadline=None, max_examples=150)
def test_matches_are_the_best_of_all(true, predicted, tolerance):
    first, second = match(np.array(true, np.float32), np.array(predicted, np.float32), tolerance)
    apart = np.abs(np.array(true)[first] - np.array(predicted)[second]) if len(first) else np.zeros(0)
    assert len(set(first)) == len(first) == len(set(second))
    assert (apart <= tolerance).all()
    assert (len(first), apart.sum()) == brute_force(true, predicted, tolerance)


def test_boundary_errors_misses_and_false_ones_are_counted():
    true = table(*((0, 1, Wave.QRS, at, at + 10, at + 20) for at in (200, 600, 1000)), (0, 1, Wave.T, 1100, 1120, 1150))
    # Two samples late; one missed; one more within what is known, one in the margin; one in a lead nobody annotated.
    predicted = table(
        *((0, 1, Wave.QRS, at, NAN, at + 20) for at in (202, 1004, 800, 50)), (0, 2, Wave.QRS, 300, NAN, 320)
    )
    scores = {(s.wave, s.side): s for s in boundary_scores(true, predicted, class_map(true, 1))}
    onset = scores["QRS", "onset"]
    assert (onset.annotated, onset.found, onset.false) == (3, 2, 1)
    assert (onset.sensitivity, onset.ppv) == pytest.approx((2 / 3, 2 / 3))
    assert (onset.mean_ms, onset.sd_ms) == pytest.approx((12.0, np.std([8, 16], ddof=1)))
    assert scores["T", "onset"].sensitivity == 0
    assert (scores["T", "onset"].mean_ms, scores["T", "onset"].ppv, scores["P", "onset"].sensitivity) == (None,) * 3


# Products


@pytest.fixture(scope="module")
def mirror(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("delineation") / "mirror"
    write_mirror(
        folder, seed=4, sizes=MirrorSizes(chapman=(), code15=(), ptbxl=(6, 3), cpsc2018=(), georgia=(), ludb=3)
    )
    return folder


def harvested(root: Path, mirror: Path, source: str, partitions: list[str]) -> Workspace:
    workspace = Workspace(root / "products")
    for partition in partitions:
        materialize_raw(workspace, SOURCES[source], partition, mirror=Mirror.parse(str(mirror)), raw_root=root / "raw")
        materialize_ecgs(workspace, SOURCES[source], partition, limits=QualityLimits())
    return workspace


def test_truth_of_the_mirror_is_kept_by_partition(tmp_path, mirror):
    partitions = ["00000", "01000"]
    workspace = harvested(tmp_path, mirror, "ptbxl", partitions)
    made = materialize_delineation(workspace, "ptbxl", "truth", mirror=mirror)
    assert list(made) == partitions
    assert [made[part].facts["left_out"] for part in partitions] == [{}, {}]
    again = materialize_delineation(workspace, "ptbxl", "truth", mirror=tmp_path / "gone")
    assert all(product.cached for product in again.values())
    data = wave_data(workspace, WaveTask(source="ptbxl", labels="truth", protocol=FoldProtocol()), mirror)
    assert sorted(set(data.waves.record_W.tolist())) == list(range(data.records.num_rows))
    assert data.records.num_rows == sum(product.facts["records"] for product in made.values())
    everybody = np.ones(data.records.num_rows, dtype=bool)
    with pytest.raises(InsufficientData, match=r"validation \d, test \d; each needs 5"):
        data.require(everybody, 5)
    with pytest.raises(ValueError, match=r"no SIMULATED\.json"):
        materialize_delineation(
            harvested(tmp_path / "b", mirror, "ptbxl", ["00000"]), "ptbxl", "truth", mirror=tmp_path
        )
    with pytest.raises(ValueError, match="labels='manual' of ptbxl"):
        materialize_delineation(workspace, "ptbxl", "manual")


def test_another_mirrors_ecgs_have_no_truth(tmp_path, mirror):
    other = tmp_path / "other"
    write_mirror(other, seed=5, sizes=MirrorSizes(chapman=(), code15=(), ptbxl=(3,), cpsc2018=(), georgia=(), ludb=0))
    workspace = harvested(tmp_path, other, "ptbxl", ["00000"])
    (made,) = materialize_delineation(workspace, "ptbxl", "truth", mirror=mirror).values()
    assert made.facts["left_out"] == {"not the ECG that was simulated": made.facts["records"]}
    assert pq.read_table(made.path / LEFT_OUT_FILE).num_rows == made.facts["records"]


@needs_real
def test_real_ludb_boundaries_lie_on_the_real_waves(tmp_path):
    workspace = harvested(tmp_path, REAL, "ludb", ["all"])
    (made,) = materialize_delineation(workspace, "ludb", "manual").values()
    assert (made.facts["records"], made.facts["delineated"], made.facts["left_out"]) == (50, 50, {})
    assert made.facts["waves"] == {"P": 2681, "QRS": 3564, "T": 3159}
    waves = wave_data(workspace, WaveTask(source="ludb", labels="manual", protocol=PatientProtocol())).waves
    assert np.isnan(waves.onset_W).sum() == 10, "QRS without an onset, all in record 7 and its like"
    # Where a QRS is annotated the signal is steep: 5 times as steep as elsewhere, in the mean of all leads.
    x_NLT = open_shard(workspace.require("ecgs/ludb/all").path).signals() / 1000
    steep_NLT = np.abs(np.diff(x_NLT, axis=-1, append=x_NLT[..., -1:]))
    map_NLT = class_map(waves, len(x_NLT))
    assert steep_NLT[map_NLT == Wave.QRS].mean() > 5 * steep_NLT[map_NLT == Wave.BACKGROUND].mean()
    figures = intervals(waves, len(x_NLT))
    rate_N = open_shard(workspace.require("ecgs/ludb/all").path).records()["quality_heart_rate"].to_numpy()
    assert np.median(np.abs(figures[:, 0] - rate_N)) < 1
    assert 120 < np.nanmedian(figures[:, 2]) < 200
    assert 70 < np.nanmedian(figures[:, 3]) < 120
    assert 350 < np.nanmedian(figures[:, 4]) < 440


@pytest.mark.parametrize("source", ["ptbxl", "ptbxl100", "cpsc2018", "georgia"])
def test_waves_are_split_as_the_source_s_labels_are(source: str) -> None:
    protocols = {task.protocol for task in SUITE_TASKS.values() if task.source == source and task.kind == "multi-label"}
    assert usual_task(source, simulated=False).protocol in protocols
    assert usual_task("ptbxl100", simulated=False).protocol == PTBXL100_FOLDS

"""Segmentation and regression on waves: against scikit-learn, on planted tokens, and as products."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import jaccard_score, mean_absolute_error

from ecg_model.config import AnyEncoderConfig, EncoderConfig, S4EncoderConfig
from ecg_model.encoder_file import random_encoder
from pipelines.cache import Workspace
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.evaluate.features import EncoderSource, FeatureConfig
from pipelines.evaluate.statistics.bootstrap import Bootstrap, InsufficientData
from pipelines.evaluate.waves import delineation
from pipelines.evaluate.waves import tables as wave_views
from pipelines.evaluate.waves.annotations import UNKNOWN, Wave, Waves, class_map, intervals
from pipelines.evaluate.waves.config import SegmentationConfig
from pipelines.evaluate.waves.delineation import WaveData, WaveTask, wave_data
from pipelines.evaluate.waves.intervals import (
    RegressionConfig,
    Ridge,
    compare_regressions,
    materialize_regression,
    moments,
    regress,
)
from pipelines.evaluate.waves.segmentation import (
    PREDICTIONS_FILE,
    SCORES_FILE,
    compare_segmentations,
    materialize_segmentation,
    segment,
)
from pipelines.evaluate.waves.segmentation_model import PatchMap, SignalFeed, TokenFeed, confusions, iou_of
from pipelines.evaluate.waves.token_grid import TokenGrid
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.plots.segmentation import COLOURS, SegmentedLead, segmentation_sheet
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from pipelines.tasks.splits import FoldProtocol, Split

TINY = EncoderConfig(dim=16, depth=1, heads=2, drop_path=0.0, input_scale=5.0, patch_init_scale=5.0)
PATCHES = TokenGrid.of(TINY)
SHORT = S4EncoderConfig(
    leads=8, rate=250, samples=625, token_samples=25, stem_dim=8, stem_depth=2, dim=12, depth=1, state=4
)
BOOTSTRAP = Bootstrap(resamples=50)
SPLITS = np.array([*["train"] * 12, *["validation"] * 5, *["test"] * 5])


def planted(leads: tuple[int, ...] = (0, 1), seed: int = 0) -> WaveData:
    """22 records of regular beats, each at a rate of its own, in two leads."""
    rng = np.random.default_rng(seed)
    rows = []
    for record in range(len(SPLITS)):
        rr, pr, qrs, qt = rng.integers(150, 260), rng.integers(28, 45), rng.integers(18, 30), rng.integers(85, 110)
        for r in range(100, 2300, rr):
            for lead in leads:
                rows += [
                    (record, lead, Wave.P, r - pr, r - pr + 10, r - pr + 20),
                    (record, lead, Wave.QRS, r, r + qrs // 2, r + qrs),
                    (record, lead, Wave.T, r + qt - 40, r + qt - 15, r + qt),
                ]
    ids = [f"r{record}" for record in range(len(SPLITS))]
    return WaveData(
        records=pa.table({"record_id": ids}),
        waves=Waves.of(rows),
        split_N=SPLITS,
        patient_N=np.array(ids),
        products={},
    )


def telling_tokens(data: WaveData) -> np.ndarray:
    """Tokens (N, 8 * 50, 200) with a channel for each sample of the patch and class, one where that is the class."""
    map_NLT = np.maximum(class_map(data.waves, len(SPLITS)), 0)
    return np.eye(4, dtype=np.float16)[map_NLT].reshape(len(map_NLT), 400, 200)


QUICK = SegmentationConfig(contexts=(0,), steps=40, batch=4, lr=0.2, checks=2, bootstrap=BOOTSTRAP)


# Overlap


def test_iou_is_scikit_learns():
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(-1, 4, (3, 8, 300), dtype=np.int8), rng.integers(0, 4, (3, 8, 300), dtype=np.int8)
    confusion_NCC = confusions(true, predicted)
    for record in range(3):
        known = true[record] != UNKNOWN
        expected = jaccard_score(true[record][known], predicted[record][known], average=None)
        np.testing.assert_allclose(iou_of(confusion_NCC[record]), expected, atol=1e-12)
    assert confusion_NCC.sum() == (true != UNKNOWN).sum()


def test_a_class_that_is_nowhere_is_masked():
    true = np.zeros((1, 8, 10), np.int8)
    masked = iou_of(confusions(true, true).sum(axis=0))
    assert masked.mask.tolist() == [False, True, True, True]
    assert masked.mean() == 1.0


# The map


@pytest.mark.parametrize("context", [0, 1, 2])
def test_the_map_sees_a_token_and_its_neighbours(context):
    token_PD = torch.randn(2, 5, 3)
    head = PatchMap(
        torch.ones(3),
        torch.full((3,), 2.0),
        TokenGrid(columns=5, span=Fraction(4), samples=20),
        context,
        leads=8,
    )
    scores_TC = head(token_PD)
    assert scores_TC.shape == (2, 20, 4)
    changed_PD = token_PD.clone()
    changed_PD[:, 2] += 1
    differs_P = (head(changed_PD) != scores_TC).unflatten(1, (5, 4)).any(dim=(0, 2, 3))
    assert differs_P.tolist() == [abs(place - 2) <= context for place in range(5)]
    # By hand: neighbours beyond the ends are the mean token, which is zero once standardized.
    x_PD = (token_PD - 1) / 2
    around = torch.cat([torch.zeros(2, context, 3), x_PD, torch.zeros(2, context, 3)], dim=1)
    seen = torch.stack([around[:, place : place + 2 * context + 1].transpose(1, 2).flatten(1) for place in range(5)], 1)
    torch.testing.assert_close(scores_TC, head.linear(seen).unflatten(-1, (4, 4)).flatten(1, 2))


@pytest.mark.parametrize(
    ("config", "columns", "span", "shared", "neighbours"),
    [
        (EncoderConfig(), 50, Fraction(50), False, 1),
        (EncoderConfig(leads=12, patches=25), 50, Fraction(50), False, 1),
        (SHORT, 100, Fraction(25), True, 2),
        (S4EncoderConfig(), 1200, Fraction(25, 12), True, 24),
    ],
)
def test_every_sample_lies_in_the_token_that_spans_it(
    config: AnyEncoderConfig, columns: int, span: Fraction, shared: bool, neighbours: int
):
    grid = TokenGrid.of(config)
    assert (grid.columns, grid.span, grid.shared, grid.neighbours(1)) == (columns, span, shared, neighbours)
    step_T = grid.step_of_sample()
    step_of = np.arange(2500) if step_T is None else step_T.numpy()
    assert (step_of // grid.steps).tolist() == [int(sample / span) for sample in range(2500)]
    assert (np.diff(step_of) >= 0).all(), "in the order of time"
    assert len(np.unique(step_of)) == 2500, "each sample has a step of its own"


def test_what_is_left_of_a_token_at_the_end_lies_in_the_last_one():
    grid = TokenGrid(columns=3, span=Fraction(7), samples=24)
    step_T = grid.step_of_sample()
    assert step_T is not None
    assert step_T.tolist() == [*range(21), 20, 20, 20]


@pytest.mark.parametrize(
    ("changes", "unread"), [({"samples": 700}, "1.6 s"), ({"samples": 5000, "token_samples": 5000}, "10 s")]
)
def test_an_encoder_with_no_token_for_a_part_of_an_ecg_is_refused_before_anything_is_computed(
    workspace, changes: dict[str, int], unread: str
):
    encoder = EncoderSource.random("gaps", replace(SHORT, **changes), 0)
    with pytest.raises(ValueError, match=f"the last {unread} of 10 s have no token .* whose windows fill 10 s"):
        materialize_segmentation(workspace[0], TASK, encoder, features=CPU, mirror=workspace[1])
    assert not list(workspace[0].root.glob("tokens/gaps/**/tokens.npy"))


def test_tokens_of_all_leads_have_a_map_for_each_lead():
    """The second lead's waves are elsewhere than the first one's, and both are found from the same tokens."""
    data = planted()
    of_second = data.waves.lead_W == 1
    data = replace(data, waves=data.waves[~of_second | (data.waves.wave_W == Wave.QRS)])
    map_NLT = np.maximum(class_map(data.waves, len(SPLITS)), 0)[:, :2]
    token_NPD = np.eye(4, dtype=np.float16)[map_NLT].transpose(0, 2, 1, 3).reshape(len(SPLITS), 100, 25 * 2 * 4)
    segmented = segment(data, TokenFeed(tokens=token_NPD, grid=TokenGrid.of(SHORT)), QUICK)
    assert segmented.scores.miou.value > 0.95
    found = {(lead, wave) for lead, wave in zip(segmented.predicted.lead_W, segmented.predicted.wave_W, strict=True)}
    assert found == {(0, Wave.P), (0, Wave.QRS), (0, Wave.T), (1, Wave.QRS)}


def test_what_tokens_tell_is_segmented_exactly_and_read_off():
    data = planted()
    segmented = segment(data, TokenFeed(tokens=telling_tokens(data), grid=PATCHES), QUICK)
    scores = segmented.scores
    assert scores.miou.value > 0.95
    assert (scores.records, scores.patients, scores.omitted) == (5, 5, ())
    assert all((one.sensitivity or 0) > 0.97 and (one.ppv or 0) > 0.97 for one in scores.boundaries)
    assert all(abs(one.mean_ms or 0) < 2 and (one.sd_ms or 0) < 5 for one in scores.boundaries)
    assert [one.records for one in scores.read_off] == [5] * 5
    assert all(one.mae is not None and one.mae.value < 4 for one in scores.read_off)
    assert segmented.records.tolist() == list(range(17, 22))
    assert set(segmented.predicted.lead_W.tolist()) == {0, 1}, "leads that nobody annotated are not scored"


def test_intervals_read_off_have_the_mean_and_the_deviation_of_their_errors():
    """As numpy has them, of a map that was hardly trained; an interval that one ECG alone has has no deviation."""
    data = planted()
    waves = data.waves[(data.waves.wave_W != Wave.P) | (data.waves.record_W < 18)]
    segmented = segment(
        replace(data, waves=waves), TokenFeed(tokens=telling_tokens(data), grid=PATCHES), replace(QUICK, steps=10)
    )
    measured_NI = intervals(waves.of_records(segmented.records), len(segmented.records))
    error_NI = intervals(segmented.predicted, len(segmented.records)) - measured_NI
    scored = segmented.scores.read_off
    by_name = {one.name: (one, error_N[~np.isnan(error_N)]) for one, error_N in zip(scored, error_NI.T, strict=True)}
    for name in ("heart_rate", "qrs", "qt"):
        one, error_K = by_name[name]
        assert one.mean == pytest.approx(error_K.mean())
        assert one.sd == pytest.approx(error_K.std(ddof=1))
        assert one.mae is not None
        assert one.mae.value == pytest.approx(np.abs(error_K).mean())
    assert by_name["qt"][0].sd, "they err"
    assert len(by_name["p"][1]) == 1
    assert by_name["p"][0].mean == pytest.approx(by_name["p"][1][0])
    assert by_name["p"][0].sd is None


def test_the_same_seed_gives_the_same_segmentation_and_test_waves_choose_nothing():
    data = planted()
    feed = TokenFeed(tokens=telling_tokens(data), grid=PATCHES)
    config = replace(QUICK, steps=6, contexts=(0, 1))
    first, second = (segment(data, feed, config) for _ in range(2))
    assert first.scores == second.scores
    np.testing.assert_array_equal(first.confusion_NCC, second.confusion_NCC)
    of_test = np.isin(data.waves.record_W, np.flatnonzero(data.split_N == Split.TEST))
    moved = replace(data.waves, wave_W=np.where(of_test, 1 + data.waves.wave_W % 3, data.waves.wave_W))
    other = segment(replace(data, waves=moved), feed, config)
    assert other.scores.trials == first.scores.trials
    assert other.scores.miou != first.scores.miou
    assert max(first.scores.trials, key=lambda trial: trial.validation_miou).context == first.scores.context


def test_fine_tuning_trains_a_copy_of_the_encoder():
    data = planted()
    signal_NLT = 500 * np.maximum(class_map(data.waves, len(SPLITS)), 0).astype(np.int16)
    encoder = random_encoder(TINY, 0)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    loaded = []

    def load():
        loaded.append(random_encoder(TINY, 0))
        return loaded[-1]

    config = replace(QUICK, mode="fine_tuned", steps=4)
    feed = SignalFeed(signal_NLT=signal_NLT, encoder=load, grid=PATCHES)
    first, second = (segment(data, feed, config) for _ in range(2))
    after = loaded[0].state_dict()
    assert not torch.equal(after["blocks.0.qkv.weight"], before["blocks.0.qkv.weight"])
    assert not torch.equal(after["patch.weight"], before["patch.weight"])
    assert first.scores == second.scores, "each training starts from the encoder as it is on disk"


def test_too_few_patients_are_named():
    data = planted()
    with pytest.raises(InsufficientData, match="train 12, validation 5, test 5; each needs 6"):
        segment(data, TokenFeed(tokens=telling_tokens(data), grid=PATCHES), replace(QUICK, min_patients=6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"mode": "thawed"}, "mode="), ({"contexts": ()}, "contexts="), ({"steps": 0}, "steps="), ({"lr": 2.0}, "lr=")],
)
def test_segmentation_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SegmentationConfig(**changes)


# Ridge


@pytest.mark.parametrize("shape", [(60, 12), (20, 40)])
def test_ridge_is_scikit_learns(shape):
    rng = np.random.default_rng(1)
    x_NF, new_NF = rng.normal(3, 2, shape), rng.normal(3, 2, (7, shape[1]))
    y_N = x_NF[:, :5].sum(axis=1) + rng.normal(size=shape[0])
    x_NF[:, 9] = 4.2  # a feature that does not vary
    penalties = (100.0, 1.0, 0.01)
    predicted_KN = Ridge(x_NF).predict(y_N, penalties, new_NF)
    mean_F, std_F = x_NF.mean(axis=0), x_NF.std(axis=0)
    std_F[9] = np.inf
    for penalty, predicted_N in zip(penalties, predicted_KN, strict=True):
        expected = SklearnRidge(alpha=penalty).fit((x_NF - mean_F) / std_F, y_N)
        np.testing.assert_allclose(predicted_N, expected.predict((new_NF - mean_F) / std_F), rtol=1e-8)


def test_moments_are_those_of_numpy():
    token_BLPD = torch.randn(2, 8, 50, 3, dtype=torch.float64)
    mean, std, in_time, in_leads_time, change = np.split(moments(token_BLPD).numpy(), 5, axis=1)
    x = token_BLPD.numpy()
    np.testing.assert_allclose(mean, x.mean((1, 2)))
    np.testing.assert_allclose(std, x.reshape(2, 400, 3).std(1, ddof=1))
    np.testing.assert_allclose(in_time, x.mean(1).std(1, ddof=1))
    np.testing.assert_allclose(in_leads_time, x.std(2, ddof=1).mean(1))
    np.testing.assert_allclose(change, np.abs(np.diff(x.mean(1), axis=1)).mean(1))


def test_figures_that_lie_in_the_features_are_recovered_and_errors_are_scikit_learns():
    data = planted()
    measured_NI = intervals(data.waves, len(SPLITS))
    rng = np.random.default_rng(3)
    moments_NF = rng.normal(size=(len(SPLITS), 5 * 5))
    moments_NF[:, 5:10] = measured_NI  # in the second moment, which `mean` does not look at
    waves = data.waves[~((data.waves.wave_W == Wave.P) & (data.waves.record_W < 11))]
    config = RegressionConfig(min_patients=4, penalties=(1.0, 1e-3, 1e-6), bootstrap=BOOTSTRAP)
    regressed = regress(replace(data, waves=waves), moments_NF.astype(np.float32), config)
    few = "patients with waves, by split: train 1, validation 5, test 5; each needs 4"
    assert regressed.reasons == {"p": few, "pr": few}
    assert [one.name for one in regressed.figures] == ["heart_rate", "qrs", "qt"]
    table = regressed.predictions.to_pandas()
    assert not table.isna().any().any()
    for one in regressed.figures:
        rows = table[table["figure"] == one.name]
        assert one.mae.value == pytest.approx(mean_absolute_error(rows["measured"], rows["predicted"]))
        assert one.mae.value < 0.05 < one.baseline.value
        assert one.mae.low <= one.mae.value <= one.mae.high
        assert one.chosen.pooling == "mean_std"
        assert one.chosen.validation_mae == min(trial.validation_mae for trial in one.trials)
        assert one.records == {"train": 12, "validation": 5, "test": 5}


# Products


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> tuple[Workspace, Path]:
    root = tmp_path_factory.mktemp("waves")
    sizes = MirrorSizes(chapman=(), code15=(), ptbxl=(24,), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(root / "mirror", seed=1, sizes=sizes)
    made = Workspace(root / "products")
    materialize_raw(made, SOURCES["ptbxl"], "00000", mirror=Mirror.parse(str(root / "mirror")), raw_root=root / "raw")
    materialize_ecgs(made, SOURCES["ptbxl"], "00000", limits=QualityLimits())
    return made, root / "mirror"


TASK = WaveTask(
    source="ptbxl", labels="truth", protocol=FoldProtocol(train=(1, 2, 3, 4, 5), validation=(6, 7), test=(8, 9, 10))
)
ENCODERS = [EncoderSource.random(f"seed{seed}", TINY, seed) for seed in (0, 1)]
CPU = FeatureConfig(device="cpu")


def test_segmentations_are_kept_and_compared_on_the_same_records(workspace):
    made, mirror = workspace
    config = replace(QUICK, steps=6, min_patients=2)
    first, second = (materialize_segmentation(made, TASK, one, config, CPU, mirror=mirror) for one in ENCODERS)
    assert first.name == "segmentation/ptbxl_truth/seed0"
    assert materialize_segmentation(made, TASK, ENCODERS[0], config, CPU, mirror=mirror).cached
    stored = json.loads((first.path / SCORES_FILE).read_text())
    assert stored["scores"]["miou"] == first.facts["miou"]
    assert pq.read_table(first.path / PREDICTIONS_FILE).num_rows > 0
    pair = compare_segmentations(first, second, BOOTSTRAP)
    assert pair.difference is not None
    assert pair.difference.value == pytest.approx(first.facts["miou"]["value"] - second.facts["miou"]["value"])
    assert pair.difference.low <= pair.difference.value <= pair.difference.high
    tuned = replace(config, mode="fine_tuned", steps=1, checks=1)
    third = materialize_segmentation(made, TASK, ENCODERS[0], tuned, CPU, mirror=mirror)
    assert third.name == "segmentation/ptbxl_truth/seed0__fine_tuned"
    few = materialize_segmentation(made, TASK, ENCODERS[0], replace(config, min_patients=99), CPU, mirror=mirror)
    assert not few.facts["scored"]
    assert "each needs 99" in few.facts["reason"]
    assert compare_segmentations(few, few).difference is None
    other = replace(TASK, protocol=FoldProtocol(train=(1, 2, 3), validation=(4, 5), test=(8, 9, 10)))
    elsewhere = materialize_segmentation(made, other, ENCODERS[1], config, CPU, mirror=mirror)
    with pytest.raises(ValueError, match="different ECGs, waves or splits"):
        compare_segmentations(first, elsewhere)


def test_regressions_are_kept_and_compared_on_the_same_records(workspace):
    made, mirror = workspace
    config = RegressionConfig(min_patients=2, bootstrap=BOOTSTRAP)
    first, second = (materialize_regression(made, TASK, one, config, CPU, mirror=mirror) for one in ENCODERS)
    assert first.name == "regression/ptbxl_truth/seed0"
    assert materialize_regression(made, TASK, ENCODERS[0], config, CPU, mirror=mirror).cached
    differences = compare_regressions(first, second, BOOTSTRAP)
    for one, other in zip(first.facts["figures"], second.facts["figures"], strict=True):
        assert differences[one["name"]].value == pytest.approx(one["mae"]["value"] - other["mae"]["value"])
        assert one["baseline"] == other["baseline"]
    assert "NaN" not in (first.path / "scores.json").read_text()


def test_an_encoder_of_short_windows_and_mixed_leads_is_segmented_and_regressed_alike(workspace):
    made, mirror = workspace
    encoder = EncoderSource.random("s4", SHORT, 0)
    for config in (replace(QUICK, contexts=(0, 1), steps=2), replace(QUICK, mode="fine_tuned", steps=1, checks=1)):
        config = replace(config, min_patients=2)
        segmented = materialize_segmentation(made, TASK, encoder, config, CPU, mirror=mirror)
        assert segmented.facts["scored"]
        patches = materialize_segmentation(made, TASK, ENCODERS[0], config, CPU, mirror=mirror)
        assert compare_segmentations(segmented, patches, BOOTSTRAP).difference is not None
    regressed = materialize_regression(
        made, TASK, encoder, RegressionConfig(min_patients=2, bootstrap=BOOTSTRAP), CPU, mirror=mirror
    )
    assert regressed.facts["figures"]


def test_a_patient_on_both_sides_is_an_error(workspace, monkeypatch):
    made, mirror = workspace
    monkeypatch.setattr(delineation, "patients", lambda records: ["patient 7"] * records.num_rows)
    for materialize in (materialize_segmentation, materialize_regression):
        with pytest.raises(ValueError, match="1 patients are in more than one split, such as patient 7"):
            materialize(made, TASK, ENCODERS[0], features=CPU, mirror=mirror)


# What people look at


def test_tables_and_examples_show_what_was_found(workspace, tmp_path):
    made, mirror = workspace
    config = replace(QUICK, steps=6, min_patients=2)
    segmented = materialize_segmentation(made, TASK, ENCODERS[0], config, CPU, mirror=mirror)
    (row,) = wave_views.overlap_rows({"ours": segmented})
    assert row["mIoU"] == round(segmented.facts["miou"]["value"], 4)
    assert [one["boundary"] for one in wave_views.boundary_rows(segmented)] == [
        f"{wave} {side}" for wave in ("P", "QRS", "T") for side in ("onset", "offset")
    ]
    allowed = [(one["2 s_CSE (loose), ms"], one["s_CSE (strict), ms"]) for one in wave_views.boundary_rows(segmented)]
    assert allowed[2:5] == [(6.5, 3.25), (11.6, 5.8), (None, None)]
    read_off = {one["figure"]: one["IEC: mean, sd"] for one in wave_views.read_off_rows(segmented)}
    known = {"heart rate": "", "P duration": "±10, 15", "PR interval": "±10, 10", "QRS duration": "±10, 10"}
    assert read_off.items() <= (known | {"QT interval": "±25, 30"}).items()
    assert "heart rate" in read_off
    picture = wave_views.examples(made, TASK, segmented, mirror)
    assert picture is not None
    assert len(picture) < 100_000
    blind = replace(segmented, path=Path(shutil.copytree(segmented.path, tmp_path / segmented.path.name)))
    (blind.aside / wave_views.EXAMPLES_FILE).unlink()
    predicted = blind.path / PREDICTIONS_FILE
    pq.write_table(pq.read_table(predicted).slice(0, 0), predicted)
    nothing = wave_views.examples(made, TASK, blind, mirror)
    assert nothing is not None, "one that finds nothing is shown, too"
    assert nothing != picture
    without_p = {name: value for name, value in segmented.facts["iou"].items() if name != "P"}
    other = replace(segmented, facts={**segmented.facts, "iou": without_p})
    one, two = wave_views.overlap_rows({"other": other, "ours": segmented})
    assert set(one) == set(two)
    assert one["P"] is None
    regressed = [
        materialize_regression(
            made, TASK, one, RegressionConfig(min_patients=2, bootstrap=BOOTSTRAP), CPU, mirror=mirror
        )
        for one in ENCODERS
    ]
    rows = wave_views.error_rows(*regressed)
    assert rows[0]["figure"] == "heart rate"
    assert float(rows[0]["ahead by"].split()[0]) == pytest.approx(rows[0]["random encoder"] - rows[0]["MAE"], abs=0.02)
    few = materialize_segmentation(made, TASK, ENCODERS[0], replace(config, min_patients=99), CPU, mirror=mirror)
    assert (
        wave_views.overlap_rows({"ours": few}) == wave_views.boundary_rows(few) == wave_views.read_off_rows(few) == []
    )
    assert wave_views.examples(made, TASK, few, mirror) is None
    counts = {row["what"]: row["count"] for row in wave_views.label_rows(wave_data(made, TASK, mirror).products)}
    assert counts["records"] == counts["records with waves"] == 22, "of 24 two are damaged"


def colours_at(picture: bytes, colour: str) -> int:
    """How many pixels are about of a colour."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=-1) < 12).sum())


def test_bars_are_drawn_where_the_waves_are():
    y_T = np.sin(np.arange(1000) / 20)

    def sheet(annotated, predicted):
        lead = SegmentedLead(
            caption="one", y_T=y_T, first=500, annotated=annotated, predicted=predicted, known=(500.0, 1499.0)
        )
        return segmentation_sheet([lead], "title")

    legend = colours_at(sheet([], []), COLOURS["T"])
    one = colours_at(sheet([("T", 600.0, 699.0)], []), COLOURS["T"])
    both = colours_at(sheet([("T", 600.0, 699.0)], [("T", 600.0, 799.0)]), COLOURS["T"])
    assert both - legend == pytest.approx(3 * (one - legend), rel=0.1)
    outside = colours_at(sheet([("T", 100.0, 450.0), ("T", 1500.0, 1600.0)], []), COLOURS["T"])
    assert outside == pytest.approx(legend, rel=0.05)
    cut = colours_at(sheet([("T", 450.0, 599.0)], []), COLOURS["T"])
    assert cut - legend == pytest.approx(one - legend, rel=0.15)
    with pytest.raises(ValueError, match="at least one lead"):
        segmentation_sheet([], "title")

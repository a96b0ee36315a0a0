"""Pictures measured in pixels: the grid, the scales and the size of the file."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import derived_leads
from pipelines.formats.shard import RECORDS
from pipelines.formats.wfdb import read_wfdb
from pipelines.plots.canvas import MAX_BYTES
from pipelines.plots.curves import histograms, loss_curve, roc_curves
from pipelines.plots.ecg_paper import ecg_paper, ecg_sheet
from pipelines.plots.scores import Score, score_chart
from tests.support.paths import SHARED

STRONG = (0xED, 0xB1, 0xB1)
RATE = 500


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) int."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def is_ink(image: np.ndarray) -> np.ndarray:
    """Traces and letters are near black; paper and grid are light."""
    return image.max(axis=-1) < 110


def ecg(leads: int = 12, seconds: float = 10.0, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """A comb of QRS-like spikes of up to 1 mV and a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    spikes = np.exp(-0.5 * (((t + 0.4) % 0.8 - 0.4) / 0.012) ** 2)
    return scale * (np.linspace(0.3, 1.0, leads)[:, None] * spikes + 0.01 * rng.standard_normal((leads, len(t))))


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(first, length) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize("pixels_per_mm", [3, 5, 8])
def test_the_grid_is_a_millimetre_and_five_and_the_file_knows_its_size(pixels_per_mm: int) -> None:
    png = ecg_paper(ecg(), LEADS_12, RATE, "grid", pixels_per_mm=pixels_per_mm)
    file = Image.open(io.BytesIO(png))
    assert file.info["dpi"] == pytest.approx((25.4 * pixels_per_mm,) * 2, rel=1e-3)
    assert file.width == 270 * pixels_per_mm  # 250 mm of ten seconds, the pulse's 10 and 5 at each end

    image = pixels(png)
    # A row of pixels in the lowest box, right of the footer's words, that no horizontal line of the grid passes.
    row = image[-pixels_per_mm // 2 - pixels_per_mm, image.shape[1] // 2 :]
    paper = row[np.argmax(row.sum(axis=1))]
    lines = np.array([first for first, _ in runs((row != paper).any(axis=-1))])
    assert set(np.diff(lines)) == {pixels_per_mm}
    strong = np.array([first for first, _ in runs(np.abs(row - STRONG).max(axis=-1) < 12)])
    assert set(np.diff(strong)) == {5 * pixels_per_mm}


def test_time_runs_at_25_mm_a_second() -> None:
    x = np.zeros((12, 10 * RATE))
    x[1, RATE // 2 :: RATE] = 1.0  # lead II: a spike a second
    image = pixels(ecg_paper(x, LEADS_12, RATE, "speed", pixels_per_mm=5))
    # The spikes of the rhythm strip, seen in the band where nothing else of it reaches.
    lowest = np.flatnonzero(is_ink(image).sum(axis=1) > 1000)[-1]
    band = is_ink(image)[lowest - 45 : lowest - 20].all(axis=0)
    spikes = [first for first, _ in runs(band)][-10:]
    assert np.abs(np.diff(spikes) - 25 * 5).max() <= 1


@pytest.mark.parametrize(("scale", "gain"), [(1.0, 10), (5.0, 5), (11.0, 2.5), (25.0, 1)])
def test_the_pulse_is_one_millivolt_at_the_gain_that_fits(scale: float, gain: float) -> None:
    x = np.zeros((12, 10 * RATE))
    x[:, ::400] = scale
    x[:, 200::400] = -scale
    image = pixels(ecg_paper(x, LEADS_12, RATE, "gain", pixels_per_mm=5))
    # The pulse's rising edge: 5 mm of margin and 2.5 mm of flat line from the left.
    column = is_ink(image)[16 * 5 - 25 :, round(7.5 * 5) - 1 : round(7.5 * 5) + 2].any(axis=1)
    heights = [length for _, length in runs(column) if length > 3][:4]
    assert len(heights) == 4
    assert np.abs(np.array(heights) - gain * 5).max() <= 3  # the pen is 1.4 pixels wide


def test_a_millivolt_of_signal_is_as_high_as_the_pulse() -> None:
    x = np.zeros((12, 10 * RATE))
    x[1, 5 * RATE : 6 * RATE] = 1.0
    image = pixels(ecg_paper(x, LEADS_12, RATE, "step", pixels_per_mm=5))
    last_row = is_ink(image)[-(10 + 3 + 10) * 5 :]
    pulse, step = (
        max(length for _, length in runs(last_row[:, at - 1 : at + 2].any(axis=1)))
        for at in (round(7.5 * 5), ((15 + 5 * 25) * 5))
    )
    assert abs(pulse - step) <= 1


@settings(deadline=None, max_examples=12)
@given(scale=st.floats(0.01, 30), offset=st.floats(-30, 30), seed=st.integers(0, 99))
def test_nothing_is_cut_at_the_paper_s_edge(scale: float, offset: float, seed: int) -> None:
    x = np.clip(ecg(scale=scale, seed=seed), -30, 30) + offset
    image = is_ink(pixels(ecg_paper(x, LEADS_12, RATE, "", pixels_per_mm=3)))
    assert image[:, 30:].any()
    assert not image[[0, -1]].any()
    assert not image[:, [0, -1]].any()
    header = 11 * 3
    assert not image[:header].any()


def test_the_derived_leads_are_drawn_from_i_and_ii() -> None:
    eight = ecg(8)
    twelve = np.concatenate([eight[:2], derived_leads(eight[:2]), eight[2:]])
    assert ecg_paper(eight, LEADS, RATE, "same") == ecg_paper(twelve, LEADS_12, RATE, "same")


def test_rows_in_another_order_and_spelling_are_the_same_ecg() -> None:
    x = ecg(12)
    shuffled = np.random.default_rng(1).permutation(12)
    names = [{"I": "DI", "aVR": "AVR", "V3": "v3"}.get(LEADS_12[i], LEADS_12[i]) for i in shuffled]
    assert ecg_paper(x[shuffled], names, RATE, "same") == ecg_paper(x, LEADS_12, RATE, "same")


def test_a_gap_of_missing_samples_stays_empty() -> None:
    x = ecg()
    x[1, 3 * RATE : 7 * RATE] = np.nan
    image = is_ink(pixels(ecg_paper(x, LEADS_12, RATE, "gap", pixels_per_mm=5)))
    lowest = np.flatnonzero(image[:, 200:].sum(axis=1) > 100)[-1]
    strip = image[lowest - 15 : lowest + 10]
    at = [round((15 + second * 25) * 5) for second in (3.05, 6.95)]
    assert not strip[:, at[0] : at[1]].any()
    assert strip[:, at[1] + 20 :].any()


def test_missing_leads_leave_their_places() -> None:
    def third_column(signal_LT: np.ndarray, leads: tuple[str, ...]) -> np.ndarray:
        """V1 to V3 right of their names, above the rhythm strip."""
        image = is_ink(pixels(ecg_paper(signal_LT, leads, RATE, "t", pixels_per_mm=5)))
        pulses = [first for first, length in runs(image[55:, 36:39].any(axis=1)) if length > 40]
        return image[55 : 55 + pulses[3] - 5, (15 + 125 + 32) * 5 : (15 + 187) * 5]

    assert third_column(ecg(), LEADS_12).any()
    assert not third_column(ecg()[[0, 11]], ("I", "V6")).any()


def test_a_record_that_was_refused_for_its_leads_is_drawn_as_far_as_they_are_known() -> None:
    wide = np.concatenate([ecg(), np.zeros((2, ecg().shape[1]))])
    assert ecg_paper(wide, (*LEADS_12, "vx", "II"), RATE, "t") == ecg_paper(ecg(), LEADS_12, RATE, "t")


@pytest.mark.parametrize(
    ("signal", "leads", "message"),
    [
        (np.zeros((3, 100)), ["I", "II"], "shape"),
        (np.zeros((2, 100)), ["X", "RESP"], "none is one of I, II"),
        (np.zeros((2, 0)), ["I", "II"], "shape"),
    ],
)
def test_what_is_no_ecg_is_refused(signal: np.ndarray, leads: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ecg_paper(signal, leads, 500, "t")


def test_pictures_are_repeatable_and_tell_ecgs_apart() -> None:
    first = ecg_paper(ecg(seed=1), LEADS_12, RATE, "t")
    assert first == ecg_paper(ecg(seed=1), LEADS_12, RATE, "t")
    assert first != ecg_paper(ecg(seed=2), LEADS_12, RATE, "t")


@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_sheet_of_noise_fits_the_event_log(count: int) -> None:
    signal_NLT = np.random.default_rng(0).normal(0, 0.4, (count, 8, 2500))
    png = ecg_sheet(signal_NLT, [f"record {i}" * 9 for i in range(count)], title="noise")
    image = pixels(png)
    assert len(png) < MAX_BYTES
    assert is_ink(image).mean() > 0.01
    assert not is_ink(image)[:, [0, -1]].any()


def test_a_sheet_shows_each_ecg() -> None:
    signal_NLT = np.stack([ecg(8, seed=i)[:, ::2] for i in range(4)])
    changed_NLT = signal_NLT.copy()
    changed_NLT[3, 1, 600] += 0.25
    captions = ["a", "b", "c", "d"]
    before, after = (pixels(ecg_sheet(x, captions)) for x in (signal_NLT, changed_NLT))
    where = np.argwhere((before != after).any(axis=-1))
    height, width = before.shape[:2]
    assert len(where)
    assert (where > (height * 0.4, width * 0.5)).all()  # the fourth place alone


def test_a_sheet_needs_a_caption_a_signal() -> None:
    with pytest.raises(ValueError, match="captions"):
        ecg_sheet(np.zeros((2, 8, 2500)), ["one"])
    with pytest.raises(ValueError, match="captions"):
        ecg_sheet(np.zeros((0, 8, 2500)), [])


def test_real_ecgs_stay_below_the_limit() -> None:
    if not SHARED.is_dir():
        pytest.skip("the real ECGs of ../shared are not here")
    headers = sorted((SHARED / "real/mirror/physionet.org/files/ecg-arrhythmia/1.0.0").rglob("*.hea"))[:8]
    records = [read_wfdb(path) for path in headers]
    sheet = ecg_sheet(np.stack([r.signal_LT for r in records]), [p.stem for p in headers], leads=LEADS_12, rate=500)
    single = ecg_paper(records[0].signal_LT, records[0].leads, 500, headers[0].stem)
    assert len(sheet) < MAX_BYTES
    assert len(single) < MAX_BYTES


def metrics(steps: int = 60) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        line = {"step": float(step), "loss": 1 / step, "learning_rate": 1e-4 * step}
        if step % 10 == 0:
            line |= {"validation_loss": 2 / step, "embedding_std": 0.1, "target_std": 0.2, "effective_rank": 5.0}
        lines.append(line)
    return lines


@pytest.mark.parametrize("key", ["validation_loss", "embedding_std", "target_std", "effective_rank", "learning_rate"])
def test_each_figure_of_a_training_is_drawn(key: str) -> None:
    without = [{name: value for name, value in line.items() if name != key} for line in metrics()]
    full = loss_curve(metrics())
    assert len(full) < MAX_BYTES
    assert pixels(full).shape == (506, 1045, 3)
    assert not np.array_equal(pixels(full), pixels(loss_curve(without)))


def marked_column(scores: dict[int, float]) -> int:
    """Where the picture of a training with these probes, by step, has its vertical line: the middle green column."""
    probed = [{**line, "probe_auc": scores[int(line["step"])]} for line in metrics() if int(line["step"]) in scores]
    others = [line for line in metrics() if int(line["step"]) not in scores]
    png = loss_curve([*others, *probed])
    assert len(png) < MAX_BYTES
    image = pixels(png).astype(int)
    assert image.shape == (506, 1045, 3)
    green = np.abs(image - (0, 0x9E, 0x73)).sum(axis=-1) < 60
    columns = np.flatnonzero(green.sum(axis=0) > 100)
    assert len(columns)
    assert columns.max() - columns.min() <= 3
    rows = np.flatnonzero(green[:, columns].any(axis=1))
    assert rows.min() < 100 < 400 < rows.max()  # through the loss and the probe
    return int(np.median(columns))


def test_the_best_probe_is_marked_and_of_equals_the_first() -> None:
    early, late = marked_column({10: 0.6, 20: 0.9, 50: 0.8}), marked_column({10: 0.6, 20: 0.8, 50: 0.9})
    assert late - early > 200  # half of the loss' width
    assert abs(marked_column({10: 0.6, 20: 0.9, 50: 0.9}) - early) <= 2


def test_without_a_probe_the_loss_has_the_room() -> None:
    green = np.abs(pixels(loss_curve(metrics())).astype(int) - (0, 0x9E, 0x73)).sum(axis=-1) < 60
    assert not green.any()


def test_a_training_without_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="loss"):
        loss_curve([{"step": 1.0, "embedding_std": 0.1}])


def test_roc_curves_show_each_class_and_the_random_encoder() -> None:
    x = np.linspace(0, 1, 200)
    curves = {f"class {i}": (x, x ** (1 / (i + 2))) for i in range(9)}
    aucs = dict.fromkeys(curves, 0.9)
    alone = roc_curves(curves, aucs)
    with_random = roc_curves(curves, aucs, random_curves={"class 0": (x, x**0.9)}, random_aucs={"class 0": 0.55})
    fewer = roc_curves(dict(list(curves.items())[:8]), aucs)
    assert max(map(len, (alone, with_random, fewer))) < MAX_BYTES
    assert len({alone, with_random, fewer}) == 3
    # Nine classes need hues of their own: the palette's seven survive in the file.
    colours = {tuple(c) for c in pixels(alone).reshape(-1, 3)}
    for r, g, b in [(0, 0x72, 0xB2), (0xD5, 0x5E, 0), (0, 0x9E, 0x73), (0xE6, 0x9F, 0)]:
        assert min(abs(c[0] - r) + abs(c[1] - g) + abs(c[2] - b) for c in colours) < 30


def test_a_roc_curve_without_its_area_is_refused() -> None:
    x = np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="AF"):
        roc_curves({"AF": (x, x)}, {})
    with pytest.raises(ValueError, match="none"):
        roc_curves({}, {})


def records_table(rates: list[float | None]) -> pa.Table:
    rows = [
        {
            **dict.fromkeys(RECORDS.names),
            "row": i,
            "source": "s",
            "record_id": str(i),
            "rate": 500.0,
            "samples": 5000,
            "labels": [],
            "notes": [],
            "content_hash": "",
            "signature": bytes(128),
            "quality_heart_rate": rate,
            "quality_minimum": -0.5 - i / 100,
            "quality_maximum": 1.0,
        }
        for i, rate in enumerate(rates)
    ]
    return pa.Table.from_pylist(rows, schema=RECORDS)


def test_histograms_follow_the_records_and_bear_missing_values() -> None:
    low = histograms(records_table([60.0 + i % 20 for i in range(300)]), "s")
    high = histograms(records_table([160.0 - (i % 20) ** 1.3 for i in range(300)]), "s")
    sparse = histograms(records_table([None, 70.0, None]), "s")
    unknown = histograms(records_table([None]), "s")
    assert len({low, high, sparse, unknown}) == 4
    assert max(map(len, (low, high, sparse, unknown))) < MAX_BYTES


def test_pyplot_s_global_state_is_never_touched() -> None:
    code = "import sys, pipelines.plots.ecg_paper, pipelines.plots.curves; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("name", ["$x$", r"$\frac{$", r"a $\nonsense$ b"])
def test_a_dollar_in_a_name_is_no_formula(name: str) -> None:
    """Of a file, a label or an encoder."""
    drawn = [Score(name, name, 0.5, 0.4, 0.6), Score("b", "y", 0.5, 0.4, 0.6)]
    picture = score_chart(drawn, name, axis=name)
    assert picture != score_chart(drawn, name.replace("$", ""), axis=name.replace("$", ""))
    assert roc_curves({name: (np.array([0.0, 1.0]), np.array([0.0, 1.0]))}, {name: 0.5}, title=name)

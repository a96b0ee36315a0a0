"""Raw ECGs of any lead order, rate and length give the embedding that training's own preprocessing gives."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import random_encoder
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.serving.embed import checked, embed, judged_embeddings
from ecg_model.signal import SAMPLES, prepare
from pipelines.harmonize.convert import judge
from pipelines.harmonize.quality import QualityLimits
from pipelines.records import DroppedRecord, Record


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    # an input scale at which the ECG, not the positions, decides the embedding
    return random_encoder(EncoderConfig(dim=32, depth=2, heads=2, input_scale=5.0, patch_init_scale=7.0), 0).eval()


def ecg(rate: float, seconds: float, records: int = 2, seed: int = 0) -> np.ndarray:
    """(records, 12, T) millivolt: the same band-limited signal (below 20 Hz) at any rate, leads III..aVF from I, II."""
    rng = np.random.default_rng(seed)
    frequencies_F = rng.uniform(0.5, 20, 12)
    phases_BLF = rng.uniform(0, 2 * np.pi, (records, 8, 12))
    t_T = np.arange(math.ceil(seconds * rate)) / rate
    eight = np.sin(2 * np.pi * frequencies_F[:, None] * t_T + phases_BLF[..., None]).mean(axis=-2)
    lead_i, lead_ii = eight[:, 0], eight[:, 1]
    limb = np.stack(
        [lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2], axis=1
    )
    return np.concatenate([limb, eight[:, 2:]], axis=1)


def eight_of(x_BLT: np.ndarray) -> np.ndarray:
    return x_BLT[:, [LEADS_12.index(lead) for lead in LEADS]]


def direct(encoder: Encoder, x_BLT: np.ndarray, rate: float) -> np.ndarray:
    prepared = prepare(x_BLT, leads=LEADS_12, rate=rate)
    with torch.inference_mode():
        return encoder.embed(torch.from_numpy(prepared)).numpy()


def test_ten_seconds_give_what_training_would_see(encoder: Encoder) -> None:
    x = ecg(500, 10)
    embedding = embed(encoder, x, sampling_rate=500)
    assert (embedding.shape, embedding.dtype) == ((2, 32), np.float32)
    np.testing.assert_allclose(embedding, direct(encoder, x, 500), atol=1e-6)
    assert np.abs(embedding[0] - embedding[1]).max() > 1e-2, "two ECGs, two embeddings"


@pytest.mark.parametrize("leads", ["standard", "12", ",".join(LEADS_12), "DI,DII,DIII,avr,avl,avf,v1,v2,v3,v4,v5,v6"])
def test_twelve_leads_and_eight_give_the_same(encoder: Encoder, leads: str) -> None:
    x = ecg(250, 10)
    expected = embed(encoder, eight_of(x), sampling_rate=250)
    np.testing.assert_array_equal(embed(encoder, x, sampling_rate=250, leads=leads), expected)
    np.testing.assert_array_equal(embed(encoder, eight_of(x), sampling_rate=250, leads="8"), expected)


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(12)))
def test_named_rows_may_come_in_any_order(encoder: Encoder, order: list[int]) -> None:
    x = ecg(250, 10, records=1)
    leads = ", ".join(LEADS_12[row] for row in order)
    expected = embed(encoder, x, sampling_rate=250)
    np.testing.assert_array_equal(embed(encoder, x[:, order], sampling_rate=250, leads=leads), expected)


@pytest.mark.parametrize("rate", [100.0, 257.0, 360.0, 500.0, 1000.0])
def test_the_rate_hardly_matters(encoder: Encoder, rate: float) -> None:
    expected = embed(encoder, ecg(250, 10), sampling_rate=250)
    got = embed(encoder, ecg(rate, 10), sampling_rate=rate)
    spread = np.abs(expected[0] - expected[1]).max()
    assert np.abs(got - expected).max() < 0.05 * spread


def test_a_long_recording_is_the_mean_of_its_whole_windows(encoder: Encoder) -> None:
    x = ecg(400, 34)
    windows = [x[..., start : start + 4000] for start in (0, 4000, 8000)]
    mean = np.mean([direct(encoder, window, 400) for window in windows], axis=0)
    spread = np.abs(mean[0] - mean[1]).max()
    # a window inside the recording sees what follows it, as the first window in training does
    assert np.abs(embed(encoder, x, sampling_rate=400) - mean).max() < 0.05 * spread


def test_what_does_not_fill_a_second_window_is_left_out(encoder: Encoder) -> None:
    x = ecg(400, 19.9)
    np.testing.assert_allclose(embed(encoder, x, sampling_rate=400), direct(encoder, x, 400), atol=1e-6)


@pytest.mark.parametrize("seconds", [2.0, 3.3, 9.996])
def test_a_short_recording_is_read_by_its_whole_patches_alone(encoder: Encoder, seconds: float) -> None:
    x = ecg(250, seconds)
    columns = int(seconds * 250) // 50
    whole = x[..., : columns * 50]
    elsewhere = np.full((2, 8, SAMPLES), 3.0, np.float32)  # what is not visible must not matter
    elsewhere[..., : columns * 50] = eight_of(whole)
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(elsewhere), torch.arange(columns)).mean(dim=1).numpy()
    np.testing.assert_allclose(embed(encoder, x, sampling_rate=250), expected, atol=1e-6)
    np.testing.assert_array_equal(embed(encoder, x, sampling_rate=250), embed(encoder, whole, sampling_rate=250))


def test_a_batch_of_many_equals_its_records_one_by_one(encoder: Encoder) -> None:
    x = ecg(250, 10, records=70)
    together = embed(encoder, x, sampling_rate=250)
    for record in (0, 63, 64, 69):
        np.testing.assert_allclose(together[record], embed(encoder, x[[record]], sampling_rate=250)[0], atol=1e-5)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, object])
def test_any_kind_of_number_is_taken(encoder: Encoder, kind: type) -> None:
    x = ecg(250, 10, records=1).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(
        embed(encoder, x.astype(kind), sampling_rate=250), embed(encoder, x, sampling_rate=250)
    )


def spoiled(value: Any) -> np.ndarray:
    x = ecg(250, 10).astype(object if isinstance(value, str) else np.float32)
    x[1, 3, 7] = value
    return x


GOOD: dict[str, Any] = {"sampling_rate": 250.0}


@pytest.mark.parametrize(
    ("ecgs", "params", "message"),
    [
        (ecg(250, 10)[0], GOOD, "a single record x is x\\[None\\]"),
        (np.zeros((0, 12, 2500)), GOOD, "shape \\(0, 12, 2500\\)"),
        (np.array([[["a"]]]), GOOD, "give numbers"),
        (np.zeros((1, 12, 2500), complex), GOOD, "give numbers"),
        (spoiled("a"), GOOD, "not a number"),
        ([[[0.1, 0.2]], [[0.1]]], GOOD, "records of unequal leads or lengths"),
        (ecg(250, 10), {}, 'params={"sampling_rate": 500.0}'),
        (ecg(250, 10), {"sampling_rate": 5.0}, "sampling_rate 5"),
        (ecg(250, 10), {"sampling_rate": 1e6}, "sampling_rate 1000000"),
        (ecg(250, 10), {"sampling_rate": math.nan}, "sampling_rate nan"),
        (ecg(250, 10)[:, :7], GOOD, "7 rows: give 12 leads"),
        (ecg(250, 10), GOOD | {"leads": "8"}, "8 lead"),
        (ecg(250, 10), GOOD | {"leads": "I,II"}, "2 lead"),
        (ecg(250, 10), GOOD | {"leads": ""}, "leads '': give standard, 12, 8, or the rows' names joined by commas"),
        (ecg(250, 10), GOOD | {"leads": "Standard"}, "leads 'Standard': give standard, 12, 8"),
        (ecg(250, 10), GOOD | {"leads": ";".join(LEADS_12)}, "leads 'I;II.*: give standard, 12, 8"),
        (ecg(250, 10)[:, :8], GOOD | {"leads": "I,II,III,aVR,aVL,aVF,V1,V2"}, "V3"),
        (ecg(250, 10)[:, :8], GOOD | {"leads": "I,I,V1,V2,V3,V4,V5,V6"}, "are lead I, and their samples differ"),
        (ecg(250, 10)[:, :8], GOOD | {"leads": "I,II,V1,V2,V3,V4,V5,X"}, "X"),
        (ecg(250, 1.9), GOOD, "1.90 s: give at least 2 s"),
    ],
)
def test_bad_input_is_told_what_to_mend(encoder: Encoder, ecgs: Any, params: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed(encoder, ecgs, sampling_rate=params.get("sampling_rate", 0.0), leads=params.get("leads", "standard"))


def with_row(row: int, samples: Any, value: float) -> np.ndarray:
    x = ecg(250, 10, records=1)[0]
    x[row, samples] = value
    return x


BAD = {
    "zeros": (np.zeros((12, 2500)), "flat lead: I, II, V1, V2, V3, V4, V5, V6 are constant"),
    "constant": (np.full((12, 2500), 1.0), "flat lead: I, II, V1, V2, V3, V4, V5, V6 are constant"),
    "lead II alone": (ecg(250, 10)[0] * (np.arange(12) == 1)[:, None], "flat lead: I, V1, V2, V3, V4, V5, V6 are"),
    "V1 off": (with_row(6, slice(None), 0.3), "flat lead: V1 is constant"),
    "V3 off from 1 s on": (with_row(8, slice(250, None), 0.0), "missing samples: .*V3 2,250; .*one value for 2 s"),
    "held inside": (with_row(8, slice(250, 1000), 0.4), "missing samples: .*V3 750; .*one value for 2 s"),
    "NaN": (with_row(6, 750, np.nan), "missing samples: .*V1 1; the first at 3.000 s"),
    "infinite": (with_row(1, 7, np.inf), "missing samples: .*II 1; "),
    "beyond float32": (with_row(1, 7, 1e300), "missing samples: .*II 1; "),
    "kilovolt": (with_row(1, 7, 1e7), "amplitude out of range: it reaches 1e\\+07 mV"),
    "microvolt": (ecg(250, 10)[0] * 1000, "amplitude out of range: .*divide microvolt by 1000"),
    "volt": (ecg(250, 10)[0] / 1000, "amplitude out of range: .*if these are volt, multiply by 1000"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_harmonization_drops_gets_no_number_and_a_reason(encoder: Encoder, name: str) -> None:
    bad, why = BAD[name]
    good = ecg(250, 10, records=3)
    embedding, reasons = judged_embeddings(encoder, np.insert(good, 1, bad, axis=0), sampling_rate=250)
    assert np.isnan(embedding[1]).all()
    np.testing.assert_allclose(np.delete(embedding, 1, axis=0), embed(encoder, good, sampling_rate=250), atol=1e-5)
    assert reasons[:1] + reasons[2:] == [None, None, None]
    assert re.match(why, str(reasons[1])), reasons[1]
    with np.errstate(over="ignore"):
        record = Record(record_id="r", signal_LT=bad.astype(np.float32), leads=LEADS_12, rate=250.0)
    (verdict,) = judge([record], source="s", limits=QualityLimits())
    dropped = isinstance(verdict, DroppedRecord)
    # harmonization keeps small ECGs: a unit is stated there
    assert (dropped and str(reasons[1]).startswith(f"{verdict.reason}: ")) or (name == "volt" and not dropped)


def test_a_lead_that_nothing_uses_may_have_gaps(encoder: Encoder) -> None:
    x = ecg(250, 10)
    gap = x.copy()
    gap[1, 3, 7] = np.nan
    expected = embed(encoder, x, sampling_rate=250)
    np.testing.assert_array_equal(embed(encoder, gap, sampling_rate=250), expected)


def masked() -> np.ma.MaskedArray:
    x = np.ma.masked_array(ecg(250, 10), mask=False)
    x[1, 6, 750] = np.ma.masked
    return x


@pytest.mark.parametrize(
    "form",
    [lambda x: x, list, lambda x: [list(record) for record in x], lambda x: (1000 * x).astype(np.int16)],
    ids=["array", "records", "rows", "integers"],
)
def test_a_masked_sample_is_missing(encoder: Encoder, form: Callable[[np.ma.MaskedArray], Any]) -> None:
    _, reasons = judged_embeddings(encoder, form(masked()), sampling_rate=250)
    assert "V1 1; the first at 3.000 s" in str(reasons[1])


def test_a_gap_behind_the_first_window_ends_the_recording(encoder: Encoder) -> None:
    x = ecg(250, 33)
    gap = x.copy()
    gap[1, 6, 5100:] = np.nan
    got = embed(encoder, gap, sampling_rate=250)
    np.testing.assert_allclose(got[:1], embed(encoder, x[:1], sampling_rate=250), atol=1e-5)
    np.testing.assert_allclose(got[1:], embed(encoder, x[1:, :, :5100], sampling_rate=250), atol=1e-5)


def test_a_line_in_a_later_window_is_no_part_of_a_mean(encoder: Encoder) -> None:
    x = ecg(250, 20)
    x[1, 6, 2500:] = 0.3 + np.arange(2500) % 2 * 2e-4
    embedding, reasons = judged_embeddings(encoder, x, sampling_rate=250)
    assert np.isnan(embedding).all(axis=1).tolist() == [False, True]
    assert reasons == [None, "flat lead: V1 is constant, in the window that begins at 10 s"]


def test_padding_is_trimmed_and_what_is_left_is_judged(encoder: Encoder) -> None:
    x, padded = ecg(250, 14, records=3), np.zeros((3, 12, 4500))
    padded[0, :, 500:4000] = x[0]
    padded[1, :, 500:1500] = x[1, :, :1000]
    padded[2, :, 500:900] = x[2, :, :400]
    embedding, reasons = judged_embeddings(encoder, padded, sampling_rate=250)
    np.testing.assert_allclose(embedding[:1], embed(encoder, x[:1], sampling_rate=250), atol=1e-5)
    np.testing.assert_allclose(embedding[1:2], embed(encoder, x[1:2, :, :1000], sampling_rate=250), atol=1e-5)
    assert np.isnan(embedding[2]).all()
    assert reasons[:2] == [None, None]
    assert reasons[2] == (
        "too short: 1.60 s were recorded; give at least 2 s; beside it are 500 samples of padding before and 3600 after"
    )


def test_a_held_value_behind_the_first_window_ends_the_recording(encoder: Encoder) -> None:
    x = ecg(250, 33)
    x[1, 6, 5100:] = 0.3
    got = embed(encoder, x, sampling_rate=250)
    np.testing.assert_allclose(got[1:], embed(encoder, x[1:, :, :5100], sampling_rate=250), atol=1e-5)


def test_a_short_recording_is_judged_too(encoder: Encoder) -> None:
    x = ecg(250, 4)
    x[1, 6] = 0
    embedding, reasons = judged_embeddings(encoder, x, sampling_rate=250)
    assert np.isnan(embedding).all(axis=1).tolist() == [False, True]
    assert reasons == [None, "flat lead: V1 is constant"]


def test_the_check_leaves_the_callers_array_alone() -> None:
    x = ecg(250, 10)
    before = x.copy()
    assert checked(x).dtype == np.float32
    np.testing.assert_array_equal(x, before)

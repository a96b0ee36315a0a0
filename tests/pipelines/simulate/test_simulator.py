"""The simulator's truth against what independent code measures on its noiseless signals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks

from ecg_model.leads import LEADS_12
from pipelines.simulate import Beat, Diagnosis, simulate
from pipelines.simulate.diagnosis import CODES, conflict, draw_diagnoses
from pipelines.simulate.simulator import draw_body, stream
from pipelines.tasks.catalogue import CPSC2018_CLASSES, PTBXL_SUPERCLASSES

NARROW = [d for d in Diagnosis if d not in (Diagnosis.LBBB, Diagnosis.RBBB, Diagnosis.VENTRICULAR_PREMATURE)]
II = LEADS_12.index("II")


def measured_r_times(x_T: np.ndarray, rate: float) -> np.ndarray:
    """R peaks of one lead: the steepest places by the squared slope over 60 ms, then the largest deviation nearby."""
    slope_T = np.convolve(np.gradient(x_T) ** 2, np.ones(int(0.06 * rate)), mode="same")
    peaks, _ = find_peaks(slope_T, height=0.25 * np.percentile(slope_T, 99.5), distance=int(0.25 * rate))
    reach = int(0.06 * rate)
    r_peaks = []
    for peak in peaks:
        start = max(peak - reach, 0)
        r_peaks.append(start + int(np.argmax(x_T[start : peak + reach])))
    return np.array(r_peaks) / rate


@pytest.mark.parametrize("diagnosis", [Diagnosis.NORMAL, Diagnosis.SINUS_BRADYCARDIA, Diagnosis.SINUS_TACHYCARDIA])
@pytest.mark.parametrize("seed", range(8))
def test_r_times_and_rate_are_where_a_peak_finder_sees_them_in_lead_two(diagnosis, seed):
    ecg = simulate(seed, diagnosis=diagnosis, noise=0)
    peaks = measured_r_times(ecg.signal_LT[II], ecg.rate)
    inner = ecg.r_times_B[(ecg.r_times_B > 0.1) & (ecg.r_times_B < 9.9)]
    nearest = np.abs(inner[:, None] - peaks).min(axis=1)
    assert nearest.max() < 0.020
    peaks = peaks[np.abs(peaks[:, None] - ecg.r_times_B).min(axis=1) < 0.05]
    assert 60 * (len(peaks) - 1) / (peaks[-1] - peaks[0]) == pytest.approx(ecg.heart_rate, abs=1)


@pytest.mark.parametrize("diagnosis", list(Diagnosis))
def test_r_times_are_the_largest_spatial_magnitude_near_them(diagnosis):
    ecg = simulate(3, diagnosis=diagnosis, noise=0, rate=1000)
    # The dipole, back from the leads by least squares.
    body = draw_body(stream(3, 0))
    independent = [LEADS_12.index(lead) for lead in ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")]
    dipole_3T = np.linalg.lstsq(body.field_83, ecg.signal_LT[independent].astype(float), rcond=None)[0]
    size_T = np.linalg.norm(dipole_3T, axis=0)
    for r in ecg.r_times_B[1:-1]:
        start = round((r - 0.06) * 1000)
        peak = (start + np.argmax(size_T[start : start + 121])) / 1000
        assert abs(peak - r) < 0.012


@pytest.mark.parametrize("diagnosis", list(Diagnosis))
def test_limb_leads_obey_einthoven_and_goldberger(diagnosis):
    for noise in (0.0, 1.0):
        lead = dict(zip(LEADS_12, simulate(1, diagnosis=diagnosis, noise=noise).signal_LT, strict=True))
        assert np.array_equal(lead["III"], lead["II"] - lead["I"])
        np.testing.assert_allclose(lead["aVR"], -(lead["I"] + lead["II"]) / 2, atol=1e-6)
        np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_intervals_are_those_that_define_the_diagnoses(seed):
    normal = simulate(seed, diagnosis=Diagnosis.NORMAL)
    assert normal.pr_ms is not None
    assert 110 < normal.pr_ms < 200
    assert 65 < normal.qrs_ms < 110
    assert 60 <= round(normal.heart_rate + 1) <= 103
    assert simulate(seed, diagnosis=Diagnosis.LBBB).qrs_ms > 120
    assert simulate(seed, diagnosis=Diagnosis.RBBB).qrs_ms > 120
    assert (simulate(seed, diagnosis=Diagnosis.FIRST_DEGREE_BLOCK).pr_ms or 0) > 200
    assert simulate(seed, diagnosis=Diagnosis.SINUS_BRADYCARDIA).heart_rate < 63
    assert simulate(seed, diagnosis=Diagnosis.SINUS_TACHYCARDIA).heart_rate > 97
    fibrillation = simulate(seed, diagnosis=Diagnosis.ATRIAL_FIBRILLATION)
    assert fibrillation.pr_ms is None
    assert np.isnan(fibrillation.p_B3).all()


def test_fibrillation_is_irregular_and_sinus_rhythm_is_not():
    def spread(diagnosis: Diagnosis) -> list[float]:
        return [
            float(np.std(rr) / np.mean(rr))
            for k in range(15)
            if len(rr := np.diff(simulate(k, diagnosis=diagnosis).r_times_B))
        ]

    assert min(spread(Diagnosis.ATRIAL_FIBRILLATION)) > np.median(spread(Diagnosis.NORMAL))
    assert np.median(spread(Diagnosis.ATRIAL_FIBRILLATION)) > 0.12
    assert np.median(spread(Diagnosis.NORMAL)) < 0.08


@pytest.mark.parametrize(
    ("diagnosis", "beat"),
    [
        (Diagnosis.ATRIAL_PREMATURE, Beat.ATRIAL_PREMATURE),
        (Diagnosis.VENTRICULAR_PREMATURE, Beat.VENTRICULAR_PREMATURE),
    ],
)
@pytest.mark.parametrize("seconds", [5, 10])
def test_premature_beats_are_early(diagnosis, beat, seconds):
    for seed in range(10):
        ecg = simulate(seed, diagnosis=diagnosis, seconds=seconds)
        early = np.flatnonzero(ecg.kind_B == beat)
        assert len(early) >= 1
        rr_B = np.diff(ecg.r_times_B)
        usual = np.median(rr_B)
        assert all(rr_B[k - 1] < 0.95 * usual for k in early if k > 0 and ecg.kind_B[k - 1] == Beat.CONDUCTED)


@pytest.mark.parametrize("diagnosis", NARROW)
def test_qrs_boundaries_hold_the_energy_of_the_slopes(diagnosis):
    """Between the beats' QRS boundaries lie nearly all fast changes of the noiseless signal, and outside hardly any."""
    ecg = simulate(7, diagnosis=diagnosis, noise=0)
    slope_T = (np.gradient(ecg.signal_LT, axis=1) ** 2).sum(axis=0)
    inside_T = np.zeros(len(slope_T), dtype=bool)
    for onset, _, offset in ecg.qrs_B3[~np.isnan(ecg.qrs_B3[:, 0])]:
        inside_T[round(onset * 500) : round(offset * 500) + 1] = True
    whole = slice(round(ecg.qrs_B3[1, 0] * 500) - 5, round(ecg.qrs_B3[-2, 2] * 500) + 5)
    assert slope_T[whole][inside_T[whole]].sum() > 0.93 * slope_T[whole].sum()


def test_qt_follows_the_rate():
    qt = {
        d: np.mean([simulate(k, diagnosis=d).qt_ms for k in range(20)])
        for d in (Diagnosis.SINUS_BRADYCARDIA, Diagnosis.SINUS_TACHYCARDIA)
    }
    assert qt[Diagnosis.SINUS_BRADYCARDIA] > qt[Diagnosis.SINUS_TACHYCARDIA] + 60


def test_r_grows_from_v1_to_v4_in_healthy_hearts():
    """R in V1 is the smallest, the largest R is in V3 to V6, S in V1 or V2 is deep; P is upright in II."""
    heights = []
    for seed in range(40):
        ecg = simulate(seed, diagnosis=Diagnosis.NORMAL, noise=0)
        onset, _, offset = (round(t * 500) for t in ecg.qrs_B3[2])
        heights.append(ecg.signal_LT[6:, onset : offset + 1].max(axis=1))
        p_peak = round(ecg.p_B3[2, 1] * 500)
        assert ecg.signal_LT[II, p_peak] > ecg.signal_LT[II, round(ecg.p_B3[2, 0] * 500)] - 0.02
    mean = np.mean(heights, axis=0)
    assert mean[0] == mean.min()
    assert mean[:3].tolist() == sorted(mean[:3])
    assert mean.argmax() in (2, 3, 4)


def test_seeds_decide_everything_and_persons_keep_their_body():
    one, again, other = simulate(5), simulate(5), simulate(6)
    assert np.array_equal(one.signal_LT, again.signal_LT)
    assert not np.array_equal(one.signal_LT, other.signal_LT)
    first, second = (simulate(k, person=9, diagnosis=Diagnosis.NORMAL) for k in (1, 2))
    assert (first.sex, first.age) == (second.sex, second.age)
    assert not np.array_equal(first.signal_LT, second.signal_LT)
    assert not np.array_equal(simulate((0, 1)).signal_LT, simulate((1, 0)).signal_LT)


@given(
    rate=st.one_of(st.sampled_from([50, 100, 250, 400, 500, 1000, 2000]), st.floats(50, 2000)),
    seconds=st.floats(5, 40),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_any_rate_and_length(rate, seconds, seed):
    ecg = simulate(seed, rate=rate, seconds=seconds)
    assert ecg.signal_LT.shape == (12, round(rate * seconds))
    assert ecg.signal_LT.dtype == np.float32
    assert np.isfinite(ecg.signal_LT).all()
    assert np.abs(ecg.signal_LT).max() < 15
    assert (np.diff(ecg.r_times_B) > 0.25).all()
    assert 0 <= ecg.r_times_B[0] < ecg.r_times_B[-1] < seconds
    for wave_B3 in (ecg.p_B3, ecg.qrs_B3, ecg.t_B3):
        assert wave_B3.shape == (len(ecg.r_times_B), 3)
        there = wave_B3[~np.isnan(wave_B3[:, 0])]
        assert (np.diff(there, axis=1) > 0).all()
        assert (there >= 0).all()
        assert (there <= seconds).all()
    same = simulate(seed, rate=500, seconds=seconds, noise=0)
    np.testing.assert_array_equal(same.r_times_B, ecg.r_times_B)
    assert (same.pr_ms, same.qrs_ms, same.qt_ms) == (ecg.pr_ms, ecg.qrs_ms, ecg.qt_ms)


def test_noise_adds_to_the_same_heart():
    clean, noisy, worse = (simulate(11, noise=level) for level in (0, 1, 3))
    assert 0 < np.std(noisy.signal_LT - clean.signal_LT) < np.std(worse.signal_LT - clean.signal_LT)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"rate": 20}, "rate=20"),
        ({"seconds": 1}, "seconds=1"),
        ({"noise": -1}, "noise=-1"),
        ({"diagnosis": ()}, r"diagnosis=\(\)"),
        ({"diagnosis": (Diagnosis.LBBB, Diagnosis.RBBB)}, "left bundle branch block with right"),
        ({"diagnosis": (Diagnosis.NORMAL, Diagnosis.RBBB)}, "normal with"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments, field):
    with pytest.raises(ValueError, match=field):
        simulate(0, **arguments)


def test_drawn_diagnoses_can_be_together_and_all_occur():
    rng = np.random.default_rng(0)
    drawn = [draw_diagnoses(rng) for _ in range(2000)]
    assert {d for ds in drawn for d in ds} == set(Diagnosis)
    assert any(len(ds) == 2 for ds in drawn)
    assert all(conflict(*ds) is None for ds in drawn if len(ds) == 2)


def test_codes_are_those_of_the_probes_tasks():
    cpsc = {code for c in CPSC2018_CLASSES for code in c.codes}
    assert {codes.cpsc for codes in CODES.values()} - {None} == cpsc
    classes = {c.name: set(c.codes) for c in PTBXL_SUPERCLASSES}
    assert all(classes[name] & {scp for codes in CODES.values() for scp in codes.scp} for name in classes)

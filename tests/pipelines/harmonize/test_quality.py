"""Quality figures against signals whose figures are known, and against cardiologists' R peaks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, periodogram, sosfiltfilt

from ecg_model.leads import LEADS, LEADS_12
from ecg_model.signal import derived_leads, prepare
from pipelines.harmonize.quality import (
    Figures,
    QualityLimits,
    einthoven_residual,
    figures,
    heart_rate,
    missing_share,
    verdict,
)
from pipelines.records import DropReason
from tests.support.paths import SHARED

LUDB = SHARED / "real" / "mirror" / "physionet.org" / "files" / "ludb" / "1.0.1" / "data"
TIME = np.arange(2500) / 250


def judged(raw_LT: np.ndarray, leads: tuple[str, ...] = LEADS, limits: QualityLimits | None = None) -> Figures:
    """Figures of one record at 250 Hz."""
    raw_NLT = raw_LT[None].astype(np.float32)
    x_NLT = prepare(raw_NLT, leads=leads, rate=250)
    return figures(raw_NLT, x_NLT, leads=leads, rate=250, limits=limits or QualityLimits())


def eight(x_T: np.ndarray) -> np.ndarray:
    return np.tile(x_T, (8, 1))


@pytest.mark.parametrize(
    ("frequency", "figure"),
    [(0.2, "wander"), (0.4, "wander"), (50, "mains"), (60, "mains"), (80, "noise"), (97, "noise")],
)
def test_a_sine_is_found_in_its_band_with_its_rms_and_nowhere_else(frequency: float, figure: str) -> None:
    found = judged(eight(0.3 * np.sin(2 * np.pi * frequency * TIME + 0.7) + 2))
    for name in ("wander", "mains", "noise"):
        expected = 0.3 / np.sqrt(2) if name == figure else 0
        assert getattr(found, name)[0] == pytest.approx(expected, rel=0.1, abs=2e-3), name


def test_the_ecgs_own_band_counts_as_no_noise() -> None:
    found = judged(eight(sum(np.sin(2 * np.pi * f * TIME) for f in (1.3, 5, 12, 25, 40))))
    assert max(found.wander[0], found.mains[0], found.noise[0]) < 5e-3


def test_white_noise_is_no_mains() -> None:
    found = judged(np.random.default_rng(0).normal(0, 0.1, (8, 2500)))
    assert found.noise[0] == pytest.approx(0.1 * np.sqrt(40 / 125), rel=0.1)
    assert found.mains[0] < 0.015


def test_what_a_low_rate_cannot_hold_is_unknown() -> None:
    raw_NLT = np.random.default_rng(0).normal(0, 0.1, (2, 8, 1000)).astype(np.float32)
    x_NLT = prepare(raw_NLT, leads=LEADS, rate=100)
    found = figures(raw_NLT, x_NLT, leads=LEADS, rate=100, limits=QualityLimits())
    assert np.isnan([found.mains, found.noise]).all()
    assert np.isfinite(found.wander).all()


def test_flat_leads_are_counted_and_one_is_enough_to_drop() -> None:
    x_LT = np.random.default_rng(0).normal(0, 0.1, (8, 2500))
    assert verdict(judged(x_LT), 0, QualityLimits()) is None
    x_LT[3] = 0.42
    found = judged(x_LT)
    assert found.flat_leads[0] == 1
    dropped = verdict(found, 0, QualityLimits())
    assert dropped is not None
    assert dropped[0] is DropReason.FLAT_LEAD
    assert verdict(found, 0, QualityLimits(flat_leads=1)) is None
    assert judged(np.zeros((8, 2500))).flat_leads[0] == 8


def test_a_flat_lead_that_the_model_does_not_read_drops_nothing() -> None:
    x_LT = np.random.default_rng(0).normal(0, 0.1, (12, 2500))
    x_LT[LEADS_12.index("aVF")] = 0
    assert judged(x_LT, LEADS_12).flat_leads[0] == 0


def test_amplitudes_that_microvolt_can_hold_are_kept() -> None:
    x_LT = np.random.default_rng(0).normal(0, 0.1, (8, 2500))
    x_LT[0, 100] = -27
    found = judged(x_LT)
    assert found.minimum[0] == -27
    assert verdict(found, 0, QualityLimits()) is None
    x_LT[1, 5] = 32.768
    dropped = verdict(judged(x_LT), 0, QualityLimits())
    assert dropped is not None
    assert dropped[0] is DropReason.OUT_OF_RANGE
    assert "-27.000 to 32.768 mV" in dropped[1]


def test_saturation_is_the_share_that_stands_still_at_an_extreme() -> None:
    clean = eight(np.sin(2 * np.pi * 1.37 * TIME))
    assert judged(clean).saturation_share[0] == 0
    clipped = np.clip(clean, -1, 0.5)
    at_top = (clipped[0] == 0.5).mean()
    assert judged(clipped).saturation_share[0] == pytest.approx(at_top, abs=0.01)
    held = clean.copy()
    held[2, 300:400] = 0.1
    assert judged(held).saturation_share[0] == 0


def test_einthovens_residual_is_that_of_the_worst_derived_lead() -> None:
    x_LT = np.random.default_rng(0).normal(0, 0.3, (1, 12, 2500))
    x_LT[:, 2:6] = derived_leads(x_LT[:, :2])
    np.testing.assert_allclose(einthoven_residual(x_LT, LEADS_12), 0, atol=1e-12)
    x_LT[:, 4] += 0.2
    assert einthoven_residual(x_LT, LEADS_12)[0] == pytest.approx(0.2)
    assert einthoven_residual(x_LT[:, [0, 1, 4]], ("I", "II", "aVL"))[0] == pytest.approx(0.2)
    assert np.isnan(einthoven_residual(x_LT[:, :2], ("I", "II"))[0])


def noisy(rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Twelve leads at `rate` with wander, mains, noise and beats, and the same harmonized."""
    rng = np.random.default_rng(0)
    time = np.arange(round(10 * rate)) / rate
    x_LT = rng.normal(0, 0.05, (12, len(time)))
    for x_T in x_LT:
        x_T += rng.uniform(0.1, 1) * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time)
        x_T += rng.uniform(0, 0.2) * np.sin(2 * np.pi * 50 * time)
        x_T += np.exp(-0.5 * (((time - 0.3) % 0.83 - 0.4) / 0.012) ** 2)
    raw_NLT = x_LT[None].astype(np.float32)
    return raw_NLT, prepare(raw_NLT, leads=LEADS_12, rate=rate)


@pytest.mark.parametrize("rate", [250, 500])
def test_figures_agree_with_scipys_and_with_plain_loops(rate: float) -> None:
    raw_NLT, x_NLT = noisy(rate)
    raw_NLT = np.clip(raw_NLT, -0.8, 0.9)
    found = figures(raw_NLT, x_NLT, leads=LEADS_12, rate=rate, limits=QualityLimits())
    frequencies, density_LF = periodogram(x_NLT[0].astype(np.float64), fs=250, window="hann", detrend="constant")
    power_F = density_LF.mean(axis=0) * (frequencies[1] - frequencies[0])

    def band(low: float, high: float) -> np.ndarray:
        return power_F[(frequencies >= low - 1e-9) & (frequencies <= high + 1e-9)]

    assert found.wander[0] == pytest.approx(np.sqrt(band(0.05, 0.5).sum()), rel=1e-3)
    assert found.noise[0] == pytest.approx(np.sqrt(band(70, 110).sum()), rel=1e-3)
    beside = np.median(np.r_[band(47, 49), band(51, 53)])
    assert found.mains[0] == pytest.approx(np.sqrt(band(49.5, 50.5).sum() - 11 * beside), rel=1e-3)

    i, ii, iii, avr, avl, avf = raw_NLT[0, :6].astype(np.float64)
    formulas = (iii - (ii - i), avr + (i + ii) / 2, avl - (i - ii / 2), avf - (ii - i / 2))
    assert found.einthoven[0] == pytest.approx(max(np.sqrt(np.mean(r**2)) for r in formulas), rel=1e-5)

    still = [
        sum(a == b and b in (min(lead), max(lead)) for a, b in pairwise(lead)) / (len(lead) - 1)
        for lead in raw_NLT[0].tolist()
    ]
    assert found.saturation_share[0] == pytest.approx(max(still), abs=1e-6)
    assert found.saturation_share[0] > 0
    assert (found.minimum[0], found.maximum[0]) == (x_NLT.min(), x_NLT.max())

    sos = butter(2, (8, 20), "bandpass", fs=250, output="sos")
    energy = (sosfiltfilt(sos, x_NLT[0].astype(np.float64)) ** 2).sum(axis=0)
    peaks, _ = find_peaks(energy, height=energy.max() / 3, distance=75)
    assert found.heart_rate[0] == pytest.approx(60 * 250 / np.median(np.diff(peaks)), rel=0.02)


@pytest.mark.parametrize("lead", ["III", "aVR", "aVL", "aVF"])
def test_each_of_the_four_formulas_is_looked_at(lead: str) -> None:
    x_LT = np.random.default_rng(0).normal(0, 0.3, (1, 12, 2500))
    x_LT[:, 2:6] = derived_leads(x_LT[:, :2])
    x_LT[:, LEADS_12.index(lead)] *= -1
    expected = 2 * np.sqrt(np.mean(x_LT[0, LEADS_12.index(lead)] ** 2))
    assert einthoven_residual(x_LT, LEADS_12)[0] == pytest.approx(expected)


LIMITS = {
    "saturation_share": (0.001, DropReason.SATURATED),
    "einthoven": (0.05, DropReason.LIMB_LEADS_DISAGREE),
    "wander": (0.1, DropReason.BASELINE_WANDER),
    "mains": (0.01, DropReason.MAINS),
    "noise": (0.01, DropReason.NOISE),
    "heart_rate_least": (90.0, DropReason.HEART_RATE),
    "heart_rate_most": (60.0, DropReason.HEART_RATE),
}


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_drops_what_is_beyond_it_and_none_does_by_default(name: str) -> None:
    raw_NLT, x_NLT = noisy(500)
    raw_NLT = np.clip(raw_NLT, -0.8, 0.9)
    limit, reason = LIMITS[name]
    found = figures(raw_NLT, x_NLT, leads=LEADS_12, rate=500, limits=QualityLimits())
    assert verdict(found, 0, QualityLimits()) is None
    dropped = verdict(found, 0, QualityLimits(**{name: limit}))
    assert dropped is not None
    assert dropped[0] is reason
    assert f"{limit:g}" in dropped[1]
    looser = limit / 3 if name == "heart_rate_least" else 1000 * limit
    assert verdict(found, 0, QualityLimits(**{name: looser})) is None


@pytest.mark.parametrize("name", ["einthoven", "mains", "noise", "heart_rate_least", "heart_rate_most"])
def test_what_is_unknown_drops_nothing(name: str) -> None:
    x_NLT = np.zeros((1, 8, 2500), np.float32)
    x_NLT[..., ::2] = 0.001
    found = figures(x_NLT, x_NLT, leads=LEADS, rate=100, limits=QualityLimits())
    assert np.isnan([found.einthoven, found.mains, found.noise, found.heart_rate]).all()
    assert verdict(found, 0, QualityLimits(**{name: 1e-6})) is None


def test_rates_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="heart_rate_least 200: use less than heart_rate_most 100"):
        QualityLimits(heart_rate_least=200, heart_rate_most=100)


@pytest.mark.parametrize("rate", [32, 45, 60, 90, 150, 200])
def test_the_heart_rate_of_regular_beats_is_theirs(rate: float) -> None:
    beats = np.arange(0.3, 10, 60 / rate)
    qrs = np.exp(-0.5 * ((TIME[:, None] - beats) / 0.012) ** 2).sum(axis=1)
    t_wave = 0.3 * np.exp(-0.5 * ((TIME[:, None] - beats - min(0.3, 18 / rate)) / 0.04) ** 2).sum(axis=1)
    noise = np.random.default_rng(0).normal(0, 0.02, (8, 2500)) + 0.1 * np.sin(2 * np.pi * 50 * TIME)
    assert heart_rate((eight(qrs + t_wave) + noise)[None])[0] == pytest.approx(rate, rel=0.02)


def test_two_beats_have_no_rate() -> None:
    one = np.exp(-0.5 * ((TIME - 5) / 0.012) ** 2)
    assert np.isnan(heart_rate(eight(one)[None])[0])
    assert np.isnan(heart_rate(np.zeros((1, 8, 2500)))[0])


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # wfdb's, at its import
def test_the_heart_rate_agrees_with_annotated_beats() -> None:
    if not LUDB.is_dir():
        pytest.skip("needs ../shared/real/mirror (LUDB)")
    import wfdb

    errors = []
    for header in sorted(LUDB.glob("*.hea")):
        name = str(header.with_suffix(""))
        record = wfdb.rdrecord(name)
        beats = wfdb.rdann(name, "ii")
        peaks = beats.sample[np.array(beats.symbol) == "N"]
        x_LT = prepare(record.p_signal.T, leads=record.sig_name, rate=record.fs)
        errors.append(abs(heart_rate(x_LT[None])[0] - 60 * record.fs / np.median(np.diff(peaks))))
    assert len(errors) == 50
    assert max(errors) < 3


def test_missing_samples_are_those_that_are_not_finite() -> None:
    x_LT = np.zeros((8, 100))
    x_LT[0, :4] = [np.nan, np.inf, -np.inf, 1]
    assert missing_share(x_LT) == pytest.approx(3 / 800)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flat_leads", 9),
        ("flat_leads", -1),
        ("flat_millivolt", -0.1),
        ("amplitude", 33),
        ("amplitude", 0),
        ("saturation_share", -0.1),
        ("wander", float("nan")),
        ("noise", float("inf")),
        ("heart_rate_most", -1),
    ],
)
def test_limits_that_make_no_sense_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} {value}: use"):
        QualityLimits(**{field: value})

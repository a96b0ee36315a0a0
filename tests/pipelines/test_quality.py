"""Quality figures against signals whose figures are known, and against cardiologists' R peaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecg_model.signal import LEADS, LEADS_12, derived_leads, prepare
from pipelines.quality import Figures, QualityLimits, einthoven_residual, figures, heart_rate, missing_share, verdict
from pipelines.records import DropReason

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
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
    assert einthoven_residual(x_LT[:, [0, 1, 4]], ("I", "ii", "AVL"))[0] == pytest.approx(0.2)
    assert np.isnan(einthoven_residual(x_LT[:, :2], ("I", "II"))[0])


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
    [("flat_leads", 9), ("flat_leads", -1), ("flat_millivolt", -0.1), ("amplitude", 33), ("amplitude", 0)],
)
def test_limits_that_make_no_sense_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} {value}: use"):
        QualityLimits(**{field: value})

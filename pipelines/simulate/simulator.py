"""Simulate an ECG: heart, body and recording are drawn from a seed, and the exact truth about them is known.

Shapes: L leads, T samples, B beats, N pulses, W samples of a pulse. Millivolt and seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from ecg_model.leads import LEADS_12
from ecg_model.signal import derived_leads
from pipelines.records import Sex
from pipelines.simulate.diagnosis import Diagnosis, checked, draw_diagnoses
from pipelines.simulate.morphology import (
    EDGE,
    Complex,
    Morphology,
    atrial_premature,
    draw_morphology,
    ventricular_premature,
)
from pipelines.simulate.noise import NoiseLevels, draw_levels, draw_noise
from pipelines.simulate.rhythm import Beat, Rhythm, draw_rhythm

# Dower, Machado & Osborne, "On deriving the electrocardiogram from vectorcardiographic leads" (Clin Cardiol 1980):
# the leads I, II, V1..V6 from Frank's x (left), y (feet), z (back).
DOWER_83 = np.array(
    [
        (0.632, -0.235, 0.059),
        (0.235, 1.066, -0.132),
        (-0.515, 0.157, -0.917),
        (0.044, 0.164, -1.387),
        (0.882, 0.098, -1.277),
        (1.213, 0.127, -0.601),
        (1.125, 0.127, -0.086),
        (0.831, 0.076, 0.230),
    ]
)

# The T wave rises more slowly than it falls: the sigma of each side as a share of the QT interval.
_T_RISE, _T_FALL = 0.135, 0.085
# A pulse is drawn to this many sigma; it has fallen to 0.00015 of its peak.
_REACH = 4.2

Seed = int | Sequence[int]


@dataclass(frozen=True, kw_only=True)
class SimulatedECG:
    """A 12-lead ECG and the truth about it.

    A wave begins and ends where its spatial magnitude crosses 5 % of its peak. Waves are onset, peak and offset in
    seconds; NaN if a beat has no such wave or it is not completely inside the window.
    """

    signal_LT: np.ndarray
    """float32 (12, rate * seconds), millivolt, in the order of `leads`; III, aVR, aVL and aVF follow from I and II
    exactly."""
    rate: float  # samples per second
    diagnoses: tuple[Diagnosis, ...]
    age: int
    sex: Sex
    r_times_B: np.ndarray  # R peaks (largest spatial magnitude of the QRS) inside the window, seconds
    kind_B: np.ndarray  # `Beat` values
    p_B3: np.ndarray
    qrs_B3: np.ndarray
    t_B3: np.ndarray
    heart_rate: float  # beats per minute from the first to the last R
    pr_ms: float | None  # of conducted beats; None without a P wave
    qrs_ms: float  # of conducted beats
    qt_ms: float  # the median of conducted beats
    noise: NoiseLevels
    leads: tuple[str, ...] = LEADS_12


@dataclass(frozen=True, kw_only=True)
class Body:
    """What all records of a person share."""

    sex: Sex
    years: float  # age in standard deviations from the mean
    turn_33: np.ndarray  # rotation and strength of the heart
    field_83: np.ndarray  # the lead vectors of I, II, V1..V6


def simulate(
    seed: Seed,
    *,
    rate: float = 500,
    seconds: float = 10,
    diagnosis: Diagnosis | Sequence[Diagnosis] | None = None,
    person: Seed | None = None,
    noise: float = 1.0,
) -> SimulatedECG:
    """Simulate the ECG of a seed; the same arguments give the same bytes.

    rate: samples per second, 50 to 2000.
    seconds: 5 to 600.
    diagnosis: one or several; None draws by prevalence.
    person: a seed; records that share it have one body. By default each record has another body.
    noise: factor on all disturbances; 0 gives the noiseless ECG.

    The truth depends on neither rate nor noise. Raises ValueError if a number is out of its range, or if two diagnoses
    exclude each other.
    """
    _check_ranges(rate, seconds, noise)
    rng = stream(seed, 1)
    diagnoses = draw_diagnoses(rng) if diagnosis is None else checked(diagnosis)
    body = draw_body(stream(seed if person is None else person, 0))
    morphology = draw_morphology(rng, diagnoses).turned(body.turn_33)
    kinds = {
        Beat.CONDUCTED: morphology,
        Beat.ATRIAL_PREMATURE: atrial_premature(rng, morphology),
        Beat.VENTRICULAR_PREMATURE: ventricular_premature(rng, morphology),
    }
    rhythm = draw_rhythm(rng, diagnoses, seconds)
    levels = draw_levels(rng, noise)
    samples = round(rate * seconds)
    truth, dipole_3T = _beats(kinds, rhythm, rate=rate, samples=samples)
    if Diagnosis.ATRIAL_FIBRILLATION in diagnoses:
        dipole_3T += _fibrillatory_waves(rng, rate, samples)
    signal_8T = (body.field_83 @ dipole_3T).astype(np.float32)
    if noise > 0:  # from a separate stream, so that the truth does not depend on the noise
        signal_8T += draw_noise(stream(seed, 2), levels, breath_hz=rhythm.breath[0], rate=rate, samples=samples)
    return _with_truth(
        truth,
        signal_LT=np.concatenate([signal_8T[:2], derived_leads(signal_8T[:2]), signal_8T[2:]]),
        rate=float(rate),
        seconds=seconds,
        diagnoses=diagnoses,
        age=_age(diagnoses, body),
        sex=body.sex,
        pr_s=None if morphology.p is None else morphology.pr_s,
        noise=levels,
    )


def _check_ranges(rate: float, seconds: float, noise: float) -> None:
    if not 50 <= rate <= 2000:
        raise ValueError(f"rate={rate}: use 50 to 2000 samples per second")
    if not 5 <= seconds <= 600:
        raise ValueError(f"seconds={seconds}: use 5 to 600")
    if not noise >= 0:
        raise ValueError(f"noise={noise}: use 0 (none), 1 (usual) or more")


def draw_body(rng: np.random.Generator) -> Body:
    """Draw sex and anatomy: the heart's rotation about three axes, its strength, electrode positions, chest wall."""
    sex = cast(Sex, str(rng.choice(("male", "female"))))
    years = rng.normal(0, 1)
    # Frontal axis further left with age; then transition zone; then tilt.
    turns = rng.normal((6 - 5 * years, 0, 0), (14, 12, 8))
    frontal, horizontal, sagittal = np.deg2rad(np.clip(turns, (-22, -26, -18), (34, 26, 18)))
    strength = (0.90 if sex == "female" else 1.05) * np.clip(rng.lognormal(-0.05, 0.17), 0.65, 1.25)
    turn_33 = strength * _rotation(2, frontal) @ _rotation(1, horizontal) @ _rotation(0, sagittal)
    # Chest electrodes are up to half a position away from their proper place.
    place_6 = np.clip(np.arange(6) + rng.normal(0, 0.18) + rng.normal(0, 0.08, 6), -0.4, 5.4)
    below_6 = np.clip(np.floor(place_6), 0, 4).astype(int)
    share_61 = (place_6 - below_6)[:, None]
    chest_63 = DOWER_83[2:]
    field_83 = np.concatenate([DOWER_83[:2], (1 - share_61) * chest_63[below_6] + share_61 * chest_63[below_6 + 1]])
    field_83 = field_83 * rng.lognormal(0, 0.07, (8, 1)) + rng.normal(0, 0.02, (8, 3))
    return Body(sex=sex, years=years, turn_33=turn_33, field_83=field_83)


def stream(seed: Seed, purpose: int) -> np.random.Generator:
    """Return the generator of a seed for one purpose; generators of different purposes are independent."""
    parts = (seed,) if isinstance(seed, int) else tuple(seed)
    return np.random.default_rng((*parts, purpose))


def _rotation(axis: int, angle: float) -> np.ndarray:
    first, second = (k for k in range(3) if k != axis)
    matrix_33 = np.eye(3)
    matrix_33[[first, second], [first, second]] = np.cos(angle)
    matrix_33[first, second], matrix_33[second, first] = -np.sin(angle), np.sin(angle)
    return matrix_33


def _age(diagnoses: Sequence[Diagnosis], body: Body) -> int:
    healthy = set(diagnoses) <= {Diagnosis.NORMAL, Diagnosis.SINUS_BRADYCARDIA, Diagnosis.SINUS_TACHYCARDIA}
    mean, deviation = (47, 16) if healthy else (66, 11)
    return int(np.clip(mean + deviation * body.years, 18, 89))


def _beats(
    kinds: dict[Beat, Morphology], rhythm: Rhythm, *, rate: float, samples: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the truth of each beat, and the sum of their dipoles (3, samples), millivolt."""
    dipole_3T = np.zeros((3, samples))
    beats = len(rhythm.times_B)
    truth = {name: np.full((beats, 3), np.nan) for name in ("p", "qrs", "t")}
    # Repolarization follows the rate of the last minute more than the last interval.
    rr_B = 0.75 * rhythm.rr_B.mean() + 0.25 * rhythm.rr_B
    # Breathing moves the heart against the electrodes.
    hertz, shift = rhythm.breath
    strength_B = 1 + 0.05 * np.sin(2 * np.pi * hertz * rhythm.times_B + shift)
    for kind, beat in kinds.items():
        these = np.flatnonzero(rhythm.kind_B == kind)
        if not len(these):
            continue
        # QRS: the R peak is the beat's time.
        r_B, size_B = rhythm.times_B[these], strength_B[these]
        onset, peak, offset = beat.qrs.boundaries()
        truth["qrs"][these] = r_B[:, None] + (onset, peak, offset)
        _add_complex(dipole_3T, rate, beat.qrs, r_B, size_B)
        if beat.p is not None:  # placed so that P onset to QRS onset is the PR interval
            p_onset, p_peak, p_offset = beat.p.boundaries()
            p_B = r_B + onset - beat.pr_s - p_onset
            truth["p"][these] = p_B[:, None] + (p_onset, p_peak, p_offset)
            _add_complex(dipole_3T, rate, beat.p, p_B, size_B)
        # T: its peak is placed so that its offset ends the QT interval; the ST segment lies between QRS and T.
        qt_B = beat.qt_s(rr_B[these])
        rise_B, fall_B = _T_RISE * qt_B, _T_FALL * qt_B
        t_B = r_B + onset + qt_B - EDGE * fall_B
        truth["t"][these] = np.stack([np.maximum(t_B - EDGE * rise_B, r_B + offset), t_B, t_B + EDGE * fall_B], axis=1)
        _add_pulses(dipole_3T, rate, t_B, rise_B, fall_B, size_B[:, None] * beat.t)
        _add_plateaus(dipole_3T, rate, r_B + offset, t_B, size_B[:, None] * beat.st)
    truth["r"], truth["kind"] = rhythm.times_B, rhythm.kind_B
    return truth, dipole_3T


def _add_complex(dipole_3T: np.ndarray, rate: float, wave: Complex, at_B: np.ndarray, size_B: np.ndarray) -> None:
    """Add a wave at the given times, with a factor on each."""
    beats, pulses = len(at_B), len(wave.centre_W)
    centre = (at_B[:, None] + wave.centre_W).ravel()
    sigma = np.tile(wave.sigma_W, beats)
    moment = (size_B[:, None, None] * wave.moment_W3).reshape(beats * pulses, 3)
    _add_pulses(dipole_3T, rate, centre, sigma, sigma, moment)


def _add_pulses(
    dipole_3T: np.ndarray,
    rate: float,
    centre_N: np.ndarray,
    rise_N: np.ndarray,
    fall_N: np.ndarray,
    moment_N3: np.ndarray,
) -> None:
    """Add Gaussian pulses with a sigma for each side, each over its own span only, beyond which it is negligible.

    rise_N, fall_N: sigma before and after the centre, seconds.
    """
    start_N, time_NW = _windows(rate, centre_N - _REACH * rise_N, centre_N + _REACH * fall_N)
    from_peak_NW = time_NW - centre_N[:, None]
    sigma_NW = np.where(from_peak_NW < 0, rise_N[:, None], fall_N[:, None])
    _add(dipole_3T, start_N, np.exp(-0.5 * (from_peak_NW / sigma_NW) ** 2), moment_N3)


def _add_plateaus(
    dipole_3T: np.ndarray, rate: float, start_N: np.ndarray, stop_N: np.ndarray, moment_N3: np.ndarray
) -> None:
    """Add ST segments: up within 10 ms around the J point, down under the T wave."""
    rise, fall = 0.010, 0.045
    first_N, time_NW = _windows(rate, start_N - 4 * rise, stop_N + 4 * fall)
    up_NW = np.tanh((time_NW - start_N[:, None]) / rise)
    down_NW = np.tanh((time_NW - stop_N[:, None]) / fall)
    _add(dipole_3T, first_N, 0.5 * (up_NW - down_NW), moment_N3)


def _windows(rate: float, from_N: np.ndarray, to_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first sample of each span, and the times (N, W) of as many samples as the longest span has."""
    start_N = np.floor(from_N * rate).astype(np.int64)
    width = int(np.ceil(((to_N - from_N) * rate).max())) + 1
    return start_N, (start_N[:, None] + np.arange(width)) / rate


def _add(dipole_3T: np.ndarray, start_N: np.ndarray, shape_NW: np.ndarray, moment_N3: np.ndarray) -> None:
    """Add moment x shape to the dipole; samples outside the recording are ignored."""
    samples = dipole_3T.shape[1]
    at_NW = start_N[:, None] + np.arange(shape_NW.shape[1])
    inside_NW = (at_NW >= 0) & (at_NW < samples)
    at = at_NW[inside_NW]
    for axis in range(3):
        weighted_NW = moment_N3[:, axis, None] * shape_NW
        dipole_3T[axis] += np.bincount(at, weights=weighted_NW[inside_NW], minlength=samples)


def _fibrillatory_waves(rng: np.random.Generator, rate: float, samples: int) -> np.ndarray:
    """Draw f-waves (3, samples), millivolt: a saw-tooth of 4.5 to 8 Hz with drifting rate and size.

    Stridh & Sornmo 2001.
    """
    time_T = np.arange(samples) / rate
    turn = rng.uniform(0, 2 * np.pi, 5)
    drift = rng.uniform(0.2, 0.6)
    angle_T = 2 * np.pi * rng.uniform(4.5, 8.0) * time_T
    angle_T += rng.uniform(0.3, 1.5) * np.sin(2 * np.pi * drift * time_T + turn[0])
    size_T = rng.lognormal(np.log(0.045), 0.5) * (
        1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time_T + turn[1])
    )
    near_3, far_3 = rng.normal((-0.1, 0.6, -0.8), 0.2), rng.normal(0, 0.4, 3)
    wave_T = np.sin(angle_T) + 0.4 * np.sin(2 * angle_T + turn[2]) + 0.2 * np.sin(3 * angle_T + turn[3])
    return near_3[:, None] * (size_T * wave_T) + far_3[:, None] * (size_T * np.sin(angle_T + turn[4]))


def _with_truth(
    truth: dict[str, np.ndarray],
    *,
    signal_LT: np.ndarray,
    rate: float,
    seconds: float,
    diagnoses: tuple[Diagnosis, ...],
    age: int,
    sex: Sex,
    pr_s: float | None,
    noise: NoiseLevels,
) -> SimulatedECG:
    """Return the ECG with the truth of the window's beats; waves that cross the window's edge are not in the truth."""
    inside = (truth["r"] >= 0) & (truth["r"] < seconds)
    waves = {}
    for name in ("p", "qrs", "t"):
        wave_B3 = truth[name][inside]
        wave_B3[(wave_B3[:, 0] < 0) | (wave_B3[:, 2] > seconds)] = np.nan
        waves[f"{name}_B3"] = wave_B3
    r_times_B = truth["r"][inside]
    conducted = truth["kind"] == Beat.CONDUCTED
    return SimulatedECG(
        signal_LT=signal_LT,
        rate=rate,
        diagnoses=diagnoses,
        age=age,
        sex=sex,
        r_times_B=r_times_B,
        kind_B=truth["kind"][inside],
        heart_rate=float(60 * (len(r_times_B) - 1) / (r_times_B[-1] - r_times_B[0])),
        pr_ms=None if pr_s is None else 1e3 * pr_s,
        qrs_ms=float(1e3 * (truth["qrs"][conducted, 2] - truth["qrs"][conducted, 0])[0]),
        qt_ms=float(1e3 * np.median((truth["t"][:, 2] - truth["qrs"][:, 0])[conducted & inside])),
        noise=noise,
        **waves,
    )

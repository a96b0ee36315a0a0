"""The heart as a moving dipole: each wave of a beat is a few Gaussian pulses of a three-dimensional moment.

The model is McSharry et al., "A dynamical model for generating synthetic electrocardiogram signals" (IEEE Trans Biomed
Eng 2003), with a vector for each pulse as in Sameni et al., "Multichannel ECG and noise modeling" (EURASIP 2007).
Moments are millivolt on Frank's axes: x to the left, y to the feet, z to the back. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from pipelines.simulate.diagnosis import Diagnosis

# A wave begins and ends where its spatial magnitude crosses this share of its peak: for a Gaussian at +-EDGE sigma.
EDGE_LEVEL = 0.05
EDGE = float(np.sqrt(-2 * np.log(EDGE_LEVEL)))

SEPTAL, APICAL, LATERAL, BASAL = range(4)  # the pulses of a normal QRS


@dataclass(frozen=True)
class Complex:
    """The Gaussian pulses of one wave."""

    centre_W: np.ndarray  # seconds from the wave's own zero
    sigma_W: np.ndarray  # seconds
    moment_W3: np.ndarray  # millivolt

    def boundaries(self) -> tuple[float, float, float]:
        """Return onset, peak and offset in seconds: the largest magnitude, and where it crosses EDGE_LEVEL of that."""
        first = float((self.centre_W - 4 * self.sigma_W).min())
        last = float((self.centre_W + 4 * self.sigma_W).max())
        time_G = np.linspace(first, last, 512)
        pulse_WG = np.exp(-0.5 * ((time_G - self.centre_W[:, None]) / self.sigma_W[:, None]) ** 2)
        size_G = np.linalg.norm(self.moment_W3.T @ pulse_WG, axis=0)
        above = np.flatnonzero(size_G >= EDGE_LEVEL * size_G.max())
        # Interpolate between the outermost grid points above the level and their neighbours below it.
        edges = []
        for inside, outside in ((above[0], above[0] - 1), (above[-1], above[-1] + 1)):
            share = (size_G[inside] - EDGE_LEVEL * size_G.max()) / (size_G[inside] - size_G[outside])
            edges.append(float(time_G[inside] + share * (time_G[outside] - time_G[inside])))
        return edges[0], float(time_G[size_G.argmax()]), edges[1]

    def lasting(self, seconds: float) -> Complex:
        """Return the wave stretched to `seconds` from onset to offset, with its peak at zero."""
        onset, peak, offset = self.boundaries()
        scale = seconds / (offset - onset)
        return Complex((self.centre_W - peak) * scale, self.sigma_W * scale, self.moment_W3)

    def turned(self, matrix_33: np.ndarray) -> Complex:
        """Return the wave with its moments multiplied by a matrix."""
        return replace(self, moment_W3=self.moment_W3 @ matrix_33.T)

    def pulse(self, index: int, moment: np.ndarray) -> Complex:
        """Return the wave with another moment (3,) for one pulse."""
        moment_W3 = self.moment_W3.copy()
        moment_W3[index] = moment
        return replace(self, moment_W3=moment_W3)


def _complex(*pulses: tuple[float, float, tuple[float, float, float]]) -> Complex:
    """Return a wave of pulses given as (centre ms, sigma ms, moment mV)."""
    centre, sigma, moment = zip(*pulses, strict=True)
    return Complex(np.array(centre) * 1e-3, np.array(sigma) * 1e-3, np.array(moment))


# Right atrium (forward, down), then left atrium (left, back): upright in II, biphasic in V1.
_P = _complex((-17, 14, (0.035, 0.085, -0.055)), (15, 15, (0.070, 0.055, 0.055)))
_QRS = _complex(
    (-25, 7.5, (-0.14, -0.05, -0.27)),
    (-9, 9.0, (0.74, 0.50, -0.28)),
    (6, 10.0, (0.95, 0.55, 0.72)),
    (26, 9.0, (-0.15, -0.22, 0.42)),
)
# No septal q: the left ventricle is activated through muscle, so all forces point left and back, and last long.
_QRS_LBBB = _complex(
    (-44, 13, (0.36, 0.22, 0.02)),
    (-18, 15, (0.80, 0.30, 0.72)),
    (24, 15, (0.86, 0.14, 0.92)),
    (50, 13, (0.28, -0.10, 0.45)),
)
_T = np.array((0.33, 0.22, -0.13))


@dataclass(frozen=True, kw_only=True)
class Morphology:
    """The waves of one kind of beat. Times are seconds, moments millivolt."""

    p: Complex | None  # None for a beat without a P wave
    pr_s: float  # P onset to QRS onset
    qrs: Complex
    st: np.ndarray  # moment (3,) of the ST segment
    t: np.ndarray  # moment (3,) of the T wave
    qtc_s: float  # the QT interval at 60 beats per minute

    def qt_s(self, rr_B: np.ndarray) -> np.ndarray:
        """Return QT intervals, by Fridericia's cube root of the RR interval (both in seconds)."""
        return self.qtc_s * np.cbrt(rr_B)

    def turned(self, matrix_33: np.ndarray) -> Morphology:
        """Return the waves of the same heart in another position: all moments are multiplied by a matrix."""
        return replace(
            self,
            p=self.p and self.p.turned(matrix_33),
            qrs=self.qrs.turned(matrix_33),
            st=matrix_33 @ self.st,
            t=matrix_33 @ self.t,
        )


def draw_morphology(rng: np.random.Generator, diagnoses: Collection[Diagnosis]) -> Morphology:
    """Draw a conducted beat: a healthy one with individual variation, then the change of each diagnosis."""
    morphology = _healthy(rng)
    for diagnosis, change in _CHANGES.items():
        if diagnosis in diagnoses:
            morphology = change(rng, morphology)
    return morphology


def _within(rng: np.random.Generator, mean: float, deviation: float, lowest: float, highest: float) -> float:
    """Draw from a normal distribution, clipped to [lowest, highest]."""
    return float(np.clip(rng.normal(mean, deviation), lowest, highest))


def _healthy(rng: np.random.Generator) -> Morphology:
    """Draw durations in the healthy range, and a size, a width and a direction of each pulse."""
    p, qrs = (
        replace(
            wave,
            sigma_W=wave.sigma_W * rng.lognormal(0, 0.10, len(wave.sigma_W)),
            moment_W3=wave.moment_W3 * rng.lognormal(0, 0.20, (len(wave.sigma_W), 1))
            + rng.normal(0, spread, wave.moment_W3.shape),
        )
        for wave, spread in ((_P, 0.008), (_QRS, 0.06))
    )
    t = _T * rng.lognormal(-0.10, 0.45) + rng.normal(0, 0.05, 3)
    return Morphology(
        p=p.lasting(_within(rng, 0.100, 0.009, 0.078, 0.122)),
        pr_s=_within(rng, 0.156, 0.019, 0.118, 0.196),
        qrs=qrs.lasting(_within(rng, 0.091, 0.008, 0.072, 0.108)),
        # Some healthy hearts have ST elevation (early repolarization), some a little depression.
        st=t * rng.normal(0.10, 0.13),
        t=t,
        qtc_s=_within(rng, 0.404, 0.018, 0.360, 0.450),
    )


def _fibrillation(_: np.random.Generator, beat: Morphology) -> Morphology:
    return replace(beat, p=None)


def _first_degree_block(rng: np.random.Generator, beat: Morphology) -> Morphology:
    return replace(beat, pr_s=float(np.clip(0.206 + rng.exponential(0.030), 0.206, 0.340)))


def _left_bundle(rng: np.random.Generator, beat: Morphology) -> Morphology:
    """Make the QRS wide and notched; ST and T point away from it (secondary change)."""
    moment_W3 = _QRS_LBBB.moment_W3 * rng.lognormal(0, 0.18, (4, 1)) + rng.normal(0, 0.06, (4, 3))
    qrs = replace(_QRS_LBBB, moment_W3=moment_W3).lasting(_within(rng, 0.144, 0.012, 0.124, 0.176))
    away = -moment_W3.mean(axis=0)
    t = away * rng.uniform(0.25, 0.6) + 0.3 * beat.t
    return replace(beat, qrs=qrs, t=t, st=away * rng.uniform(0.06, 0.16), qtc_s=beat.qtc_s + 0.035)


def _right_bundle(rng: np.random.Generator, beat: Morphology) -> Morphology:
    """Activate the right ventricle last: a slow force to the right and forward (R' in V1, wide S in I and V6)."""
    late = np.array((-0.42, 0.02, -0.52)) * rng.uniform(0.55, 1.3) + rng.normal(0, 0.06, 3)
    plain = beat.qrs
    qrs = Complex(
        np.append(plain.centre_W, plain.centre_W[BASAL] + rng.uniform(0.026, 0.034)),
        np.append(plain.sigma_W, rng.uniform(0.014, 0.018)),
        np.vstack([plain.moment_W3, late]),
    ).lasting(_within(rng, 0.137, 0.010, 0.122, 0.165))
    return replace(beat, qrs=qrs, t=beat.t - 0.28 * late, st=beat.st - 0.05 * late, qtc_s=beat.qtc_s + 0.025)


def _infarction(
    rng: np.random.Generator, beat: Morphology, wall: np.ndarray, lost: dict[int, np.ndarray]
) -> Morphology:
    """Remove early forces of dead muscle (Q, loss of R); injury moves ST toward the wall; later, T turns away from it.

    wall: unit vector to the infarcted wall.
    lost: by pulse of the QRS, the moment that full severity adds.
    """
    severity = rng.uniform(0.35, 1.05)
    age = rng.beta(0.9, 0.9)
    qrs = beat.qrs
    for index, moment in lost.items():
        qrs = qrs.pulse(index, qrs.moment_W3[index] + severity * moment)
    onset, _, offset = beat.qrs.boundaries()
    return replace(
        beat,
        qrs=qrs.lasting(offset - onset),
        st=beat.st + wall * severity * (1 - age) * rng.uniform(0.10, 0.30) + wall * 0.03,
        t=beat.t + wall * severity * (0.25 - 0.75 * age),
    )


def _anterior_infarction(rng: np.random.Generator, beat: Morphology) -> Morphology:
    wall = np.array((0.25, 0.05, -0.97))
    lost = {SEPTAL: np.array((0.05, 0.0, 0.45)), APICAL: np.array((-0.35, 0.0, 0.75))}
    return _infarction(rng, beat, wall, lost)


def _inferior_infarction(rng: np.random.Generator, beat: Morphology) -> Morphology:
    wall = np.array((-0.15, 0.97, 0.15))
    lost = {SEPTAL: np.array((0.15, -0.50, 0.08)), APICAL: np.array((0.0, -0.55, 0.0))}
    return _infarction(rng, beat, wall, lost)


def _st_t_change(rng: np.random.Generator, beat: Morphology) -> Morphology:
    """Depress ST, and flatten or invert T over the left ventricle, each by a random amount."""
    apex = np.array((0.72, 0.45, -0.53))
    depressed = rng.uniform(0.0, 0.17)
    return replace(beat, st=beat.st * 0.3 - apex * depressed, t=beat.t * rng.uniform(-0.6, 0.6))


def _hypertrophy(rng: np.random.Generator, beat: Morphology) -> Morphology:
    """Enlarge the left ventricle: larger and later forces to the left and back; half of the cases have ST-T strain."""
    growth = rng.uniform(1.20, 1.85)
    qrs = beat.qrs
    qrs = qrs.pulse(LATERAL, qrs.moment_W3[LATERAL] * growth + np.array((0.0, -0.1, 0.15)) * (growth - 1))
    qrs = qrs.pulse(SEPTAL, qrs.moment_W3[SEPTAL] * growth)
    onset, _, offset = beat.qrs.boundaries()
    strain = rng.uniform(0.3, 1.0) if rng.random() < 0.5 else 0.0
    main = np.array((0.75, 0.35, 0.55))
    return replace(
        beat,
        qrs=qrs.lasting((offset - onset) + rng.uniform(0.0, 0.010)),
        st=beat.st - main * 0.12 * strain,
        t=beat.t * (1 - 0.9 * strain) - main * 0.25 * strain,
    )


_CHANGES = {
    Diagnosis.ATRIAL_FIBRILLATION: _fibrillation,
    Diagnosis.FIRST_DEGREE_BLOCK: _first_degree_block,
    Diagnosis.LBBB: _left_bundle,
    Diagnosis.RBBB: _right_bundle,
    Diagnosis.ANTERIOR_INFARCTION: _anterior_infarction,
    Diagnosis.INFERIOR_INFARCTION: _inferior_infarction,
    Diagnosis.ST_T_CHANGE: _st_t_change,
    Diagnosis.HYPERTROPHY: _hypertrophy,
}


def atrial_premature(rng: np.random.Generator, beat: Morphology) -> Morphology:
    """Draw an early beat from another place in the atria: another P, the same ventricles."""
    if beat.p is None:
        return beat
    turn = np.diag((rng.uniform(-0.6, 1.0), rng.uniform(-1.0, 0.6), rng.uniform(-1.0, 1.0)))
    return replace(beat, p=beat.p.turned(turn), pr_s=beat.pr_s + rng.uniform(-0.015, 0.02))


def ventricular_premature(rng: np.random.Generator, beat: Morphology) -> Morphology:
    """Draw an early beat from one ventricle: no P, a wide and large QRS, ST and T opposite to it."""
    origin = _FOCI[rng.integers(len(_FOCI))] + rng.normal(0, 0.15, 3)
    size = rng.uniform(1.1, 1.9)
    main = size * origin / np.linalg.norm(origin)
    bend = rng.normal(0, 0.35, (3, 3))
    qrs = Complex(
        np.array((-0.038, 0.0, 0.040)), np.array((0.017, 0.021, 0.019)), main * np.array([[0.5], [1.0], [0.6]]) + bend
    ).lasting(_within(rng, 0.146, 0.012, 0.124, 0.180))
    return replace(beat, p=None, qrs=qrs, st=-0.08 * main, t=-main * rng.uniform(0.25, 0.5), qtc_s=beat.qtc_s + 0.05)


# The direction of the wave front from a ventricular focus: the right outflow tract, the right apex, the left free wall.
_FOCI = np.array([(0.25, 0.85, 0.45), (0.70, -0.50, 0.50), (-0.70, 0.20, -0.65)])

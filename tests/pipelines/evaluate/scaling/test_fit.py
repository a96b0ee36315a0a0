"""The power law of scaling curves: against laws that are known, against scipy, and what it refuses to tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from pipelines.evaluate.scaling.fit import EXPONENTS, drawn_seeds, fit, power_law

SIZE_K = np.array([145.0, 435.0, 1450.0, 4350.0, 14500.0])


def resampled(error_K: np.ndarray, noise: float, resamples: int = 300) -> np.ndarray:
    return error_K + np.random.default_rng(0).normal(0, noise, (resamples, len(error_K)))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 2.0), st.floats(0.0, 0.3), st.floats(0.02, 0.3))
def test_a_law_without_noise_is_found_again(exponent: float, floor: float, first: float) -> None:
    scale = first * SIZE_K[0] ** exponent
    error_K = scale * SIZE_K**-exponent + floor
    (found_scale,), (found_exponent,), (found_floor,) = fit(SIZE_K, error_K[None])
    assert found_exponent == pytest.approx(exponent, rel=1e-4)
    assert found_floor == pytest.approx(floor, abs=1e-4)
    assert found_scale * SIZE_K**-found_exponent + found_floor == pytest.approx(error_K, abs=1e-7)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_least_squares_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relative_K = SIZE_K / SIZE_K[-1]
    error_K = 0.02 * relative_K ** -rng.uniform(0.1, 0.9) + rng.uniform(0, 0.2) + rng.normal(0, 0.004, 5)
    starts = ((0.02, 0.1, 0.1), (0.02, 0.5, 0.1), (0.002, 1.5, 0.2))
    bounds = ([0, EXPONENTS[0], 0], [np.inf, EXPONENTS[1], np.inf])
    best = min(
        (
            least_squares(
                lambda p: p[0] * relative_K ** -p[1] + p[2] - error_K, start, bounds=bounds, x_scale=(0.01, 0.1, 0.1)
            )
            for start in starts
        ),
        key=lambda found: found.cost,
    )
    (scale,), (exponent,), (floor,) = fit(SIZE_K, error_K[None])
    left = ((scale * SIZE_K**-exponent + floor - error_K) ** 2).sum() / 2
    assert left <= best.cost * (1 + 1e-6) + 1e-15
    assert scale >= 0
    assert floor >= 0
    assert EXPONENTS[0] <= exponent <= EXPONENTS[1] * (1 + 1e-9)


def test_a_law_is_told_with_intervals_and_what_twice_the_data_add() -> None:
    error_K = 1.2 * SIZE_K**-0.4 + 0.1
    law, why = power_law(SIZE_K, error_K, resampled(error_K, 0.002), confidence=0.95)
    assert (law is not None, why) == (True, "")
    assert law is not None
    for found, wanted in ((law.scale, 1.2), (law.exponent, 0.4), (law.floor, 0.1)):
        assert found.value == pytest.approx(wanted, rel=1e-4)
        assert found.low < wanted < found.high
    gain = 1.2 * (14500.0**-0.4 - 29000.0**-0.4)
    assert law.twice.value == pytest.approx(gain, rel=1e-4)
    assert law.twice.low < gain < law.twice.high
    assert law.error(29000.0) == pytest.approx(error_K[-1] - gain)


def test_intervals_cover_the_law_they_were_drawn_from() -> None:
    """Of 30 noisy curves, each resampled with the same noise, 28 or 29 intervals of the gain hold the true one."""
    rng, true_K = np.random.default_rng(1), 1.2 * SIZE_K**-0.4 + 0.1
    gain, held = 1.2 * (14500.0**-0.4 - 29000.0**-0.4), 0
    for _ in range(30):
        error_K = true_K + rng.normal(0, 0.001, 5)
        law, why = power_law(SIZE_K, error_K, error_K + rng.normal(0, 0.001, (100, 5)), confidence=0.95)
        assert law is not None, why
        held += law.twice.low <= gain <= law.twice.high
    assert held >= 25


def test_what_the_points_do_not_determine_is_not_told() -> None:
    falling_K, flat_K = 1.2 * SIZE_K**-0.4 + 0.1, np.full(5, 0.2)
    like_a_logarithm_K = 0.3 - 0.02 * np.log(SIZE_K / SIZE_K[0])
    for error_K, noise, sizes, says in (
        (falling_K, 0.002, 3, "shares that were scored: 3, and at least 4 are needed"),
        (flat_K, 0.005, 5, "flat within its interval"),
        (flat_K[0] + (falling_K[-1] - falling_K), 0.002, 5, "flat within its interval"),
        (like_a_logarithm_K, 0.001, 5, "falls more evenly"),
        (like_a_logarithm_K, 0.02, 5, "do not determine the exponent"),
    ):
        given_K = error_K[:sizes]
        law, why = power_law(SIZE_K[:sizes], given_K, resampled(given_K, noise), confidence=0.95)
        assert law is None
        assert says in why


def test_seeds_are_drawn_with_replacement() -> None:
    weight_RS = drawn_seeds(3, resamples=2000, seed=0)
    assert weight_RS.shape == (2000, 3)
    assert weight_RS.sum(axis=1) == pytest.approx(1)
    assert weight_RS.mean(axis=0) == pytest.approx(1 / 3, abs=0.02)
    assert (weight_RS.max(axis=1) == 1).mean() == pytest.approx(1 / 9, abs=0.03)  # one seed three times
    assert (drawn_seeds(1, resamples=5, seed=0) == 1).all()

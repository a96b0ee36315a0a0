"""Noise of stated spectrum and size, that arises at electrodes, and a probe under it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from ecg_model.leads import LEADS
from pipelines.evaluate.suite import noise
from pipelines.evaluate.suite.names import NOISES, SUITE, NoiseKind, evaluation

BANDS = {"baseline": (0.05, 0.6), "muscle": (19.5, 120.5), "electrode": (0.5, 11.0)}


def ecgs(n: int, seed: int = 0) -> np.ndarray:
    """int16 (n, 8, 2500) microvolt with power at some frequencies, not at others' cost of clipping."""
    rng = np.random.default_rng(seed)
    return (rng.normal(0, 1, (n, 8, 2500)).cumsum(axis=-1) * 5).clip(-3000, 3000).astype(np.int16)


@pytest.mark.parametrize("kind", NOISES)
def test_the_spectrum_is_where_it_is_said_to_be(kind: NoiseKind):
    power_F = 0.0
    for number in range(40):
        frequency_F, one_LF = welch(noise.lead_noise(kind, f"r{number}", 2500), 250, "boxcar", 2500)
        power_F = power_F + one_LF.mean(axis=0)
    low, high = BANDS[kind]
    inside_F = (frequency_F >= low) & (frequency_F <= high)
    assert power_F[inside_F].sum() > 0.99 * power_F.sum()
    middle = (low + high) / 2
    for part_F in (inside_F & (frequency_F < middle), inside_F & (frequency_F >= middle)):
        assert power_F[part_F].sum() > 0.1 * power_F.sum(), "the whole band, not a line in it"


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000), snr=st.floats(0, 25), kind=st.sampled_from(NOISES))
def test_the_ratio_is_as_asked(seed: int, snr: float, kind: NoiseKind):
    clean_NLT = ecgs(1, seed)
    added_NLT = noise.noised(clean_NLT, [f"r{seed}"], kind, snr).astype(float) - clean_NLT
    reached = 10 * np.log10(clean_NLT.astype(float).var(axis=2).mean() / added_NLT.var(axis=2).mean())
    assert reached == pytest.approx(snr, abs=0.1)


def test_an_ecg_s_noise_is_its_own_whatever_is_beside_it_and_levels_differ_in_size_alone():
    clean_NLT = ecgs(3)
    whole = noise.condition("muscle", 1).apply(clean_NLT, ["a", "b", "c"])
    alone = noise.condition("muscle", 1).apply(clean_NLT[1:2], ["b"])
    np.testing.assert_array_equal(whole[1], alone[0])
    assert not np.array_equal(noise.lead_noise("muscle", "a", 2500), noise.lead_noise("muscle", "b", 2500))
    weak, strong = (noise.noised(clean_NLT, ["a", "b", "c"], "muscle", snr) - clean_NLT for snr in (20.0, 0.0))
    np.testing.assert_allclose(weak, strong / 10, atol=1.0)


@pytest.mark.parametrize("kind", NOISES)
def test_noise_arises_at_electrodes(kind: NoiseKind):
    """What the chest leads share is the central terminal: leads from nine electrodes have one common part."""
    noise_LT = noise.lead_noise(kind, "x", 2500)
    matrix_LE = noise._LEADS_LE
    assert matrix_LE.shape == (len(LEADS), 9)
    np.testing.assert_allclose(matrix_LE.sum(axis=1), 0, atol=1e-12)  # a potential common to all is in no lead
    solved_ET, *_ = np.linalg.lstsq(matrix_LE, noise_LT, rcond=None)
    np.testing.assert_allclose(matrix_LE @ solved_ET, noise_LT, atol=1e-9)


def test_a_flat_ecg_and_the_ends_of_int16():
    flat = np.zeros((1, 8, 2500), np.int16)
    np.testing.assert_array_equal(noise.noised(flat, ["f"], "baseline", 0.0), flat)
    loud = np.where(np.arange(2500) % 2, 32767, -32768).astype(np.int16)[None, None].repeat(8, axis=1)
    noisy = noise.noised(loud, ["l"], "muscle", 0.0)
    assert noisy.dtype == np.int16
    assert (noisy.max(), noisy.min()) == (32767, -32768)


@pytest.mark.parametrize(("kind", "level"), [("baseline", 0), ("baseline", 3), ("thunder", 1)])
def test_noise_that_there_is_not_is_refused(kind, level):
    with pytest.raises(ValueError, match="use baseline, muscle, electrode, level 1 or 2"):
        noise.condition(kind, level)


def test_the_suite_knows_noise_by_name():
    found = SUITE["ptbxl_superclass__noise_muscle_2"]
    assert found.noise == ("muscle", 2)
    assert evaluation("cpsc2018__multi_class__noise_baseline_1").noise == ("baseline", 1)
    for name in ("ptbxl_superclass__attention_pool__noise_muscle_1", "ptbxl_superclass__labels_1__noise_muscle_1"):
        with pytest.raises(ValueError, match="noise is for a probe of pooled features with all labels"):
            evaluation(name)
    with pytest.raises(ValueError, match=r"noise_<baseline\|muscle\|electrode>_<level>"):
        evaluation("ptbxl_superclass__noise_muscle_9")

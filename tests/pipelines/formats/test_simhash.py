"""Signatures: copies of a recording are found whatever was done to them, and different ECGs not taken for copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ecg_model.leads import LEADS_12
from ecg_model.signal import prepare
from pipelines.formats.simhash import BITS, BYTES, SAME_BITS, distance, first_of_chain, signatures
from tests.support.copies import DISTORTIONS, microvolt, mirrored, packed, ptbxl_and_chapman, synthetic


def signed(x_NLT: NDArray[np.floating], rate: float) -> NDArray[np.uint8]:
    """Signatures of 12-lead recordings in millivolt, made as harmonization makes them."""
    return np.concatenate(
        [
            signatures(microvolt(prepare(x_NLT[at : at + 64], leads=LEADS_12, rate=rate)))
            for at in range(0, len(x_NLT), 64)
        ]
    )


def test_signatures_are_the_same_on_every_machine_and_in_every_batch() -> None:
    x_NLT = (np.arange(3 * 8 * 2500, dtype=np.int64) ** 3 % 2003 - 1001).reshape(3, 8, 2500).astype(np.int16)
    found_NB = signatures(x_NLT)
    assert found_NB.shape == (3, BYTES)
    np.testing.assert_array_equal(np.concatenate([signatures(x_LT[None]) for x_LT in x_NLT]), found_NB)
    assert [row[:4].tobytes().hex() for row in found_NB] == PINNED


PINNED = ["8ad45910", "7f2bfef3", "79a1f034"]


def test_no_records_have_no_signatures() -> None:
    assert signatures(np.empty((0, 8, 2500), np.int16)).shape == (0, BYTES)
    assert first_of_chain(np.empty((0, BYTES), np.uint8)).tolist() == []


@given(
    seed=st.integers(0, 999),
    # At a quarter of the size, steps of 5 uV reach the limit: 91 bits of 90 were seen.
    gains=st.lists(st.floats(0.3, 3), min_size=8, max_size=8),
    offset=st.floats(-2, 2),
    step=st.sampled_from([1, 2.5, 4.88, 5]),
)
@settings(deadline=None, max_examples=25)
def test_gain_offset_and_rounding_leave_a_copy_a_copy(
    seed: int, gains: list[float], offset: float, step: float
) -> None:
    x_NLT = synthetic(1, seed)
    scaled_NLT = x_NLT * np.array(gains)[:, None] + offset
    copy_NLT = np.rint(scaled_NLT * 1000 / step) * step / 1000
    assert distance(signatures(microvolt(x_NLT)), signatures(microvolt(copy_NLT)))[0] <= SAME_BITS


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=15)
def test_strangers_differ_in_half_of_the_bits(seed: int) -> None:
    found_NB = signatures(microvolt(synthetic(40, seed)))
    rows, columns = np.triu_indices(40, 1)
    apart = distance(found_NB[rows], found_NB[columns])
    assert apart.min() > 2 * SAME_BITS
    assert apart.mean() == pytest.approx(BITS / 2, rel=0.05)


def test_noise_lines_and_steps_are_no_copies_of_one_another() -> None:
    rng = np.random.default_rng(0)
    noise_NLT = rng.normal(0, 0.003, (50, 8, 2500))
    step_NLT = rng.normal(0, 0.01, (50, 8, 2500)) + 20 * (np.arange(2500) > 1250)
    decay_NLT = rng.normal(0, 0.01, (50, 8, 2500)) + 15 * np.exp(-np.arange(2500) / 250)
    for x_NLT in (noise_NLT, step_NLT, decay_NLT):
        assert first_of_chain(signatures(microvolt(x_NLT))).tolist() == list(range(50))


def flipped(base_B: NDArray[np.uint8], bits: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    mask = np.zeros(BITS, np.uint8)
    mask[rng.choice(BITS, bits, replace=False)] = 1
    return base_B ^ np.packbits(mask)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 150))
@settings(deadline=None, max_examples=60)
def test_chains_are_the_connected_ones_among_near_signatures(seed: int, n: int) -> None:
    """Against all pairs; copies here differ in up to 6 %, of which one in 10^5 shares no band."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 256, BYTES, np.uint8)]
    for _ in range(n - 1):
        if rng.random() < 0.5:
            rows.append(flipped(rows[rng.integers(len(rows))], int(rng.integers(0, 62)), rng))
        else:
            rows.append(rng.integers(0, 256, BYTES, np.uint8))
    signatures_NB = np.stack(rows)
    near = np.array([distance(signatures_NB, row) for row in signatures_NB]) <= SAME_BITS
    _, component = connected_components(coo_array(near), directed=False)
    expected = [int(np.flatnonzero(component == label)[0]) for label in component]
    assert first_of_chain(signatures_NB).tolist() == expected


@pytest.mark.parametrize(("bits", "least"), [(0, 1.0), (50, 1.0), (70, 1.0), (SAME_BITS, 0.995), (SAME_BITS + 1, 0)])
def test_the_bands_bring_copies_together(bits: int, least: float) -> None:
    rng = np.random.default_rng(bits)
    base_NB = rng.integers(0, 256, (1500, BYTES), np.uint8)
    copies_NB = np.stack([flipped(row, bits, rng) for row in base_NB])
    matched = first_of_chain(np.concatenate([base_NB, copies_NB]))[1500:] == np.arange(1500)
    assert matched.mean() >= least
    if bits > SAME_BITS:
        assert not matched.any()


def test_many_exact_copies_cost_nothing() -> None:
    signatures_NB = np.repeat(np.random.default_rng(0).integers(0, 256, (2, BYTES), np.uint8), 50_000, axis=0)
    assert set(first_of_chain(signatures_NB).tolist()) == {0, 50_000}


@pytest.mark.parametrize("name", DISTORTIONS)
def test_real_ecgs_at_500_hz_are_found_again_after(name: str) -> None:
    distort, rate = DISTORTIONS[name]
    x_NLT = ptbxl_and_chapman()
    first = first_of_chain(np.concatenate([signed(x_NLT, 500), signed(distort(x_NLT), rate)]))
    assert first.tolist() == [*range(len(x_NLT)), *range(len(x_NLT))]


def test_a_window_that_starts_elsewhere_is_another_ecg() -> None:
    """The limit that the module states: most of 4 ms, none of 16."""
    x_NLT = ptbxl_and_chapman()
    base_NB = signed(x_NLT, 500)
    shares = []
    for samples in (2, 8):
        later_NLT = np.concatenate([x_NLT[..., samples:], x_NLT[..., -samples:]], axis=-1)
        first = first_of_chain(np.concatenate([base_NB, signed(later_NLT, 500)]))[len(x_NLT) :]
        shares.append(np.mean(first == np.arange(len(x_NLT))))
    assert shares[0] > 0.9
    assert shares[1] == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_complete_ptbxl_holds_no_copies_but_its_own_at_500_hz() -> None:
    """19,601 ECGs of 17,000 patients, many with several: the owners removed 38 duplicates in 1.0.3 and left none.

    Their resampling to 100 Hz lies 1.2 ms beside ours and smooths otherwise.
    """
    ids, x_NLT = packed()
    signatures_NB = np.concatenate(
        [signed(x_NLT[at : at + 1024].astype(np.float32) / 1000, 100) for at in range(0, len(x_NLT), 1024)]
    )
    assert first_of_chain(signatures_NB).tolist() == list(range(19601))
    halves_NP = np.unpackbits(signatures_NB, axis=1).astype(np.float32) - 0.5
    least = BITS
    for at in range(0, len(halves_NP), 1024):
        # Of vectors of +-1/2, the product is a quarter of the bits that agree less those that differ.
        apart = BITS / 2 - 2 * halves_NP[at : at + 1024] @ halves_NP.T
        apart[np.arange(len(apart)), at + np.arange(len(apart))] = BITS
        least = min(least, int(apart.min()))
    assert least > 1.5 * SAME_BITS

    names, high_NLT = mirrored("ptbxl")
    known = np.isin(np.array(names, int), ids)
    at = np.array([int(np.flatnonzero(ids == int(name))[0]) for name in np.array(names)[known]])
    assert len(at) > 30
    high_NB = signed(high_NLT[known], 500)
    assert distance(high_NB, signatures_NB[at]).max() < 0.06 * BITS
    first = first_of_chain(np.concatenate([signatures_NB, high_NB]))
    assert first.tolist() == [*range(19601), *at.tolist()]

"""Copies are near the record that is kept, and looking for them has a bounded cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.corpus import copies as module
from pipelines.corpus.copies import copies_of
from pipelines.corpus.same_recording import same_recording, shapes
from pipelines.formats.simhash import SAME_BITS, distance, first_of_chain, signatures
from tests.support.copies import microvolt, regular, synthetic
from tests.support.paths import SHARED


def found(x_NLT: NDArray[np.int16], held_out: int = 0) -> list[tuple[int, ...]]:
    contents = [x_LT.tobytes().hex() for x_LT in x_NLT]
    return copies_of(signatures(x_NLT), contents, held_out, lambda numbers: x_NLT[numbers])


def alone(count: int) -> list[tuple[int, ...]]:
    return [(number,) for number in range(count)]


def test_a_chain_of_slowly_changing_rates_has_no_copies() -> None:
    chain_NLT = microvolt(np.stack([regular(0.8 + 0.0006 * at, seed=at) for at in range(40)]))
    assert len(set(first_of_chain(signatures(chain_NLT)).tolist())) == 1
    assert found(chain_NLT) == alone(40)
    assert found(chain_NLT, held_out=20) == alone(40)


def test_the_chain_of_the_shared_case_stays() -> None:
    case = SHARED / "cases" / "near_duplicate_chain" / "drop" / "chain.npz"
    if not case.is_file():
        pytest.skip("needs ../shared/cases")
    with np.load(case) as records:
        x_NLT = np.stack([records[name] for name in sorted(records)])
    # Every second of the samples at 500 Hz: these are smooth.
    assert found(np.rint(x_NLT[..., ::2]).astype(np.int16)) == alone(18)


@given(
    order=st.permutations(range(12)),
    gains=st.lists(st.floats(0.4, 2.5), min_size=12, max_size=12),
    held_out=st.integers(0, 5),
)
@settings(deadline=None, max_examples=15)
def test_one_of_each_recording_is_kept_in_any_order(order: list[int], gains: list[float], held_out: int) -> None:
    """Twelve records of two irregular and two regular rhythms; those of the regular ones are in one chain."""
    base_NLT = np.concatenate([synthetic(2), np.stack([regular(0.8, seed=1), regular(0.8006, seed=2)])])
    recording = [number % 4 for number in order]
    x_NLT = microvolt(np.stack([base_NLT[one] * gain for one, gain in zip(recording, gains, strict=True)]))
    copies = found(x_NLT, held_out)
    for number, originals in enumerate(copies):
        first = next(at for at, one in enumerate(recording) if one == recording[number])
        if number < held_out and x_NLT[number].tobytes() != x_NLT[first].tobytes():
            assert originals == (number,)
        elif number >= held_out:
            assert originals[0] == first
            assert {recording[original] for original in originals} == {recording[number]}


@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=8)
def test_a_copy_is_near_the_one_that_is_kept(seed: int) -> None:
    """Rhythms of random rate in a narrow range: copies, near ones and others, by signature and by signal."""
    rng = np.random.default_rng(seed)
    periods = rng.choice(0.8 + 0.0003 * np.arange(8), 16)
    x_NLT = microvolt(np.stack([regular(period, seed=at) for at, period in enumerate(periods)]))
    signatures_NB, shapes_NLT = signatures(x_NLT), shapes(x_NLT)
    copies = found(x_NLT)
    kept = [number for number, originals in enumerate(copies) if originals == (number,)]
    for number, originals in enumerate(copies):
        if number in kept:
            continue
        assert set(originals) <= {one for one in kept if one < number}
        assert distance(signatures_NB[list(originals)], signatures_NB[number]).max() <= SAME_BITS
        assert same_recording(shapes_NLT[number], shapes_NLT[list(originals)]).all()
    assert {periods[number] for number in kept} == set(periods)


def test_equal_bytes_share_their_original_and_are_not_read() -> None:
    x_NLT = microvolt(synthetic(2))
    x_NLT = x_NLT[[0, 1, 0, 0, 1]]
    contents = ["a", "b", "a", "a", "b"]
    unread: list[int] = []
    copies = copies_of(signatures(x_NLT), contents, 0, lambda numbers: unread.extend(numbers) or x_NLT[numbers])
    assert copies == [(0,), (1,), (0,), (0,), (1,)]
    assert not unread


def test_held_out_records_are_compared_with_the_others_only() -> None:
    base_NLT = microvolt(synthetic(2))
    louder_NLT = (base_NLT * 1.5).astype(np.int16)
    x_NLT = np.concatenate([base_NLT, louder_NLT, (base_NLT[:1] * 1.2).astype(np.int16)])
    assert found(x_NLT, held_out=4) == [*alone(4), (0, 2)]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_five_thousand_regular_rhythms_in_step_cost_eight_comparisons_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """All signatures are close to each other, and no two signals are the same."""
    n, rng = 5000, np.random.default_rng(0)
    base_B = rng.integers(0, 256, 128, np.uint8)
    signatures_NB = base_B ^ np.packbits(rng.random((n, 1024)) < 0.03, axis=1)
    assert first_of_chain(signatures_NB).max() == 0
    wave_T = np.rint(1000 * np.exp(-0.5 * (np.arange(-20, 21) / 4) ** 2)).astype(np.int16)
    read, compared = np.zeros(n, int), 0

    def signals(numbers: NDArray[np.int64]) -> NDArray[np.int16]:
        read[numbers] += 1
        x_NT = np.zeros((len(numbers), 2500), np.int16)
        for x_T, number in zip(x_NT, numbers, strict=True):
            for at in np.arange(20, 2400, 100 + number / 50).astype(int):
                x_T[at : at + len(wave_T)] = wave_T
        return np.repeat(x_NT[:, None], 8, axis=1)

    def counted(one_LT: NDArray[np.float16], others_KLT: NDArray[np.float16]) -> NDArray[np.bool_]:
        nonlocal compared
        compared += len(others_KLT)
        return np.zeros(len(others_KLT), bool)

    monkeypatch.setattr(module, "same_recording", counted)
    assert copies_of(signatures_NB, [str(at) for at in range(n)], 0, signals) == alone(n)
    assert read.tolist() == [1] * n
    assert compared <= 8 * n

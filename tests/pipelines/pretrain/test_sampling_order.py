"""The order of the ECGs: every record once an epoch, chunks together, the same from wherever it is asked."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipelines.pretrain import sampling_order as ordering
from pipelines.pretrain.sampling_order import Order

seeds = st.integers(0, 2**32 - 1)


def chunks(sizes: list[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), sizes)


@given(seed=seeds, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), batch=st.integers(1, 60))
@settings(deadline=None, max_examples=60)
def test_every_record_is_seen_once_an_epoch(seed: int, sizes: list[int], batch: int) -> None:
    records = sum(sizes)
    order = Order(seed=seed, batch=batch, chunk_N=chunks(sizes))
    rows = np.concatenate([order.rows(step) for step in range(-(-3 * records // batch))])
    for epoch in range(3):
        assert sorted(rows[epoch * records : (epoch + 1) * records]) == list(range(records))


@given(seed=seeds, sizes=st.lists(st.integers(1, 9), min_size=1, max_size=30), window=st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_a_window_is_whole_chunks_and_windows_make_up_the_sequence(seed: int, sizes: list[int], window: int) -> None:
    chunk_N = chunks(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "WINDOW", window)
        order = Order(seed=seed, batch=1, chunk_N=chunk_N)
        position = 0
        while position < 2 * len(chunk_N):
            stretch = order.window(position)
            assert stretch.start == position
            assert all(order.window(place).start == position for place in range(stretch.start, stretch.end))
            np.testing.assert_array_equal(
                stretch.rows, [order.rows(step)[0] for step in range(stretch.start, stretch.end)]
            )
            inside, whole = np.unique(chunk_N[stretch.rows], return_counts=True)
            np.testing.assert_array_equal(whole, np.asarray(sizes)[inside])
            assert len(inside) <= window
            position = stretch.end


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    chunk_N = chunks([64] * 400)

    def epoch(number: int, seed: int = 5) -> NDArray[np.int64]:
        return Order(seed=seed, batch=len(chunk_N), chunk_N=chunk_N).rows(number)

    here = Order(seed=5, batch=8, chunk_N=chunk_N)
    assert np.array_equal(here.rows(9000), here.rows(9000))
    np.testing.assert_array_equal(Order(seed=5, batch=8, chunk_N=chunk_N).rows(9000), here.rows(9000))
    assert not np.array_equal(epoch(0), epoch(1))
    assert not np.array_equal(epoch(0), epoch(0, seed=6))


def test_an_epoch_is_well_mixed() -> None:
    """Neighbours in a corpus of many windows are no neighbours in the store, and windows differ between epochs."""
    chunk_N = chunks([64] * 400)
    order = Order(seed=5, batch=64, chunk_N=chunk_N)
    sharing = [len(order.rows(step)) - len(np.unique(chunk_N[order.rows(step)])) for step in range(300)]
    assert np.mean(sharing) < 18, "64 drawn of 128 chunks share 14 on average"
    first, second = (set(chunk_N[order.window(position).rows].tolist()) for position in (0, order.records))
    assert len(first) == len(second) == ordering.WINDOW
    assert len(first & second) < 70


def test_a_small_corpus_gets_a_plain_permutation() -> None:
    """All 24 orders of four records in four chunks or in one come equally often."""
    for chunk_N in (np.zeros(4, int), np.arange(4)):
        orders = [tuple(Order(seed=seed, batch=4, chunk_N=chunk_N).rows(0).tolist()) for seed in range(2400)]
        counts = [orders.count(order_of_epoch) for order_of_epoch in set(orders)]
        assert len(counts) == 24
        assert sum((count - 100) ** 2 / 100 for count in counts) < 50, "chi square, 23 degrees of freedom: p < 0.001"


def test_the_order_never_changes_unseen() -> None:
    """A run that goes on with another version of this code must see the same ECGs."""
    order = Order(seed=7, batch=32, chunk_N=chunks([64] * 300))
    rows = np.concatenate([order.rows(step) for step in (0, 1, 599, 600, 5000)]).astype("<i8")
    assert (
        hashlib.sha256(rows.tobytes()).hexdigest() == "bb460f04b146cf4c8a094886320518a53d6c414e64ec0208c8a0689a000fa212"
    )


def test_no_records_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        Order(seed=0, batch=1, chunk_N=np.zeros(0, int))

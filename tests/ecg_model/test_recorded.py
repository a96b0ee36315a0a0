"""What was never recorded: the runs that count, by a plain search through all samples; edges; real ECGs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.recorded import ALL_HELD, ALL_ZERO, FEWEST_TOGETHER, ONE_HELD, ONE_NOTED, recorded
from pipelines.records import Record
from pipelines.sources import SOURCES
from tests.support.copies import MIRROR, packed

RATE = 500


def ecg(samples: int = 5000, seed: int = 0) -> np.ndarray:
    """float32 (12, T): noise in steps of 5 uV, as a recorder gives it."""
    rng = np.random.default_rng(seed)
    return (np.rint(rng.normal(0, 20, (12, samples))) * 0.005).astype(np.float32)


def runs_of(same: list[bool], least: float, rate: float) -> list[slice]:
    """The runs of samples that are alike for so many seconds; same: whether each is like the one before."""
    found, start = [], 0
    for at in range(1, len(same) + 2):
        if at == len(same) + 1 or not same[at - 1]:
            if at - start >= max(2, int(np.ceil(least * rate - 1e-6))):
                found.append(slice(start, at))
            start = at
    return found


def plain(x_LT: np.ndarray, rate: float) -> tuple[int, int, np.ndarray]:
    """Where the recording begins and ends, and what between is missing (L, T), sample by sample."""
    together_T = np.zeros(x_LT.shape[1], bool)
    varying = [row for row in x_LT if len(np.unique(row)) > 1]
    if len(varying) >= FEWEST_TOGETHER:
        pairs = list(pairwise(tuple(column) for column in np.array(varying).T))
        for run in runs_of([not any(a) and not any(b) for a, b in pairs], ALL_ZERO, rate):
            together_T[run] = True
        for run in runs_of([a == b for a, b in pairs], ALL_HELD, rate):
            together_T[run] = True
    gone_LT = ~np.isfinite(x_LT) | together_T
    for gone_T, x_T in zip(gone_LT, x_LT, strict=True):
        for run in runs_of([a == b for a, b in pairwise(x_T)], ONE_HELD, rate):
            gone_T[run] = True
    for left_out_T in (together_T, gone_LT.all(axis=0)):
        there = np.flatnonzero(~left_out_T)
        if len(there) > 0 and there[-1] - there[0] + 1 < x_LT.shape[1]:
            first, end, gone_LT = plain(x_LT[:, there[0] : there[-1] + 1], rate)
            return first + there[0], end + there[0], gone_LT
    return 0, x_LT.shape[1], ~np.isfinite(x_LT) if gone_LT.all() else gone_LT


@settings(deadline=None, max_examples=150)
@given(
    rate=st.sampled_from([50.0, 61.0, 100.0, 128.0]),
    leads=st.integers(1, 8),
    samples=st.integers(0, 420),
    runs=st.lists(
        st.tuples(
            st.integers(0, 420),
            st.integers(1, 300),
            st.integers(0, 8),  # one lead, or all
            st.sampled_from([0.0, "held", np.nan]),
        ),
        max_size=5,
    ),
    coarse=st.sampled_from([1.0, 20.0]),
    seed=st.integers(0, 99),
)
def test_runs_are_those_of_a_plain_search(rate, leads, samples, runs, coarse, seed):
    rng = np.random.default_rng(seed)
    x_LT = np.rint(rng.normal(0, coarse, (leads, samples))).astype(np.float32)
    for start, count, lead, value in runs:
        rows = slice(lead, lead + 1) if lead < leads else slice(None)
        part = x_LT[rows, start : start + count]
        part[:] = part[:, :1] if value == "held" else value
    before = x_LT.copy()
    first, end, gone_LT = plain(x_LT, rate)
    found = recorded(x_LT, rate)
    np.testing.assert_array_equal(x_LT, before)  # the caller's array
    assert (found.before, found.after) == (first, samples - end)
    x_LT = x_LT[:, first:end]
    constant_L = np.array([len(np.unique(row)) == 1 for row in x_LT[:, : int(np.ceil(10 * rate))]])
    gone_LT = np.where(constant_L[:, None], ~np.isfinite(x_LT), gone_LT)
    np.testing.assert_array_equal(np.isnan(found.signal_LT), gone_LT)
    np.testing.assert_array_equal(found.signal_LT[~gone_LT], x_LT[~gone_LT])
    assert found.held == tuple(np.flatnonzero((gone_LT & np.isfinite(x_LT)).any(axis=1)))


@pytest.mark.parametrize(("pad", "value"), [(648, 0.0), (48, 0.0), (400, "held"), (1, np.nan), (3000, -6.5), (25, 0.0)])
@pytest.mark.parametrize("side", ["front", "behind", "both"])
def test_padding_of_all_leads_is_left_out(pad, value, side):
    x_LT = ecg()
    widths = (pad if side != "behind" else 0, pad if side != "front" else 0)
    padded_LT = (
        np.pad(x_LT, ((0, 0), widths), "edge")
        if value == "held"
        else np.pad(x_LT, ((0, 0), widths), constant_values=value)
    )
    found = recorded(padded_LT, RATE)
    slack = 1 if value == "held" else 0  # the value that is held goes with it
    assert found.before == (widths[0] + slack if widths[0] else 0)
    assert found.after == (widths[1] + slack if widths[1] else 0)
    np.testing.assert_array_equal(found.signal_LT, padded_LT[:, found.before : padded_LT.shape[1] - found.after])
    assert found.held == ()


@pytest.mark.parametrize("side", ["front", "behind"])
def test_padding_of_many_steps_is_left_out_at_once(side):
    """Each step holds other values for half a second."""
    steps_LT = np.repeat(np.linspace(1, 2, 2000, dtype=np.float32), RATE // 2) * np.ones((12, 1), np.float32)
    x_LT = np.concatenate([steps_LT, ecg()] if side == "front" else [ecg(), steps_LT], axis=1)
    found = recorded(x_LT, RATE)
    assert (found.before, found.after) == ((steps_LT.shape[1], 0) if side == "front" else (0, steps_LT.shape[1]))


def test_padding_is_found_beside_a_dead_lead_which_stays_for_the_limits_on_flat_leads():
    x_LT = ecg()
    x_LT[7] = -0.4
    padded_LT = np.pad(x_LT, ((0, 0), (100, 0)))
    padded_LT[7] = -0.4
    found = recorded(padded_LT, RATE)
    assert (found.before, found.after, found.held) == (100, 0, ())
    np.testing.assert_array_equal(found.signal_LT, x_LT)


def test_a_lead_that_is_off_midway_is_missing_from_there():
    x_LT = ecg()
    x_LT[8, 500:] = 0
    found = recorded(x_LT, RATE)
    assert found.held == (8,)
    assert np.isnan(found.signal_LT).sum() == np.isnan(found.signal_LT[8, 500:]).sum() == 4500


def test_a_print_of_three_rows_has_each_lead_for_a_quarter():
    x_LT = np.zeros((12, 5000), np.float32)
    for lead, x_T in enumerate(ecg()):
        quarter = slice(lead // 3 * 1250, (lead // 3 + 1) * 1250) if lead != 1 else slice(None)  # II is the strip
        x_LT[lead, quarter] = x_T[quarter]
    found = recorded(x_LT, RATE)
    assert (found.before, found.after) == (0, 0)
    assert found.held == (0, *range(2, 12))
    shares = np.isnan(found.signal_LT).mean(axis=1)
    np.testing.assert_allclose(shares, np.where(np.arange(12) == 1, 0, 0.75), atol=1e-3)


def test_shorter_holds_of_a_lead_stay_and_are_noted():
    x_LT = ecg()
    x_LT[3, 1000:1750] = 0.1
    found = recorded(x_LT, RATE)
    assert found.signal_LT is x_LT
    assert [(row, count) for row, _, count in found.noted] == [(3, 750)]
    x_LT[3, 1000 + int(ONE_NOTED * RATE) - 20] = 0.2
    assert recorded(x_LT, RATE).noted == ()
    x_LT[:, 2000:2700] = 0.1
    assert recorded(x_LT, RATE).noted == ()  # of all leads: it is missing
    padded_LT = np.pad(ecg(), ((0, 0), (0, 600)))
    padded_LT[5, 4800:5000] = 0
    assert recorded(padded_LT, RATE).noted == ()  # what goes on in the padding does not count
    padded_LT[5, 4400:5000] = 0
    assert recorded(padded_LT, RATE).noted == ((5, 4400, 600),)


def test_nothing_recorded_is_returned_as_it_is():
    for x_LT in (np.zeros((12, 5000), np.float32), np.full((12, 5000), np.nan, np.float32)):
        found = recorded(x_LT, RATE)
        assert found.signal_LT is x_LT
        assert (found.before, found.after, found.held) == (0, 0, ())


def test_two_leads_that_stand_still_together_are_no_proof():
    x_LT = ecg()[:2]
    x_LT[:, 1000:1400] = 0
    assert recorded(x_LT, RATE).signal_LT is x_LT


@pytest.mark.parametrize("name", ["ptbxl", "chapman", "cpsc2018", "georgia", "ludb"])
def test_real_ecgs_hold_no_value_for_long(name):
    if not MIRROR.is_dir():
        pytest.skip("needs ../shared/real/mirror")
    source = SOURCES[name]
    listing = source.list_files(lambda path: (MIRROR / path).read_bytes())
    records = [
        item
        for partition in source.available(listing)
        for item in source.read(MIRROR, partition, source.files_of(listing, partition))
        if isinstance(item, Record)
    ]
    assert records
    for record in records:
        found = recorded(record.signal_LT, record.rate)
        assert (found.before, found.after, found.held, found.noted) == (0, 0, (), ())


@pytest.mark.slow
def test_of_all_ptbxl_three_have_a_lead_that_was_not_recorded():
    ids, x_NLT = packed()
    found = {int(ids[at]): recorded(x_LT.astype(np.float32) / 1000, 100) for at, x_LT in enumerate(x_NLT)}
    assert not [name for name, each in found.items() if each.before or each.after]
    assert {name: each.held for name, each in found.items() if each.held} == {
        12722: (9, 11),
        19299: (11,),
        20045: (11,),
    }


@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
def test_lines_with_a_step_in_all_leads_are_missing_samples(step: float) -> None:
    x_LT = np.full((12, 5000), 0.3, np.float32)
    x_LT[:, 2000:] += step
    found = recorded(x_LT, 500)
    assert np.isnan(found.signal_LT).all()
    assert (found.before, found.after, found.held, found.complete) == (0, 0, tuple(range(12)), False)
    lines_LT = np.full((12, 5000), 0.3, np.float32)  # which the limits on flat leads judge
    np.testing.assert_array_equal(recorded(lines_LT, 500).signal_LT, lines_LT)

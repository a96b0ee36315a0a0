"""Which rows of a recording are which lead, by their names; what is left out, computed and refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_model.leads import (
    DERIVED,
    LEADS,
    LEADS_12,
    LIMB,
    LeadMissing,
    LeadRepeated,
    complete_limb_leads,
    known_leads,
    select_leads,
)
from ecg_model.signal import derived_leads, independent_leads

OTHERS = ("VX", "vy", "V7", "V3R", "-aVR", "RESP", "PLETH", "MLII", "lead", "", "IV", "I_2", "time", "C7")


def recording(samples: int = 20, seed: int = 0) -> dict[str, np.ndarray]:
    """The twelve leads of one recording, millivolt."""
    chest = dict(zip(LEADS[2:], np.random.default_rng(seed).normal(size=(6, samples)), strict=True))
    limb_2T = np.random.default_rng(seed + 1).normal(size=(2, samples))
    return (
        dict(zip(("I", "II"), limb_2T, strict=True)) | dict(zip(DERIVED, derived_leads(limb_2T), strict=True)) | chest
    )


@pytest.mark.parametrize(
    ("written", "lead"),
    [("ii", "II"), ("AVR", "aVR"), ("avf", "aVF"), ("DIII", "III"), (" v1 ", "V1"), ("Lead I", "I"), ("lead_v6", "V6")]
    + [("MDC_ECG_LEAD_AVL", "aVL"), ("ECG II", "II"), ("ECG lead I", "I"), ("EKG aVF", "aVF"), ("LeadaVR", "aVR")]
    + [
        ("I (mV)", "I"),
        ("V2 [uV]", "V2"),
        ("I_raw", "I"),
        ("V4_mV", "V4"),
        ("Lead I (Einthoven)", "I"),
        ("\u2162", "III"),
    ]
    + [(name, name) for name in LEADS_12],
)
def test_a_lead_is_known_by_each_of_its_names(written: str, lead: str) -> None:
    assert known_leads((written,)) == (lead,)


@pytest.mark.parametrize("name", [*OTHERS, "Lead -aVR", "ECG", "EKG lead", "V1 V2", "(I)"])
def test_another_channel_is_none_of_the_twelve(name: str) -> None:
    assert known_leads((name,)) == (None,)


@pytest.mark.parametrize("letter", ["D", "L"])
def test_numbered_limb_leads_are_leads_unless_they_count_channels(letter: str) -> None:
    assert known_leads(tuple(f"{letter}{n}" for n in (1, 2, 3))) == ("I", "II", "III")
    assert known_leads(tuple(f"{letter}{n}" for n in range(1, 13))) == (None,) * 12


def test_c1_to_c6_are_chest_leads_beside_limb_leads() -> None:
    chest = tuple(f"C{n}" for n in range(1, 7))
    assert known_leads(("D1", "D2", *chest)) == LEADS
    assert known_leads(("I", "II", *chest, "C7", "C9"))[2:] == (*LEADS[2:], None, None)
    assert known_leads(chest) == (None,) * 6
    assert known_leads(("I", "C0", *chest))[1:] == (None,) * 7
    assert known_leads(("I", *(f"C{n}" for n in range(1, 13))))[1:] == (None,) * 12


@given(order=st.permutations([*LEADS_12, *OTHERS]), leave=st.sets(st.sampled_from([*DERIVED, *OTHERS])))
@settings(deadline=None, max_examples=100)
def test_the_eight_leads_are_the_same_whatever_stands_beside_them(order: list[str], leave: set[str]) -> None:
    names = [name for name in order if name not in leave]
    ecg = recording()
    x_LT = np.stack([ecg.get(name, np.full(20, 99.0)) for name in names])
    written = [name.lower() if name in LEADS_12 else name for name in names]
    np.testing.assert_array_equal(independent_leads(x_LT, written), np.stack([ecg[name] for name in LEADS]))
    _, _, left_out = select_leads(x_LT, written)
    assert list(left_out) == [name for name in names if name in OTHERS]


@given(limb=st.sets(st.sampled_from(tuple(LIMB)), min_size=2), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=100)
def test_leads_i_and_ii_follow_from_any_two_limb_leads(limb: set[str], seed: int) -> None:
    ecg = recording(seed=seed)
    names = [name for name in ecg if name in limb or name not in LIMB]
    x_LT = np.stack([ecg[name] for name in names]).astype(np.float32)
    expected = np.stack([ecg[name] for name in LEADS])
    np.testing.assert_allclose(independent_leads(x_LT, names), expected, atol=2e-6)
    _, completed, computed = complete_limb_leads(x_LT, names)
    assert set(computed) == {"I", "II"} - limb
    assert completed == (*names, *computed)


def test_a_recorded_limb_lead_is_not_touched_by_a_computed_one() -> None:
    x_3T = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    completed, names, computed = complete_limb_leads(x_3T, ["II", "III", "aVF"])
    assert (names, computed) == (("II", "III", "aVF", "I"), ("I",))
    np.testing.assert_array_equal(completed[:3], x_3T)


def test_one_limb_lead_gives_no_other() -> None:
    names = ["II", *LEADS[2:]]
    with pytest.raises(LeadMissing, match="leads I are missing among II, V1"):
        independent_leads(np.zeros((7, 10)), names)


def test_a_repeated_strip_is_left_out_and_a_contradiction_is_refused() -> None:
    ecg = recording()
    names = [*LEADS_12, "Lead II"]
    x_LT = np.stack([*(ecg[name] for name in LEADS_12), ecg["II"]])
    rows_LT, leads, left_out = select_leads(x_LT, names)
    assert (leads, left_out) == (LEADS_12, ("Lead II",))
    np.testing.assert_array_equal(rows_LT, x_LT[:12])
    x_LT[-1, 0] += 0.001
    with pytest.raises(LeadRepeated, match=r"two rows of I, .*, Lead II are lead II, and their samples differ"):
        select_leads(x_LT, names)


def test_a_gap_in_both_strips_is_the_same_gap() -> None:
    x_2T = np.array([[1.0, np.nan, 2.0]] * 2)
    assert select_leads(x_2T, ["V1", "v1"])[1:] == (("V1",), ("v1",))


def test_a_derived_lead_may_contradict_itself_since_nothing_needs_it() -> None:
    x_LT = np.random.default_rng(0).normal(size=(9, 5))
    assert select_leads(x_LT[[*range(8), 8]], [*LEADS, "aVR"])[2] == ()
    twice = np.concatenate([x_LT, x_LT[:1]])
    assert select_leads(twice, [*LEADS, "aVR", "AVR"])[2] == ("AVR",)


def test_rows_and_names_have_to_fit() -> None:
    with pytest.raises(ValueError, match="does not fit 12 lead names"):
        independent_leads(np.zeros((11, 10)), LEADS_12)
    with pytest.raises(LeadMissing, match="leads V6 are missing"):
        independent_leads(np.zeros((11, 10)), LEADS_12[:11])

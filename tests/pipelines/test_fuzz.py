"""Damaged files of every format: a record, a dropped record with its reason, or one ValueError; nothing else.

Where a header carries checksums, a record that is still accepted after its signal file was mutated has the very same
samples.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipelines.formats.wfdb_annotations import parse_marks
from pipelines.records import DropReason
from pipelines.sources.physionet import parse_sums
from tests.support.hostile import one_mutation, outcome_of, room, signals_of, tried
from tests.support.inputs import all_cases
from tests.support.mutations import mutated


def check_all_kinds(seen: Counter[str]) -> None:
    assert seen["read"] > 0, "some damage is harmless, or nothing was read at all"
    assert seen["refused"] > 0
    assert len(set(seen) & {f"dropped: {reason}" for reason in DropReason}) >= 5, seen


def test_damaged_files_are_records_drops_or_one_error(tmp_path: Path) -> None:
    cases = all_cases(tmp_path)
    assert {case.name: outcome_of(case) for case in cases} == {case.name: "read" for case in cases}
    seen: Counter[str] = Counter()
    with room(1 << 30):
        for number in range(400):
            case = cases[number % len(cases)]
            outcome = one_mutation(case, case.file.read_bytes(), signals_of(case), number, seed=1)
            assert not outcome.startswith("undeclared"), f"{case.name}, mutation {number}: {outcome}"
            seen[outcome] += 1
    check_all_kinds(seen)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_thousand_damaged_files_are_records_drops_or_one_error(tmp_path: Path) -> None:
    seen = tried(tmp_path, 20_000, seed=2)
    assert seen.undeclared == []
    check_all_kinds(seen.outcomes)
    print(dict(seen.outcomes.most_common()))


def test_damaged_annotations_are_marks_within_reason_or_one_error() -> None:
    rng = np.random.default_rng(3)
    words = [(code << 10) | int(rng.integers(1, 200)) for code in (39, 24, 40, 39, 1, 40, 39, 27, 40) * 20]
    data = np.array([*words, 0], "<u2").tobytes()
    assert len(parse_marks(data, "1.i")) == 180
    refused = 0
    for number in range(1000):
        try:
            marks = parse_marks(mutated(data, np.random.default_rng([3, number])), "1.i")
        except ValueError:
            refused += 1
            continue
        assert {mark.symbol for mark in marks} <= set("Npt()")
    assert 0 < refused < 1000


@pytest.mark.parametrize("seed", range(3))
def test_damaged_lists_name_no_path_outside(seed: int) -> None:
    """SHA256SUMS.txt, mutated: parsed into plain relative paths, or refused."""
    root = "physionet.org/files/x/1.0"
    text = "\n".join(f"{n:064x} WFDBRecords/01/010/JS{n:05d}.hea" for n in range(20)).encode()
    refused = 0
    for number in range(300):
        rng = np.random.default_rng([seed, number])
        try:
            files = parse_sums(mutated(text, rng, text=True).decode("utf-8", "replace"), root)
        except ValueError:
            refused += 1
            continue
        for file in files:
            assert file.path.startswith(f"{root}/")
            assert not {"..", ".", ""} & set(file.path.split("/"))
    assert 0 < refused < 300

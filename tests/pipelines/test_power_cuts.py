"""Power that is cut at 30 random moments of a home's work: nothing finished is lost, and the same results come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.power_cuts import STAGES, cut_power

CUTS = 6  # of each stage


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_whose_power_is_cut_is_done_again(tmp_path: Path, stage: str) -> None:
    outcome = cut_power(stage, CUTS, tmp_path)
    if outcome is None:
        pytest.skip("needs root, a loop device and mkfs.ext4, to cut the power of a disk")
    assert outcome.faults == []
    assert outcome.at_work > 0  # how many there are depends on how fast the machine is meanwhile

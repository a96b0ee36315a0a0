"""`make ui` that is killed while it materializes, and started again."""

from pathlib import Path

import pytest

from tests.support.killed_stack import killed_orchestrations


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_a_kill_of_all_processes_everything_is_done_in_the_end(tmp_path: Path) -> None:
    """`python -m benchmarks.faults orchestration` kills each kind of process, often."""
    trials = list(killed_orchestrations(tmp_path, seed=1, kills=1, victims=["all"]))
    assert [surprise for trial in trials for surprise in trial.surprises] == []
    assert sum(trial.tried for trial in trials) == 1
    assert trials[0].outcomes == {"done by itself": 2}

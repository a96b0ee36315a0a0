"""A daemon that is killed in mid-tick: the next one ends what it began, and nothing is requested twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets.sources import incoming_drops
from orchestration.jobs import TRAIN, harvest_job_name
from tests.support.paths import ROOT
from tests.support.registered import TINY, corpus_built, harmonized, released, write_drop

pytestmark = pytest.mark.slow

Tick = Callable[..., int]


@pytest.fixture
def tick(home, tmp_path) -> Tick:
    """Run one tick as a program of its own; its exit code."""
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())

    def run(*arguments: str) -> int:
        command = [sys.executable, str(ROOT / "tests" / "support" / "ticking.py"), *arguments]
        environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster")}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode

    return run


def runs(tmp_path: Path, job: str) -> tuple[list[dg.DagsterRun], list[str]]:
    """The runs of a job, and the drops that are partitions."""
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        job_runs = list(instance.get_runs(dg.RunsFilter(job_name=job)))
        return job_runs, list(instance.get_dynamic_partitions(incoming_drops.name))


@pytest.mark.parametrize("killed_at", ["partitions_added", "RUN_CREATED"])
def test_a_sensor_killed_on_the_way_requests_each_drop_once(home, tick, tmp_path, killed_at):
    write_drop(home, "monday")
    assert tick("sensors", killed_at) == -signal.SIGKILL
    before, partitions = runs(tmp_path, harvest_job_name("incoming"))
    assert len(before) == (1 if killed_at == "RUN_CREATED" else 0)
    assert partitions == ["monday"]
    assert tick("sensors") == 0
    job_runs, partitions = runs(tmp_path, harvest_job_name("incoming"))
    assert [run.tags["dagster/partition"] for run in job_runs] == ["monday"]
    assert job_runs[0].status == dg.DagsterRunStatus.QUEUED
    assert partitions == ["monday"]
    assert tick("sensors") == 0
    assert len(runs(tmp_path, harvest_job_name("incoming"))[0]) == 1


def test_a_schedule_killed_on_the_way_and_ticked_again_requests_one_run(home, tracking, tick, tmp_path):
    harmonized(home.workspace(), {"chapman/01": "a"})
    corpus_built(home.workspace(), "2" * 64)
    released(tracking, "1" * 64, TINY, "promoted", champion=True)
    assert tick("schedules", "RUN_CREATED") == -signal.SIGKILL
    assert tick("schedules") == 0
    assert tick("schedules") == 0
    job_runs, _ = runs(tmp_path, TRAIN)
    assert len(job_runs) == 1
    assert job_runs[0].status == dg.DagsterRunStatus.QUEUED
    assert job_runs[0].tags["ecg/why"].startswith("changed since version 1, the champion: corpus 1111")

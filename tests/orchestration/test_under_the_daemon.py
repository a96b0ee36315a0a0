"""Under a real daemon: a step, or its whole run, is killed, and two trainings are asked for at once. Nothing is lost,
and nothing is made twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import yaml

from assets.resources import DataHome
from assets.sources import incoming_drops
from ecg_model.leads import LEADS_12
from orchestration.definitions import defs
from orchestration.demo import run
from orchestration.jobs import TRAIN, harvest_job_name
from orchestration.sensors import incoming_sensor
from pipelines.home import Home
from pipelines.incoming.listing import MARKER
from pipelines.release.aliases import versions_of
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.tracking import Tracking
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ECGS = 8_000  # some seconds of harmonizing, so that there is a middle to be killed in
ECGS_KEY = dg.AssetKey(["ecgs", "incoming"])
TINY = {
    "steps": 8,
    "batch": 16,
    "jepa.encoder.dim": 32,
    "jepa.encoder.depth": 2,
    "jepa.encoder.heads": 2,
    "jepa.predictor.dim": 16,
    "jepa.predictor.heads": 2,
}
STEP = ECGS_KEY.to_python_identifier()
Seen = dg.DagsterEventType


def write_drop(home: Home) -> None:
    folder = home.incoming / "monday"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(-500, 500, (ECGS, 12, 1000), dtype=np.int16)
    np.save(folder / "a.npy", noise)
    ids = [f"m{at}" for at in range(ECGS)]
    description = {"rate": 100, "leads": LEADS_12, "units": "uV", "ids": ids}
    (folder / "a.json").write_text(json.dumps(description))
    (folder / MARKER).touch()


@contextmanager
def daemon(folder: Path) -> Iterator[dg.DagsterInstance]:
    """The daemon with its code server on an instance of its own; it looks after runs more often than usual."""
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    settings["run_monitoring"] |= {"poll_interval_seconds": 2}
    folder.mkdir()
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-w", "workspace.yaml"]
    environment = {**os.environ, "DAGSTER_HOME": str(folder), "PYTHONWARNINGS": "ignore"}
    # The instance first: where two processes create its SQLite files at once, Dagster stamps their version twice.
    with dg.DagsterInstance.from_config(str(folder)) as instance, (folder / "daemon.log").open("wb") as log:
        running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield instance
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 720
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError(f"not within twelve minutes: {what}")


def pid_of_step(instance: dg.DagsterInstance, run_id: str) -> int | None:
    for entry in instance.all_logs(run_id, of_type=Seen.STEP_WORKER_STARTED):
        if entry.step_key == STEP:
            return int(entry.dagster_event.engine_event_data.metadata["pid"].value)
    return None


def pid_of_run(instance: dg.DagsterInstance, run_id: str) -> int:
    (entry,) = [
        line
        for line in instance.all_logs(run_id, of_type=Seen.ENGINE_EVENT)
        if line.dagster_event.message.startswith("Started process for run")
    ]
    return int(entry.dagster_event.engine_event_data.metadata["pid"].value)


@pytest.mark.parametrize("killed", ["step", "run"])
def test_what_is_killed_in_mid_run_is_tried_again_by_itself(home, tmp_path, killed):
    write_drop(home)
    with daemon(tmp_path / "dagster") as instance:

        def runs() -> list[dg.DagsterRun]:
            return list(instance.get_runs(dg.RunsFilter(job_name=harvest_job_name("incoming"))))[::-1]

        until(lambda: len(runs()) == 1, "the sensor requests a run of the drop")
        first = runs()[0].run_id
        until(lambda: pid_of_step(instance, first) is not None, "the step is under way")
        partial = home.workspace().root / "ecgs" / "incoming" / "monday"
        until(lambda: any(partial.glob("*.partial/*")), "it has written something")
        os.kill(pid_of_step(instance, first) if killed == "step" else pid_of_run(instance, first), signal.SIGKILL)
        until(lambda: runs()[-1].status == dg.DagsterRunStatus.SUCCESS, "it was done after all")

        known = runs()
        if killed == "step":
            assert len(known) == 1
            (again,) = instance.all_logs(first, of_type=Seen.STEP_UP_FOR_RETRY)
            assert again.step_key == STEP
            assert any("SIGKILL" in str(entry.user_message) for entry in instance.all_logs(first))
        else:
            assert [run.status for run in known] == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]
            assert known[1].parent_run_id == first
        # Of a run that is killed the step's process lives on: the second run waits for its product, and finds it.
        made = [record.asset_materialization for record in instance.fetch_materializations(ECGS_KEY, limit=10).records]
        assert {(record.partition, record.metadata["dagster/row_count"].value) for record in made} == {("monday", ECGS)}
        assert sum(not record.metadata["cached"].value for record in made) == 1
        context = dg.build_sensor_context(instance=instance, definitions=defs, resources={"data_home": DataHome()})
        keys = [request.run_key for request in incoming_sensor(context).run_requests]
        assert keys == [known[0].tags["dagster/run_key"]], "the next tick asks for nothing new"
        assert instance.get_dynamic_partitions(incoming_drops.name) == ["monday"]


def test_two_trainings_that_are_asked_for_at_once_run_one_after_the_other_and_release_one_version(home, tmp_path):
    sizes = MirrorSizes(chapman=(60,), code15=(), ptbxl=(60,), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(tmp_path / "mirror", seed=3, sizes=sizes)
    home.set_mirror(str(tmp_path / "mirror"))
    settings = {"recipe": "demo", "changes": TINY, "device": "cpu"}
    with daemon(tmp_path / "dagster") as instance:
        for source, partition in (("chapman", "01"), ("ptbxl", "00000")):
            run(harvest_job_name(source), instance, partition=partition)
        config = json.dumps({"ops": {"encoder": {"config": settings}}})
        ask = [str(Path(sys.executable).with_name("dagster")), "job", "launch", "-w", "workspace.yaml", "-j", TRAIN]
        environment = {**os.environ, "DAGSTER_HOME": str(tmp_path / "dagster"), "PYTHONWARNINGS": "ignore"}
        launches = [
            subprocess.Popen(
                [*ask, "--config-json", config], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for launch in launches:
            _, stderr = launch.communicate(timeout=120)
            assert launch.returncode == 0, stderr
        trained = dg.RunsFilter(job_name=TRAIN, statuses=[dg.DagsterRunStatus.SUCCESS])
        until(lambda: instance.get_runs_count(trained) == 2, "both are done")
        first, second = sorted(instance.get_run_records(trained), key=lambda run: run.start_time)
        assert second.start_time >= first.end_time
        made = [
            record.asset_materialization
            for record in instance.fetch_materializations(dg.AssetKey("encoder"), limit=9).records
        ]
        assert [materialization.metadata["cached"].value for materialization in made] == [True, False], (
            "the newest first"
        )
    store = Tracking.of(home)
    assert [version.version for version in versions_of(tracking=store)] == [1]

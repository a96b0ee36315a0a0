"""Run monitoring learns that the process of a run is gone, also where nobody is left who started it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from orchestration.launcher import WatchedRunLauncher, is_alive
from tests.support.paths import ROOT


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as here:
        yield here


def status(instance: dg.DagsterInstance, pid: int | None) -> WorkerStatus:
    """What is said of a run that began in a process."""
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
    launcher = instance.run_launcher
    assert isinstance(launcher, WatchedRunLauncher), "that of dagster.yaml"
    assert launcher.supports_check_run_worker_health
    return launcher.check_run_worker_health(run).status


def test_a_run_whose_process_is_gone_has_failed_and_no_other(instance: dg.DagsterInstance) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert status(instance, process.pid) == WorkerStatus.RUNNING
        process.kill()
    assert status(instance, process.pid) == WorkerStatus.FAILED
    assert status(instance, None) == WorkerStatus.RUNNING, "nothing is known of it"


def test_while_no_code_server_answers_a_run_is_not_failed(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever would start it again then gives up for good."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    monkeypatch.setenv("ECG_CODE_SOCKET", str(tmp_path / "code.sock"))
    assert status(instance, process.pid) == WorkerStatus.RUNNING
    monkeypatch.setattr("orchestration.launcher.answers", lambda socket: socket.endswith("code.sock"))
    assert status(instance, process.pid) == WorkerStatus.FAILED


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells when a process began")
def test_a_process_that_got_the_number_later_is_another() -> None:
    now = time.time()
    assert is_alive(os.getpid(), now)
    assert not is_alive(os.getpid(), now - 24 * 3600)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that has ended from one that lives")
def test_a_process_that_ended_and_was_not_asked_how_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read()
        while is_alive(process.pid, time.time()):
            time.sleep(0.01)

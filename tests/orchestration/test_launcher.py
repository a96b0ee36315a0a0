"""Where a training runs: its failure is the step's, and it ends with the step, however that ended."""

import configparser
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.resources import STOP_SECONDS, Launcher
from pipelines.program import REFUSED
from tests.support.paths import ROOT

PROGRAM = """
import pathlib, signal, sys, time
folder, takes = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def told(*_):
    time.sleep(takes)
    (folder / "stopped").write_text((folder / "started").read_text())
    sys.exit()
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
with (folder / "started").open("a") as started:
    started.write("once ")
time.sleep(60)
"""


def launched(command: list[str], launcher: Launcher, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def training(context: dg.AssetExecutionContext, launcher: Launcher) -> dg.MaterializeResult:
        launcher.run(context, command)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [training], instance=instance, resources={"launcher": launcher}, raise_on_error=raise_on_error
        )


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path.name} never came")


def test_a_command_that_fails_fails_the_step():
    assert launched([sys.executable, "-c", "pass"], Launcher()).success
    result = launched([sys.executable, "-c", "raise SystemExit(3)"], Launcher(), raise_on_error=False)
    assert not result.success
    assert "failed with code 3" in str(result.all_events)


def test_a_training_that_is_killed_is_tried_again_and_one_that_refuses_is_not(tmp_path):
    """torchrun ends with 1, whatever became of its processes."""
    for way, tries in (("os.kill(os.getpid(), 9)", 2), ("sys.exit(1)", 2), (f"sys.exit({REFUSED})", 1)):
        tried = tmp_path / way
        program = f"import os, sys; open(sys.argv[1], 'a').write('x'); {way}"
        assert not launched([sys.executable, "-c", program, str(tried)], Launcher(), raise_on_error=False).success
        assert len(tried.read_text()) == tries


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent died")
def test_where_the_step_is_killed_the_training_is_told_to_stop(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "0"]
    step = multiprocessing.get_context("fork").Process(target=launched, args=(command, Launcher()))
    step.start()
    wait_for(tmp_path / "started")
    assert step.pid is not None
    os.kill(step.pid, signal.SIGKILL)
    step.join()
    wait_for(tmp_path / "stopped")


@pytest.mark.slow
def test_a_training_that_is_told_to_stop_has_time_for_its_checkpoint(tmp_path):
    longer_than_pipes_waits = "22"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), longer_than_pipes_waits]
    step = multiprocessing.get_context("fork").Process(target=launched, args=(command, Launcher()))
    step.start()
    wait_for(tmp_path / "started")
    assert step.pid is not None
    os.kill(step.pid, signal.SIGINT)
    wait_for(tmp_path / "stopped")
    step.kill()
    step.join()
    assert (tmp_path / "stopped").read_text() == "once ", "nothing was started anew before it had stopped"


def test_each_that_waits_for_a_training_to_stop_waits_longer_than_the_one_before():
    supervisor = configparser.RawConfigParser()
    supervisor.read(ROOT / "deploy" / "supervisord.conf")
    instance = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    server = supervisor.getint("program:code-server", "stopwaitsecs")
    assert 20 < STOP_SECONDS < server <= instance["run_monitoring"]["cancel_timeout_seconds"]


def test_the_processes_are_a_setting_of_the_resource_or_of_the_machine(monkeypatch):
    monkeypatch.delenv("ECG_PROCESSES", raising=False)
    assert Launcher().usual_processes == 1
    monkeypatch.setenv("ECG_PROCESSES", "4")
    assert Launcher().usual_processes == 4
    assert Launcher(processes=2).usual_processes == 2

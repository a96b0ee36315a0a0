"""Two commands on one home at once: one waits, or leaves with a sentence, and nothing is lost (docs/production.md)."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cache import Workspace, in_use
from pipelines.cli import main
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.home import REMOVAL_LOCK, SERVERS_LOCK, Home
from pipelines.incoming.listing import MARKER
from pipelines.incoming.step import materialize_drop
from pipelines.incoming.withdraw import withdraw_drop
from tests.support.drops import array_fields, ecgs, write_npy
from tests.support.paths import ROOT
from tests.support.pretraining import Program, environment, small_home

OPEN = """
import sys
from orchestration.instance import open_instance
from pipelines.home import Home
open_instance(Home(sys.argv[1])).dispose()
"""


def opened(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", OPEN, str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_two_first_starts_of_the_demo_or_the_ui_make_one_set_of_databases(tmp_path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(opened, [tmp_path / "home"] * 2))
    third = opened(tmp_path / "home")
    assert [one.returncode for one in (*both, third)] == [0, 0, 0], [one.stderr[-300:] for one in both]


@pytest.mark.slow
def test_gc_leaves_a_training_of_the_shell_its_corpus_also_after_a_kill(home: Home, new_store, tmp_path: Path) -> None:
    new_store(home.root / "mlflow")
    workspace, corpus = small_home(home.workspace().root)
    program = Program((workspace, corpus), tmp_path / "run")
    command = program.command("--checkpoint-every", "3", steps=100_000)

    def reached() -> int:
        return max(map(program.step, program.checkpoints()), default=0)

    def wait_for(process: subprocess.Popen[str], step: int) -> None:
        while process.poll() is None and reached() < step:
            time.sleep(0.02)

    def collected() -> str:
        return CliRunner().invoke(main, ["gc", "--delete"]).output

    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(process, 3)
        materialize_corpus(Workspace(workspace), CorpusConfig(validation_share=0.2, seed=8))
        assert f"kept, in use by process {process.pid}: corpus {corpus.name}" in collected()
        process.kill()
    stopped = f"in use by the training in {program.out}, which was stopped and can be continued: corpus {corpus.name}"
    assert stopped in collected()
    before = reached()
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(process, before + 3)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert reached() >= before + 3


def test_gc_waits_for_a_backup_and_says_so(home: Home, new_store, caplog: pytest.LogCaptureFixture) -> None:
    new_store(home.root / "mlflow")
    hold = ["flock", "--no-fork", "--shared", str(home.root / REMOVAL_LOCK), "sh", "-c", "echo held; exec sleep 0.3"]
    with subprocess.Popen(hold, stdout=subprocess.PIPE) as backup:
        assert backup.stdout is not None
        backup.stdout.readline()
        assert CliRunner().invoke(main, ["gc", "--delete"]).exit_code == 0
        assert backup.poll() is not None or backup.wait(5) == 0
    assert any(f"removals and backups of {home.root}: waiting for" in line for line in caplog.messages)


def test_a_drop_that_is_read_is_not_withdrawn(home: Home) -> None:
    drop = home.root / "incoming" / "ward"
    drop.mkdir(parents=True)
    write_npy(drop / "a.npy", ecgs(2), **array_fields())
    (drop / MARKER).touch()
    taken = materialize_drop(home, "ward")
    with in_use([taken.path]), pytest.raises(ValueError, match=r"drop ward is read by process \d+: withdraw it when"):
        withdraw_drop(home, "ward")
    assert home.workspace().require("raw/incoming/ward").path == taken.path
    withdraw_drop(home, "ward")
    assert home.workspace().current("raw/incoming/ward") is None


def test_a_second_ui_of_a_home_leaves_with_a_sentence(home: Home) -> None:
    from orchestration.ui import main as ui

    hold = ["flock", "--no-fork", str(home.root / SERVERS_LOCK), "sh", "-c", "echo held; exec sleep 20"]
    with subprocess.Popen(hold, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        ran = CliRunner().invoke(ui, ["--dagster-port", "1", "--mlflow-port", "1"])
        first.terminate()
    assert ran.exit_code == 1
    assert f"the servers of {home.root} run already" in ran.output
    assert not (home.root / "dagster").exists()

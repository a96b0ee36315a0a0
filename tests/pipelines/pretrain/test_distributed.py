"""Several processes under torchrun compute what one computes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from ecg_model.encoder_file import load_encoder
from pipelines import program as of_programs
from pipelines.cache import Workspace
from pipelines.pretrain.distributed import World
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import materialize_encoder
from pipelines.program import REFUSED
from tests.support.pretraining import PAIRS, ROOT, TINY, Program, environment, small_home

FIFTY = {"steps": 50, "precision": "fp32", "jepa.masking.per_record": "True"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small_home(tmp_path_factory.mktemp("home"))


def torchrun(program: Program, *options: str, **changes: object) -> list[str]:
    python, *rest = program.command(*options, **changes)
    return [python, "-m", "pipelines.pretrain.torchrun", "--standalone", "--nproc-per-node", "2", *rest]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(home: tuple[Path, Path], tmp_path: Path) -> None:
    """Per-record masks and stochastic depth are on, so each record must get its own whichever process it falls to."""
    alone, two, parts = (Program(home, tmp_path / name) for name in ("one", "two", "parts"))
    assert alone.run(**FIFTY).returncode == 0
    done = run(torchrun(two, **FIFTY))
    assert parts.run("--accumulate=4", **FIFTY).returncode == 0
    assert done.stdout.strip() == str(two.out / "encoder.safetensors"), "one process speaks"
    assert done.stderr.count("2 x cpu") == 1
    for other in (two, parts):
        assert [line["step"] for line in other.metrics()] == [line["step"] for line in alone.metrics()]
        for expected_line, line in zip(alone.metrics(), other.metrics(), strict=True):
            for name in ("loss", "validation_loss", "gradient_norm"):
                assert line[name] == pytest.approx(expected_line[name], abs=1e-4), (name, expected_line["step"])
        actual, expected = (load_encoder(program.out / "encoder.safetensors") for program in (other, alone))
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(actual.state_dict()[name], value, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != "jepa"])
def test_two_processes_have_the_batch_statistics_of_one(pair: str, home: tuple[Path, Path], tmp_path: Path) -> None:
    """Loss, weights, running statistics and their count."""
    changes = {"steps": 20, "precision": "fp32"}
    alone, two = (Program(home, tmp_path / name, pair) for name in ("one", "two"))
    assert alone.run(**changes).returncode == 0
    run(torchrun(two, "--checkpoint-every=20", **changes))
    assert [line["step"] for line in two.metrics()] == [line["step"] for line in alone.metrics()]
    for expected_line, line in zip(alone.metrics(), two.metrics(), strict=True):
        for name in ("loss", "validation_loss"):
            assert line[name] == pytest.approx(expected_line[name], rel=1e-4), (name, expected_line["step"])
    actual, expected = (load_encoder(program.out / "encoder.safetensors").state_dict() for program in (two, alone))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, atol=2e-4, rtol=1e-3)
    assert {int(value) for name, value in actual.items() if name.endswith("num_batches_tracked")} == {20}


@pytest.mark.slow
def test_two_processes_that_are_stopped_go_on(home: tuple[Path, Path], tmp_path: Path) -> None:
    """From where they were, with the same curve; and one process can go on where two stopped."""
    whole, program = Program(home, tmp_path / "whole"), Program(home, tmp_path / "stopped")
    run(torchrun(whole, **FIFTY))
    command = torchrun(program, "--checkpoint-every", "3", **FIFTY)
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        program.wait_for(process, 11)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    stopped_at = int(re.findall(r"stopped at step (\d+)", output)[0])
    assert 11 <= stopped_at < 50
    again = run(program.command(**FIFTY))
    assert f"going on from step {stopped_at}" in again.stderr
    for expected_line, line in zip(whole.metrics(), program.metrics(), strict=True):
        assert line["loss"] == pytest.approx(expected_line["loss"], abs=1e-4)


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_is_refused(home: tuple[Path, Path], tmp_path: Path) -> None:
    program = Program(home, tmp_path)
    done = subprocess.run(torchrun(program, batch=5), cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == REFUSED
    assert "batch=5 cannot be shared out evenly among 2 processes in 1 parts: use a multiple of 2" in done.stderr
    code, output = program.here("--accumulate=3")
    assert code == REFUSED
    assert "batch=4 cannot be shared out evenly among 1 processes in 3 parts" in output


def test_alone_nothing_is_exchanged() -> None:
    world = World()
    assert world.agree(True)
    assert not world.agree(False)
    x = torch.arange(3.0)
    assert world.mean(x) is x
    assert list(range(8))[world.share] == list(range(8))
    assert list(range(8))[World(rank=1, size=4).share] == [1, 5]


@pytest.mark.slow
def test_the_product_is_built_by_as_many_processes_as_asked(home: tuple[Path, Path]) -> None:
    workspace = Workspace(home[0])
    recipe = recipe_named("demo", {**TINY, "steps": 4})
    commands: list[list[str]] = []

    def launch(command: list[str]) -> None:
        commands.append(command)
        run(command)

    with pytest.raises(ValueError, match="processes=0: use at least 1"):
        materialize_encoder(workspace, recipe, launch, device="cpu", processes=0)
    built = materialize_encoder(workspace, recipe, launch, device="cpu", processes=2, accumulate=2)
    assert "pipelines.pretrain.torchrun" in commands[0]
    assert built.facts["steps"] == 4
    assert load_encoder(built.path / "encoder.safetensors").config.dim == 16
    again = materialize_encoder(workspace, recipe, launch, device="cpu", processes=1)
    assert again.cached, "how many processes there are is no part of what is built"


@pytest.mark.slow
def test_probes_between_the_logging_steps_keep_the_processes_together(tmp_path: Path) -> None:
    """Rank 0 alone has the probe; all must exchange their losses at its steps."""
    home = small_home(tmp_path / "home", ecgs=60, labels=["426783006"])
    changes = {"steps": 60, "probe_epochs": 1.5, "precision": "fp32"}
    alone, two = (Program(home, tmp_path / name) for name in ("one", "two"))
    assert alone.run(**changes).returncode == 0
    run(torchrun(two, **changes))
    probed = [[line["step"] for line in each.metrics() if "probe_auc" in line] for each in (alone, two)]
    assert len(probed[0]) > 2
    assert probed[0] == probed[1]
    assert any(step % 2 for step in probed[0]), "some lie between logging steps"
    assert (two.out / "best.safetensors").is_file()


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_waits_for_the_first_and_is_refused_in_the_end(
    home: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program(home, tmp_path)
    command = program.command(steps=100_000)
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        program.wait_for(process, 1)
        with monkeypatch.context() as patch:
            patch.setattr(of_programs, "ORPHAN_SECONDS", 0.0)
            code, output = program.here(steps=100_000)
        assert code == REFUSED
        assert "another run writes there; stop it, or use another folder" in output
        threading.Timer(1.0, process.kill).start()
        code, output = program.here(steps=2)
        process.communicate()
    assert code == 0, "the lock of a killed run is gone"
    assert "another run writes there; waiting for its end" in output
    assert "has metrics and no checkpoint: beginning at step 0" in output


@pytest.mark.slow
def test_a_process_that_is_killed_is_no_refusal(home: tuple[Path, Path], tmp_path: Path) -> None:
    program = Program(home, tmp_path)
    command = torchrun(program, steps=100_000)
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        program.wait_for(process, 1)
        os.kill(processes_of(process.pid)[1], signal.SIGKILL)
        output = process.communicate(timeout=120)[1]
    assert process.returncode not in (0, REFUSED), output
    assert "Signal 9 (SIGKILL)" in output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent died")
def test_where_torchrun_is_killed_its_processes_stop_and_the_next_run_goes_on(
    home: tuple[Path, Path], tmp_path: Path
) -> None:
    program = Program(home, tmp_path)
    command = torchrun(program, **FIFTY | {"steps": 300})
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        program.wait_for(process, 1)
        orphans = processes_of(process.pid)
        process.kill()
        code, output = program.here(**FIFTY | {"steps": 300})
        process.communicate()
    assert code == 0, output
    assert len(orphans) == 2
    until = time.monotonic() + 120  # rank 0 has let the folder go; the other one ends a little later
    while any(Path(f"/proc/{orphan}").exists() for orphan in orphans):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert re.search(r"going on from step \d+", output)


def processes_of(torchrun: int) -> list[int]:
    """Those that it started, in the order of their ranks."""
    return [int(pid) for pid in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()]

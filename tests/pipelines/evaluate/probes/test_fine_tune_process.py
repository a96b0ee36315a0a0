"""Fine-tuning in a process of its own gives the bytes of one without, whatever stops it, and says how far it is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ecg_model.config import EncoderConfig
from pipelines.cache import Product, Workspace
from pipelines.cli.launch import run_fine_tuning
from pipelines.evaluate.features import EncoderSource, read_signals
from pipelines.evaluate.probes import fine_tune
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.fine_tune import FineTune, Training
from pipelines.evaluate.probes.fine_tune_process import PROGRAM
from pipelines.evaluate.probes.fine_tune_program import main
from pipelines.evaluate.probes.heads import FitProblem
from pipelines.evaluate.probes.read_ahead import AHEAD, read_ahead
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.signals import Signals
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.harmonize.shards import shards_of
from pipelines.pretrain.checkpoint import Checkpoint, CheckpointFolder
from pipelines.program import REFUSED, Launch, Stopped
from pipelines.tasks.catalogue import TASKS
from tests.support.labelled_shards import labelled_workspace
from tests.support.paths import ROOT
from tests.support.pretraining import environment, in_this_process

TINY = EncoderConfig(dim=16, depth=1, heads=2, drop_path=0.5, input_scale=5.0, patch_init_scale=7.0)
SOURCE = EncoderSource.random("tiny", TINY, 0)
SMALL = ProbeConfig(resamples=20, min_patients=3, min_positives=1)
QUICK = FineTune(epochs=2, warmup=1, rate=0.2, device="cpu")
TASK = TASKS["ptbxl_superclass"]
STEPS = 6  # of QUICK: 48 ECGs in batches of 16, twice


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return labelled_workspace(tmp_path_factory.mktemp("home"), (37, 23))


def probed(workspace: Workspace, head: FineTune, launch: Launch | None = None) -> Product:
    return materialize_probe(workspace, TASK, SOURCE, SMALL, head=head, launch=launch)


def here(command: list[str]) -> None:
    """Run the program in this process, as a step would start it."""
    assert command[:3] == [sys.executable, "-m", PROGRAM]
    code, said = in_this_process(command[3:], main)
    if code:
        raise ChildProcessError(code, said)


def problem_of(workspace: Workspace, folder: Path) -> FitProblem:
    fold = np.arange(60) % 10 + 1
    return FitProblem(
        x=Signals([shard.path for shard in shards_of(workspace, "ptbxl").values()]),
        y_NC=np.stack([np.arange(60) % 3 == 0, np.arange(60) % 3 != 0], axis=1),
        train=np.flatnonzero(fold < 9),
        validation=np.flatnonzero(fold == 9),
        multi_class=False,
        seed=3,
        encoder=SOURCE.loaded,
        folder=folder,
    )


@pytest.fixture
def problem(workspace: Workspace, tmp_path: Path) -> FitProblem:
    return problem_of(workspace, tmp_path)


@pytest.fixture(scope="module")
def straight(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("straight")
    QUICK.fit(problem_of(workspace, folder))
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_process_gives_the_same_product(workspace: Workspace, tmp_path: Path) -> None:
    alone = probed(labelled_workspace(tmp_path / "alone", (37, 23)), QUICK)
    made = probed(workspace, QUICK, here)
    assert (made.fingerprint, made.digest) == (alone.fingerprint, alone.digest)
    assert not (made.path / "checkpoints").exists()
    scores = load_result(made.path).scores
    assert scores is not None
    assert [trial.epoch for trial in scores.trials] == [1, 2]


@pytest.mark.parametrize(("again", "stop_at"), [("stopped", 1), ("stopped", 5), ("killed", 4)])
def test_a_training_goes_on_from_within_an_epoch_to_the_same_bytes(
    problem: FitProblem, straight: dict[str, bytes], again: str, stop_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = problem.folder
    assert folder is not None
    if again == "killed":
        monkeypatch.setattr(fine_tune, "CHECKPOINT_SECONDS", 0.0)  # after each step
    steps = []

    def on_step(at: fine_tune.Progress) -> None:
        steps.append(at.step)
        if again == "killed" and at.step == stop_at + 1:
            raise KeyboardInterrupt  # before this step is stored

    stopping = (lambda: len(steps) >= stop_at) if again == "stopped" else (lambda: False)
    training = Training(QUICK, problem, on_step=on_step, asked_to_stop=stopping)
    with pytest.raises(Stopped if again == "stopped" else KeyboardInterrupt):
        training.finish()
    (newest, *_) = sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True)
    assert newest.name == f"step-{stop_at:09d}.safetensors"
    counted: list[int] = []
    rest = Training(QUICK, problem, on_step=lambda at: counted.append(at.step))
    rest.finish().write(folder)
    assert counted == list(range(stop_at + 1, STEPS + 1))
    assert files(folder) == straight


def test_a_stop_during_validation_repeats_the_validation_alone(problem: FitProblem) -> None:
    asked = iter([False] * (STEPS // 2) + [True])  # at the steps of an epoch, then within validation
    with pytest.raises(Stopped, match="stopped at step 3 of 6: the same command resumes from there"):
        Training(QUICK, problem, asked_to_stop=lambda: next(asked)).finish()
    counted: list[int] = []
    rest = Training(QUICK, problem, on_step=lambda at: counted.append(at.step))
    rest.finish()
    assert counted == [4, 5, 6]
    assert [trial.epoch for trial in rest.trials] == [1, 2]


def test_a_checkpoint_of_an_earlier_commit_is_gone_on_from(problem: FitProblem, straight: dict[str, bytes]) -> None:
    """Those were written after each epoch, and count epochs."""

    def killed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Training(QUICK, problem, on_epoch=killed).finish()
    assert problem.folder is not None
    checkpoints = CheckpointFolder(problem.folder / "checkpoints")
    found = checkpoints.newest()
    assert found is not None
    assert found.step == STEPS // 2
    for path in checkpoints.folder.iterdir():
        path.unlink()
    facts = {name: found.facts[name] for name in ("about", "losses", "trials")}
    tensors = {name: value for name, value in found.tensors.items() if name != "loss_sum"}
    checkpoints.save(Checkpoint(step=1, facts=facts, tensors=tensors))
    QUICK.fit(problem)
    assert files(problem.folder) == straight


def test_it_says_how_far_it_is_and_refuses_with_a_sentence(workspace: Workspace) -> None:
    said: list[str] = []

    def told(command: list[str]) -> None:
        code, text = in_this_process(command[3:], main)
        said.extend([str(code), text])
        if code:
            raise ChildProcessError(code)

    probed(workspace, replace(QUICK, rate=0.1), told)
    assert said[0] == "0"
    assert "fine-tuning: 2 epochs of 48 ECGs, 6 to choose on, on cpu with fp32" in said[1]
    assert re.search(r"step 6/6  epoch 2/2  loss \d\.\d{4}  \d+ ECG/s  0:00 left", said[1])
    with pytest.raises(ChildProcessError):
        probed(workspace, replace(QUICK, rate=1e30, warmup=0), told)
    assert said[2] == str(REFUSED)
    assert said[3].splitlines()[-1] == "fine-tuning diverged in epoch 1: use a lower rate than 1e+30"


def test_a_folder_that_no_step_prepared_is_refused(tmp_path: Path) -> None:
    code, said = in_this_process(["--out", str(tmp_path / "none"), "--device", "cpu"], main)
    assert code == REFUSED
    assert f"--out {tmp_path / 'none'}: no step prepared a fine-tuning there" in said


def test_a_signal_stops_it_with_a_checkpoint(problem: FitProblem, workspace: Workspace) -> None:
    head, stopped = replace(QUICK, rate=0.05), []

    def interrupted(command: list[str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            step = Training._train_step

            def signalled(training: Training, *batch: torch.Tensor) -> torch.Tensor:
                if training.step == 2:
                    signal.raise_signal(signal.SIGTERM)
                return step(training, *batch)

            patch.setattr(Training, "_train_step", signalled)
            code, said = in_this_process(command[3:], main)
        stopped.append((code, said.splitlines()[-1]))
        raise ChildProcessError

    with pytest.raises(ChildProcessError):
        probed(workspace, head, interrupted)
    assert stopped == [(143, "fine-tuning: stopped at step 3 of 6: the same command resumes from there")]
    again: list[str] = []

    def listened(command: list[str]) -> None:
        again.append(in_this_process(command[3:], main)[1])

    assert probed(workspace, head, listened).facts["scored"]
    assert "resumed after epoch 0 of 2 and step 3 of 3" in again[0]


def test_ecgs_are_read_when_they_are_needed(workspace: Workspace) -> None:
    shards = shards_of(workspace, "ptbxl")
    stored = Signals([shard.path for shard in shards.values()])
    assert len(stored) == 60
    rows = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(stored[rows], read_signals(shards)[rows])
    np.testing.assert_array_equal(stored[np.array([58, 2])], read_signals(shards)[[58, 2]])
    assert stored[np.arange(0)].shape == (0, 8, 2500)


def test_reading_ahead_keeps_the_order_and_goes_no_further_than_it_should() -> None:
    made: list[int] = []

    def make(key: int) -> int:
        made.append(key)
        if key == 7:
            raise ValueError("seven")
        return key * key

    ahead = read_ahead(make, range(20))
    assert [next(ahead) for _ in range(4)] == [0, 1, 4, 9]
    assert len(made) <= 4 + AHEAD
    with pytest.raises(ValueError, match="seven"):
        list(ahead)
    assert len(made) <= 8 + AHEAD


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_for_real_it_goes_on_to_the_same_product(tmp_path: Path) -> None:
    """The step is killed, which stops its process with a checkpoint; then the process is killed; then it ends."""
    head = replace(QUICK, epochs=12)
    expected = probed(labelled_workspace(tmp_path / "alone", (37, 23)), head)
    workspace = labelled_workspace(tmp_path / "home", (37, 23))
    code = (
        "import sys\n"
        "from tests.pipelines.evaluate.probes.test_fine_tune_process import *\n"
        "probed(Workspace(sys.argv[1]), replace(QUICK, epochs=12), run_fine_tuning)\n"
    )
    command = [sys.executable, "-c", code, str(workspace.root)]
    checkpoints = f"probe/{TASK.name}/tiny/*.partial/checkpoints/step-*.safetensors"

    def newest() -> int:
        return max((int(path.stem[5:]) for path in workspace.root.glob(checkpoints)), default=0)

    for way in ("step", "process"):
        before = newest()
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as step:
            while step.poll() is None and newest() < before + 3:
                time.sleep(0.01)
            assert step.poll() is None, step.communicate()
            (child,) = map(int, Path(f"/proc/{step.pid}/task/{step.pid}/children").read_text().split())
            os.kill(step.pid if way == "step" else child, signal.SIGKILL)
            said = step.communicate()[1]
        if way == "step":
            assert "stopped at step" in said
        else:
            assert "TrainingEnded: fine-tuning ended with exit code -9; the same command resumes" in said
        assert newest() >= before + 3
    made = probed(workspace, head, run_fine_tuning)
    assert (made.fingerprint, made.digest) == (expected.fingerprint, expected.digest)

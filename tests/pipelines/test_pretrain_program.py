"""`python -m pipelines.pretrain` as people and machines start it: killed, stopped, damaged, refused, and gone on from."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ecg_model.encoder import load_encoder
from ecg_model.signal import LEADS
from pipelines.corpus import CorpusConfig, materialize_corpus
from pipelines.harmonize import harmonize
from pipelines.quality import QualityLimits
from pipelines.records import Record
from pipelines.stage import Workspace

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40
TINY = {
    "jepa.encoder.dim": 16,
    "jepa.encoder.depth": 2,
    "jepa.encoder.heads": 2,
    "jepa.encoder.drop_path": 0.5,  # draws from the generator, so a resume that loses its state is seen
    "jepa.predictor.dim": 8,
    "jepa.predictor.depth": 1,
    "jepa.predictor.heads": 2,
    "batch": 4,
    "steps": STEPS,
}


def waves(at: int) -> Record:
    """Beats at a rate of the record's own, of another size in each lead."""
    rng = np.random.default_rng(at)
    time_T = np.arange(2500) / 250
    phase_T = (time_T * rng.uniform(0.8, 2.0)) % 1.0 - 0.5
    beat_T = np.exp(-((phase_T / 0.03) ** 2)) + 0.2 * np.exp(-(((phase_T - 0.25) / 0.08) ** 2))
    x_LT = rng.uniform(0.3, 1.2, (8, 1)) * beat_T + 0.02 * rng.standard_normal((8, 2500))
    return Record(record_id=f"r{at}", signal_LT=x_LT.astype(np.float32), leads=LEADS, rate=250)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A workspace with 30 ECGs, and its corpus."""
    root = tmp_path_factory.mktemp("home")
    workspace = Workspace(root)

    def make(out: Path) -> dict[str, object]:
        counts = harmonize([waves(at) for at in range(30)], out, source="chapman", limits=QualityLimits())
        return {**counts.facts(), "role": "pretraining"}

    workspace.build("ecgs/chapman/01", version="1", config={}, inputs={}, make=make)
    return root, materialize_corpus(workspace, CorpusConfig(validation_share=0.2)).path


class Program:
    """The command line of a tiny run into one folder."""

    def __init__(self, home: tuple[Path, Path], out: Path) -> None:
        self.home, self.out = home, out

    def command(self, *options: str, **changes: object) -> list[str]:
        fields = [f"--set={name}={value}" for name, value in (TINY | changes).items()]
        places = ["--workspace", str(self.home[0]), "--corpus", str(self.home[1]), "--out", str(self.out)]
        return [sys.executable, "-m", "pipelines.pretrain", *places, "--device", "cpu", *fields, *options]

    def run(self, *options: str, **changes: object) -> subprocess.CompletedProcess[str]:
        command = self.command("--checkpoint-every", "3", *options, **changes)
        return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)

    def interrupted(self, number: int, steps: int) -> tuple[int, str]:
        """Start it, send it a signal once it has logged `steps`, and return its exit code and what it said."""
        command = self.command("--checkpoint-every", "3")
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            watchdog = threading.Timer(120, process.kill)
            watchdog.start()
            while process.poll() is None and self.logged() < steps:
                time.sleep(0.002)
            process.send_signal(number)
            said = process.communicate()[1]
            watchdog.cancel()
        return process.returncode, said

    def logged(self) -> int:
        lines = self.metrics()
        return int(lines[-1]["step"]) if lines else 0

    def metrics(self) -> list[dict[str, float]]:
        path = self.out / "aside" / "metrics.jsonl"
        whole = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.is_file() else []
        return [json.loads(line) for line in whole]

    def checkpoints(self) -> list[Path]:
        return sorted((self.out / "aside" / "checkpoints").glob("step-*.safetensors"))

    def step(self, checkpoint: Path) -> int:
        return int(checkpoint.stem.removeprefix("step-"))


def environment() -> dict[str, str]:
    dropped = ("MLFLOW_TRACKING_URI", "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES")
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"OMP_NUM_THREADS": "1"}


def products(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}


def lasting(lines: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Lines of the metrics without what depends on the day."""
    passing = {"time", "samples_per_second", "peak_memory_mb"}
    return [{name: value for name, value in line.items() if name not in passing} for line in lines]


@pytest.fixture(scope="module")
def whole(home: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A run that nothing interrupted."""
    program = Program(home, tmp_path_factory.mktemp("whole"))
    done = program.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(program.out / "encoder.safetensors")
    assert f"step {STEPS}/{STEPS}" in done.stderr
    return program


def test_a_run_leaves_its_products_and_the_newest_two_checkpoints(whole: Program) -> None:
    assert set(products(whole.out)) == {"encoder.safetensors", "summary.json"}
    assert load_encoder(whole.out / "encoder.safetensors").config.dim == 16
    summary = json.loads((whole.out / "summary.json").read_text())
    assert summary["steps"] == STEPS
    assert summary["recipe"]["jepa"]["encoder"]["dim"] == 16
    assert summary["first"]["loss"] > summary["last"]["loss"] > 0
    assert [whole.step(path) for path in whole.checkpoints()] == [39, 40]
    for path in whole.checkpoints():
        subprocess.run(
            ["sha256sum", "--check", f"{path.name}.sha256"], cwd=path.parent, check=True, capture_output=True
        )
    steps = [line["step"] for line in whole.metrics()]
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (1, STEPS)
    assert {"validation_loss", "embedding_std", "effective_rank", "target_std", "gradient_norm"} <= set(
        whole.metrics()[0]
    )


@pytest.mark.parametrize(("number", "steps"), [(signal.SIGKILL, 1), (signal.SIGKILL, 23), (signal.SIGTERM, 11)])
def test_a_run_that_was_interrupted_ends_with_the_same_bytes(
    home: tuple[Path, Path], whole: Program, tmp_path: Path, number: int, steps: int
) -> None:
    program = Program(home, tmp_path)
    code, said = program.interrupted(number, steps)
    assert not (tmp_path / "encoder.safetensors").exists()
    if number == signal.SIGTERM:
        assert code == 128 + signal.SIGTERM
        stopped_at = int(re.findall(r"stopped at step (\d+)", said)[0])
        assert program.step(program.checkpoints()[-1]) == stopped_at
    else:
        assert code == -signal.SIGKILL
    again = program.run()
    assert again.returncode == 0, again.stderr
    assert products(tmp_path) == products(whole.out)
    assert lasting(program.metrics()) == lasting(whole.metrics())
    theirs, ours = whole.checkpoints()[-1].read_bytes(), program.checkpoints()[-1].read_bytes()
    assert len(theirs) and tensors_of(ours) == tensors_of(theirs)


def tensors_of(checkpoint: bytes) -> bytes:
    """All after the header of a safetensors file, which holds the seconds."""
    return checkpoint[8 + int.from_bytes(checkpoint[:8], "little") :]

"""A tiny corpus, and `python -m pipelines.pretrain` on it."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from ecg_model.leads import LEADS
from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.harmonize.convert import harmonize
from pipelines.harmonize.quality import QualityLimits
from pipelines.pretrain.__main__ import main
from pipelines.pretrain.data import Corpus, Resident
from pipelines.pretrain.recipes import Recipe, recipe_named
from pipelines.records import Record
from tests.support.paths import ROOT

STEPS = 40
TINY = {
    "jepa.encoder.dim": 16,
    "jepa.encoder.depth": 2,
    "jepa.encoder.heads": 2,
    "jepa.encoder.drop_path": 0.5,
    "jepa.predictor.dim": 8,
    "jepa.predictor.depth": 1,
    "jepa.predictor.heads": 2,
    "batch": 4,
    "steps": STEPS,
}
_TINY_S4 = {
    "samples": 625,
    "token_samples": 25,
    "stem_kernel": 25,
    "stem_dim": 8,
    "stem_depth": 2,
    "dim": 16,
    "depth": 2,
    "state": 4,
}
_TINY_CPC = _TINY_S4 | {"leads": 12, "rate": 240, "samples": 600, "token_samples": 24}  # so that more is on the way
PAIRS: dict[str, tuple[str, dict[str, object]]] = {
    "jepa": ("demo", TINY),
    "cpc": (
        "small_cpc",
        {f"cpc.encoder.{name}": value for name, value in _TINY_CPC.items()}
        | {"cpc.horizon": 3, "cpc.negatives": 8, "batch": 4, "steps": STEPS},
    ),
    "jepa_s4": (
        "small_s4",
        {f"jepa.encoder.{name}": value for name, value in _TINY_S4.items()}
        | {"jepa.predictor.state": 4, "batch": 4, "steps": STEPS},
    ),
}
"""Each pair of an encoder and an objective: a recipe, and the changes that make it tiny."""


def waves(at: int) -> Record:
    """Beats at a rate of the record's own, of another size in each lead."""
    rng = np.random.default_rng(at)
    time_T = np.arange(2500) / 250
    phase_T = (time_T * rng.uniform(0.8, 2.0)) % 1.0 - 0.5
    beat_T = np.exp(-((phase_T / 0.03) ** 2)) + 0.2 * np.exp(-(((phase_T - 0.25) / 0.08) ** 2))
    x_LT = rng.uniform(0.3, 1.2, (8, 1)) * beat_T + 0.02 * rng.standard_normal((8, 2500))
    return Record(record_id=f"r{at}", signal_LT=x_LT.astype(np.float32), leads=LEADS, rate=250)


def small_home(root: Path, ecgs: int = 30, labels: Sequence[str] = ()) -> tuple[Path, Path]:
    """A workspace with some ECGs, every second one with these labels, and its corpus."""
    workspace = Workspace(root)

    def make(out: Path) -> dict[str, object]:
        records = [replace(waves(at), labels=tuple(labels) if at % 2 else ()) for at in range(ecgs)]
        counts = harmonize(records, out, source="chapman", limits=QualityLimits())
        return {**counts.facts(), "role": "pretraining"}

    workspace.build("ecgs/chapman/01", version="1", config={}, inputs={}, make=make)
    return root, materialize_corpus(workspace, CorpusConfig(validation_share=0.2)).path


def in_this_process(arguments: Sequence[str], program: Callable[[Sequence[str]], int] = main) -> tuple[int, str]:
    """The program's exit code and what it says; what it sets for its process is undone."""
    root, signals, said = logging.getLogger(), (signal.SIGTERM, signal.SIGINT), io.StringIO()
    before = root.handlers[:], root.level, [signal.getsignal(number) for number in signals]
    root.handlers = []  # those of pytest: the program closes what it finds
    try:
        with redirect_stderr(said), patch.dict(os.environ, environment(), clear=True):
            code = program(arguments)
    finally:
        root.handlers, root.level = before[0], before[1]
        for number, handler in zip(signals, before[2], strict=True):
            signal.signal(number, handler)
    return code, said.getvalue()


class Program:
    """The command line of a tiny run into one folder. pair: one of PAIRS."""

    def __init__(self, home: tuple[Path, Path], out: Path, pair: str = "jepa") -> None:
        self.home, self.out, self.pair = home, out, pair

    def command(self, *options: str, **changes: object) -> list[str]:
        recipe, tiny = PAIRS[self.pair]
        fields = [f"--recipe={recipe}", *(f"--set={name}={value}" for name, value in (tiny | changes).items())]
        places = ["--workspace", str(self.home[0]), "--corpus", str(self.home[1]), "--out", str(self.out)]
        return [sys.executable, "-m", "pipelines.pretrain", *places, "--device", "cpu", *fields, *options]

    def run(self, *options: str, **changes: object) -> subprocess.CompletedProcess[str]:
        command = self.command("--checkpoint-every", "3", *options, **changes)
        return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)

    def here(self, *options: str, **changes: object) -> tuple[int, str]:
        return in_this_process(self.command(*options, **changes)[3:])

    def wait_for(self, process: subprocess.Popen[str], steps: int) -> None:
        """Until a running process has logged `steps`, or has ended."""
        while process.poll() is None and self.logged() < steps:
            time.sleep(0.002)

    def interrupted(self, number: int, steps: int, until_it_ends: bool = False) -> tuple[int, str]:
        """Start it, send it a signal once it has logged `steps`, and return its exit code and what it said.

        until_it_ends: send the signal again and again.
        """
        command = self.command("--checkpoint-every", "3")
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            watchdog = threading.Timer(120, process.kill)
            watchdog.start()
            self.wait_for(process, steps)
            process.send_signal(number)
            while until_it_ends and process.poll() is None:
                time.sleep(0.02)
                process.send_signal(number)
            said = process.communicate()[1]
            watchdog.cancel()
        return process.returncode, said

    def logged(self) -> int:
        lines = self.metrics()
        return int(lines[-1]["step"]) if lines else 0

    @property
    def metrics_file(self) -> Path:
        return self.out / "aside" / "metrics.jsonl"

    def metrics(self) -> list[dict[str, float]]:
        text = self.metrics_file.read_bytes() if self.metrics_file.is_file() else b""
        return [json.loads(line) for line in text.rpartition(b"\n")[0].splitlines()]

    def checkpoints(self) -> list[Path]:
        return sorted((self.out / "aside" / "checkpoints").glob("step-*.safetensors"))

    def step(self, checkpoint: Path) -> int:
        return int(checkpoint.stem.removeprefix("step-"))


def lasting(lines: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Lines of the metrics without what depends on the day."""
    passing = {"time", "samples_per_second", "utilisation", "waited_share", "peak_memory_mb"}
    return [{name: value for name, value in line.items() if name not in passing} for line in lines]


def tensors_of(checkpoint: Path) -> bytes:
    """All after the header of a safetensors file; the header also holds the seconds."""
    data = checkpoint.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :]


def environment() -> dict[str, str]:
    dropped = ("MLFLOW_TRACKING_URI", "DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES")
    return {name: value for name, value in os.environ.items() if name not in dropped} | {"OMP_NUM_THREADS": "1"}


CPU = torch.device("cpu")
TINY_RECIPE = recipe_named(
    "demo",
    {
        "jepa.encoder.dim": 16,
        "jepa.encoder.depth": 2,
        "jepa.encoder.heads": 2,
        "jepa.encoder.patch_init_scale": 1,  # targets that are mostly position, which even noise lets it predict
        "jepa.predictor.dim": 8,
        "jepa.predictor.depth": 1,
        "jepa.predictor.heads": 2,
        "batch": 4,
        "steps": 6,
        "precision": "fp32",
    },
)
TINY_RECIPES = {
    pair: TINY_RECIPE if pair == "jepa" else recipe_named(name, tiny | {"steps": 6, "precision": "fp32"})
    for pair, (name, tiny) in PAIRS.items()
}
"""A recipe of each pair for trainings in this process."""


def corpus(train: int = 10, validation: int = 5) -> Corpus:
    generator = torch.Generator().manual_seed(0)
    signal_NLT = torch.randint(-900, 900, (train + validation, 8, 2500), generator=generator, dtype=torch.int16)
    return Corpus(
        train=Resident(signal_NLT[:train]),
        chunk_N=np.zeros(train, np.int64),
        validation_NLT=signal_NLT[train:],
        names=[f"chapman/JS{row:05d}" for row in range(train)],
        digest="0" * 64,
    )


def changes_of(recipe: Recipe) -> dict[str, object]:
    demo = recipe_named("demo").to_dict()

    def leaves(values: dict[str, object], path: str = "") -> dict[str, object]:
        found: dict[str, object] = {}
        for name, value in values.items():
            found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
        return found

    before = leaves(demo)
    return {name: value for name, value in leaves(recipe.to_dict()).items() if before[name] != value}

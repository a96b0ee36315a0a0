"""Fine-tuning in a process of its own: what the step hands over to it, and takes back.

    CHECKPOINTS/problem.safetensors   targets and rows; in its metadata the head's settings and the shards' folders
    CHECKPOINTS/start.safetensors     the encoder to train
    CHECKPOINTS/trials.json           the scores of the epochs, at the end

The process is `fine_tune_program`. It resumes from its last checkpoint if it was stopped or killed, and writes the
files of `tuned_network`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save

from ecg_model.encoder_file import encoder_bytes, load_encoder
from pipelines.durable import write_atomically
from pipelines.evaluate.probes.heads import CHECKPOINTS, Fit, FitProblem
from pipelines.evaluate.probes.result import Trial
from pipelines.evaluate.probes.signals import Signals
from pipelines.evaluate.probes.tuned_network import FineTunedClassifier

PROGRAM = "pipelines.evaluate.probes.fine_tune_program"

_PROBLEM = f"{CHECKPOINTS}/problem.safetensors"
_START = f"{CHECKPOINTS}/start.safetensors"
_TRIALS = f"{CHECKPOINTS}/trials.json"
_ARRAYS = ("y_NC", "train", "validation")
_VALUES = ("multi_class", "seed", "min_positives")


def fit_in_process(settings: dict[str, Any], problem: FitProblem, device: torch.device) -> Fit:
    """Fine-tune by the problem's `launch`, and return the model that the process wrote.

    settings: of the head, as its `to_dict` gives them
    """
    assert problem.launch is not None
    assert problem.folder is not None
    _hand_over(settings, problem)
    problem.launch([sys.executable, "-m", PROGRAM, "--out", str(problem.folder), "--device", str(device)])
    model = FineTunedClassifier.read(problem.folder, multi_class=problem.multi_class, device=device)
    trials = json.loads((problem.folder / _TRIALS).read_text())
    return Fit(model=model, trials=tuple(Trial(**trial) for trial in trials))


def _hand_over(settings: dict[str, Any], problem: FitProblem) -> None:
    assert problem.folder is not None
    assert problem.encoder is not None
    assert isinstance(problem.x, Signals)
    about = {
        "settings": settings,
        "shards": [str(folder.absolute()) for folder in problem.x.folders],
        **{name: getattr(problem, name) for name in _VALUES},
    }
    arrays = {name: np.ascontiguousarray(getattr(problem, name)) for name in _ARRAYS}
    write_atomically(problem.folder / _START, encoder_bytes(problem.encoder()))
    write_atomically(problem.folder / _PROBLEM, save(arrays, metadata={"problem": json.dumps(about)}))


def taken_over(folder: Path) -> tuple[dict[str, Any], FitProblem]:
    """Return the settings and the problem that a step handed over in a folder. Raises ValueError if there is none."""
    if not (folder / _PROBLEM).is_file():
        raise ValueError(f"--out {folder}: no step prepared a fine-tuning there; `ecg evaluate` does it")
    with safe_open(folder / _PROBLEM, framework="numpy") as stored:
        about = json.loads(stored.metadata()["problem"])
        arrays = {name: stored.get_tensor(name) for name in _ARRAYS}
    return about["settings"], FitProblem(
        x=Signals([Path(shard) for shard in about["shards"]]),
        encoder=lambda: load_encoder(folder / _START),
        folder=folder,
        **{name: about[name] for name in _VALUES},
        **arrays,
    )


def hand_back(folder: Path, trials: list[Trial]) -> None:
    """Write the scores of the epochs, once the files of the network are there."""
    write_atomically(folder / _TRIALS, json.dumps([asdict(trial) for trial in trials]).encode())

"""The example trains on the labels of the store and on a csv, and prints what it found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.finding import Finding
from pipelines.release.aliases import promote
from pipelines.release.gate import GateVerdict
from pipelines.release.model import Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import record, release_packaged
from pipelines.tracking import Tracking
from tests.support.labelled_shards import labelled_workspace
from tests.support.paths import ROOT

SMALL = EncoderConfig(dim=48, depth=2, heads=2, input_scale=5.0, patch_init_scale=7.0)


def run(store: Tracking, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MLFLOW_TRACKING_URI": store.uri, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "fine_tune_pytorch.py"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_learns_the_labels_of_the_store_and_those_of_a_csv(
    tmp_path: Path, new_store: Callable[[Path], Tracking]
) -> None:
    ecgs = str(labelled_workspace(tmp_path / "home", (150, 50)).root / "ecgs" / "ptbxl")
    store, weights = new_store(tmp_path), tmp_path / "encoder.safetensors"
    save_encoder(weights, random_encoder(SMALL, 0))
    about = {"provenance": {}, "recipe": {}, "git_commit": "g", "tracking": store}
    released = release_packaged(packaged_encoder(weights), Scores(), **about)
    passed = GateVerdict(against=None, rules={"not_worse": Finding.passed("the first")})
    promote(record(released, passed, tracking=store), tracking=store)

    done = run(store, "--source", ecgs, "--epochs", "4", "--least", "3", "--out", str(tmp_path / "tuned.safetensors"))
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower(), done.stderr
    assert "140 ECGs to train, 20 to validate, 40 to test; labels: CLBBB, NORM" in done.stdout
    *_, result, out = done.stdout.splitlines()
    validation, test = map(float, re.findall(r"AUC (\d\.\d+)", result))
    assert validation > 0.9
    assert test > 0.9
    assert {"encoder.patch.weight", "layer.weight"} <= load_file(out).keys()

    labels = tmp_path / "labels.csv"
    labels.write_text("record_id,label\n" + "".join(f"{i},{'block' if i % 3 == 0 else 'none'}\n" for i in range(90)))
    mine = run(store, "--source", ecgs, "--labels", str(labels), "--epochs", "1", "--least", "2")
    assert mine.returncode == 0, mine.stderr
    assert "90 of 90 labelled records are among the 200 ECGs" in mine.stdout
    assert "62 ECGs to train, 10 to validate, 18 to test; labels: block, none" in mine.stdout
    too_few = run(store, "--source", ecgs, "--labels", str(labels), "--least", "50")
    assert too_few.returncode == 1
    assert "no label has 50 ECGs with it and without it in each part" in too_few.stderr

"""The best encoder of a run: the same after a kill at any point as without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import load_encoder, random_encoder
from pipelines.pretrain.best_encoder import BEST_FACTS, BEST_FILE, load_best, store_if_best

TINY = EncoderConfig(dim=16, depth=1, heads=2)


def of_step(step: int) -> Encoder:
    return random_encoder(TINY, seed=step)


def stored_step(out: Path, steps: range = range(20)) -> int:
    """Which of `of_step` lies in best.safetensors."""
    stored = load_encoder(out / BEST_FILE).patch.weight
    return next(step for step in steps if torch.equal(of_step(step).patch.weight, stored))


def run(out: Path, scores: dict[int, float], start: int = 0) -> dict[str, float]:
    best = load_best(out, step=start)
    for step, score in scores.items():
        if step > start:
            best = store_if_best(out, of_step(step), {"step": step, "probe_auc": score}, best)
    return best


def test_the_highest_score_is_kept_and_of_equals_the_first(tmp_path: Path) -> None:
    best = run(tmp_path, {1: 0.5, 2: 0.7, 3: float("nan"), 4: 0.8, 5: 0.8, 6: 0.6})
    assert best == {"step": 4, "probe_auc": 0.8}
    assert stored_step(tmp_path) == 4
    facts = json.loads((tmp_path / BEST_FACTS).read_text())
    assert {name: facts[name] for name in best} == best
    assert {path.name for path in tmp_path.iterdir()} == {BEST_FILE, BEST_FACTS}
    assert load_best(tmp_path, step=6) == best


def test_without_a_score_that_is_a_number_nothing_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path, {1: float("nan")}) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_begins_forgets_an_earlier_ones_best(tmp_path: Path) -> None:
    run(tmp_path, {1: 0.9})
    assert run(tmp_path, {2: 0.6, 3: 0.7}) == {"step": 3, "probe_auc": 0.7}
    assert stored_step(tmp_path) == 3


def test_a_best_of_after_the_checkpoint_stays_when_its_step_scores_otherwise(tmp_path: Path) -> None:
    """As on a GPU, where the steps that are done again differ in their last bits."""
    run(tmp_path, {2: 0.7, 4: 0.8})
    best = run(tmp_path, {4: 0.79, 6: 0.795}, start=3)
    assert best == {"step": 4, "probe_auc": 0.8}
    assert stored_step(tmp_path) == 4


def test_a_damaged_file_is_said_and_the_best_is_looked_for_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, {1: 0.9})
    path = tmp_path / BEST_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run(tmp_path, {2: 0.6}, start=1) == {"step": 2, "probe_auc": 0.6}
    assert "best.safetensors is not the file that best.json describes" in caplog.text
    assert stored_step(tmp_path) == 2


# A child process works until its n-th rename or removal of a file and dies there; another goes on from its checkpoint.
_KILLED = """
import json, os, sys
from pathlib import Path
from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder
from pipelines.pretrain.best_encoder import store_if_best, load_best

CONFIG = EncoderConfig(dim=16, depth=1, heads=2)
SCORES = [0.5, 0.6, 0.8, 0.8, 0.7, 0.9]

def run(out, behind):
    checkpoint = out.with_suffix(".checkpoint")
    start = max(0, int(checkpoint.read_text()) - behind) if checkpoint.is_file() else 0
    best = load_best(out, step=start)
    for step in range(start + 1, len(SCORES) + 1):
        figures = {"step": step, "probe_auc": SCORES[step - 1]}
        best = store_if_best(out, random_encoder(CONFIG, seed=step), figures, best)
        if step % 2 == 0:
            checkpoint.write_text(str(step))

def dies_at(number):
    left = [number]
    def hook(event, arguments):
        if event in ("os.rename", "os.remove"):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
    sys.addaudithook(hook)

def in_a_child(out, behind, dies=None):
    child = os.fork()
    if child == 0:
        if dies is not None:
            dies_at(dies)
        run(out, behind)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

root, kills = Path(sys.argv[1]), 0
(root / "undisturbed").mkdir()
assert in_a_child(root / "undisturbed", 0) == 0
while True:
    outs = [root / f"{kills}-{behind}" for behind in (0, 2)]
    codes = []
    for out, behind in zip(outs, (0, 2)):
        out.mkdir()
        codes.append(in_a_child(out, behind, dies=kills + 1))
        assert in_a_child(out, behind) == 0
    if codes == [0, 0]:
        break
    assert codes == [9, 9]
    kills += 1
print(kills)
"""


@pytest.mark.slow
def test_killed_anywhere_a_run_ends_with_the_same_best(tmp_path: Path) -> None:
    """At each change of a file; and it goes on from the newest checkpoint as well as from the one before."""
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], capture_output=True, text=True, check=True)
    kills = int(done.stdout)
    assert kills >= 3 * 4  # four times there was a better one
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(folders) == 1 + 2 * (kills + 1)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
    assert set(expected) == {BEST_FILE, BEST_FACTS}
    assert json.loads(expected[BEST_FACTS])["step"] == 6
    for folder in folders:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected, folder.name

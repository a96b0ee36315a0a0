"""`ecg run`: what it makes is what the assets make; each wrong turn is one sentence and an exit code."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from orchestration.demo import run as run_job
from orchestration.jobs import harvest_job_name
from pipelines.cache import Workspace
from pipelines.cli import road
from pipelines.cli.run import CHECK_FAILED, NAMES
from pipelines.home import Home
from pipelines.tracking import Tracking
from tests.support.commands import ECG, ecg
from tests.support.pretraining import TINY, in_this_process, small_home
from tests.support.registered import write_drop


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("downlaod", 2, "'downlaod' is not one of 'download', 'harmonize', 'corpus'"),
        ("harmonize", 1, "nothing is downloaded: run `ecg run download` first"),
        ("corpus", 1, "no harmonized ECGs: run `ecg run download harmonize` first"),
        ("pretrain", 1, "no corpus: run `ecg run corpus` first"),
        ("evaluate", 1, "no encoder: run `ecg run pretrain` first, or `ecg add-encoder DIR`"),
        ("release", 1, "no encoder: run `ecg run pretrain` first"),
        ("download", 1, "nothing to download was named, and the original hosts have tens of gigabytes"),
        ("download --partition nowhere/1", 1, "no source 'nowhere': use one of chapman, code15"),
        ("download --partition chapman/99", 1, "chapman has no partition '99': use one of 01, 02"),
        ("download --partition incoming/..", 1, "drop '..': use 1 to 64 letters"),
        ("harmonize --partition ludb/all", 1, "nothing is downloaded: run `ecg run download` first"),
        ("corpus --partition ludb/all", 2, "--partition is of the steps download and harmonize"),
        ("corpus --recipe small", 2, "--recipe is of the step pretrain"),
        ("all --recipe huge", 1, "recipe 'huge': use demo, small, paper_block, paper_random"),
        ("all --set epoks=3", 1, "epoks: Recipe has no field 'epoks': use name, jepa, cpc, batch, epochs"),
        ("all --set epochs", 1, "--set 'epochs': write FIELD=VALUE"),
        ("all --set batch=0", 1, "batch=0: use at least 1 ECG"),
        ("all --set harmonize.amplitude=99", 1, "harmonize.amplitude=99: the value should be less than or equal to 32"),
        ("all --set harmonize.amplitude=high", 1, "harmonize.amplitude=high: the value should be a valid number"),
        ("all --set corpus.shuffle=1", 1, "corpus has no setting 'shuffle': use validation_share, seed, sources"),
        ("all --set corpus.unlabelled_folds=9", 1, "unlabelled_folds (9,): use folds of 1 to 8"),
        ("all --set corpus.sources=nowhere", 1, "no source 'nowhere': use chapman, code15"),
        ("all --set corpus.base=mine", 1, "corpus.base=mine: the value should be 'champion' or 'defaults'"),
        ("all --set pretrain.device=gpu", 1, "device 'gpu': use auto, cpu, cuda or cuda:N"),
        ("all --set pretrain.accumulate=5", 1, "batch=32 cannot be shared out evenly"),
        ("all --set release.gate_task=mine", 1, "gate_task 'mine': use ptbxl_superclass, cpsc2018"),
        ("all --set release.probes=quadratic=1", 1, "probes: 'quadratic': variant 'quadratic' of ptbxl_superclass"),
        ("all --set release.probes=linear", 1, "release.probes=linear: the value should be a valid number"),
        ("all --set release.probes={linear:0}", 1, "give at least one a weight above 0, such as linear: 1"),
        ("corpus --set epochs=3", 1, "it is of the step pretrain, which is not run: name that step, too"),
        ("pretrain --set corpus.seed=1", 1, "it is of the step corpus, which is not run: name that step, too"),
    ],
)
def test_a_wrong_turn_is_one_sentence(home: Home, words: str, code: int, sentence: str) -> None:
    shown = ecg("run", *words.split())
    assert shown.exit_code == code
    assert sentence in shown.stderr
    assert not [path for path in home.root.rglob("*") if path.name == "done.json"]


def digests(workspace: Workspace) -> dict[str, tuple[str, str]]:
    products = [product for kind in ("raw", "ecgs") for product in workspace.listed(f"{kind}/*/*").values()]
    return {product.name: (product.fingerprint, product.digest) for product in products}


def test_the_asset_finds_what_the_command_made_and_the_other_way_round(home: Home, mirror: Path) -> None:
    home.set_mirror(str(mirror))
    part = ("--partition", "chapman/01")
    shown = ecg("run", "harmonize", "download", *part, "--set", "harmonize.amplitude=20")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert (lines[0], lines[-1]) == ("download", "next: ecg run corpus")
    assert shown.stdout.count("done in") == 2
    with dg.DagsterInstance.ephemeral() as instance:
        made = run_job(harvest_job_name("chapman"), instance, partition="01")
    assert {one.name: one.metadata["cached"] for one in made} == {"raw/chapman": True, "ecgs/chapman": False}
    by_assets = digests(home.workspace())
    shown = ecg("run", "download", "harmonize", *part)
    assert shown.stdout.count("found in the cache") == 2
    assert digests(home.workspace()) == by_assets
    assert str(home.workspace().require("ecgs/chapman/01").path) in shown.stdout


def test_one_partition_that_is_refused_does_not_keep_the_others(home: Home, mirror: Path) -> None:
    home.set_mirror(str(mirror))
    shown = ecg("run", "download", "harmonize", "--partition", "chapman/46", "--partition", "ludb")
    assert shown.exit_code == 1
    assert "raw/chapman/46: refused: partition 46 of chapman: the list of the mirror" in shown.stderr
    assert "download: 1 were refused, first raw/chapman/46" in shown.stderr
    assert list(digests(home.workspace())) == ["raw/ludb/all"]
    shown = ecg("run", "harmonize", "--partition", "chapman/01")
    assert shown.exit_code == 1
    assert "no raw/chapman/01: run `ecg run download --partition chapman/01` first" in shown.stderr


def test_drops_are_taken_where_ecgs_are_recorded_and_named_where_they_are_simulated(home: Home, mirror: Path) -> None:
    write_drop(home, "ward-7")
    write_drop(home, "half", complete=False)
    shown = ecg("run", "download")
    assert shown.exit_code == 0, shown.output
    assert list(digests(home.workspace())) == ["raw/incoming/ward-7"]
    home.set_mirror(str(mirror))
    shown = ecg("run", "download", "--partition", "ludb", "--partition", "incoming")
    assert shown.exit_code == 0, shown.output
    assert list(digests(home.workspace())) == ["raw/ludb/all"]
    shown = ecg("run", "download")
    assert "own ECGs are not mixed with simulated ones, so drops are left out: ward-7" in shown.stderr


def test_a_corpus_of_ptbxl_alone_is_of_its_training_folds_without_labels(
    home: Home, ptbxl_home: Path, new_store: Callable[[Path], Tracking]
) -> None:
    new_store(home.root / "mlflow")
    shutil.copytree(ptbxl_home / "home", home.root, dirs_exist_ok=True)
    shown = ecg("run", "corpus")
    assert shown.exit_code == 0, shown.output
    assert "the encoder is pretrained on PTB-XL's training folds, without their labels" in shown.stderr
    assert home.workspace().require("corpus").config["unlabelled_folds"] == [1, 2, 3, 4, 5, 6, 7]
    refused = ecg("run", "corpus", "--set", "corpus.sources=chapman")
    assert refused.exit_code == 1
    assert "no harmonized pretraining shard of chapman" in refused.stderr


TINY_RUN = [f"--set={name}={value}" for name, value in (TINY | {"steps": 1}).items()]


def test_a_check_that_fails_stops_what_follows_with_its_own_code(
    home: Home, new_store: Callable[[Path], Tracking], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one step no loss falls."""
    new_store(home.root / "mlflow")
    small_home(home.workspace().root)
    monkeypatch.setattr(road, "run_pretraining", lambda command: in_this_process(command[3:]))
    for cached in ("done in", "found in the cache"):
        shown = ecg("run", "pretrain", "evaluate", *TINY_RUN)
        assert shown.exit_code == CHECK_FAILED
        assert "FAILED   loss_finite_and_falling_and_not_collapsed: loss" in shown.stdout
        assert "the loss did not fall, train for more steps" in shown.stdout
        assert cached in shown.stdout
        assert "evaluate" not in shown.stdout
        assert "nothing after it is done" in shown.stderr


def test_the_steps_are_those_of_the_road() -> None:
    assert tuple(road.STEPS) == NAMES


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_training_ends_with_the_signal_and_goes_on(
    home: Home, new_store: Callable[[Path], Tracking], tmp_path: Path
) -> None:
    new_store(home.root / "mlflow")
    small_home(home.workspace().root)
    command = [str(ECG), "run", "pretrain", *TINY_RUN[:-1], "--set=steps=1500", "--set=pretrain.device=cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 300
        while not list(home.workspace().root.glob("encoder/*.partial/aside/metrics.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped: what is finished stays; the same command goes on from there" in said
    assert home.workspace().current("encoder") is None
    assert list(home.workspace().root.glob("encoder/*.partial/aside/checkpoints/step-*.safetensors"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = process.communicate(timeout=300)[1]
    assert process.returncode in (0, CHECK_FAILED), said
    assert "going on from step" in said
    assert home.workspace().current("encoder") is not None

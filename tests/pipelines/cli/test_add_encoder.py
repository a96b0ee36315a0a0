"""`ecg add-encoder`: a training of the shell becomes the product that the asset would have made, or is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ecg_model.encoder_file import load_encoder, save_encoder
from pipelines.cache import Workspace
from pipelines.cli.run import CHECK_FAILED
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.home import Home
from pipelines.pretrain import take_up as module
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import EXPERIMENT, materialize_encoder
from pipelines.pretrain.take_up import take_up
from pipelines.tracking import Tracking
from tests.support.commands import ecg
from tests.support.pretraining import TINY, Program, small_home

CHANGES = TINY | {"steps": 3, "probe_epochs": "none"}
RECIPE = recipe_named("demo", CHANGES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The workspace of a small home, and the folder of a training on its corpus."""
    root = tmp_path_factory.mktemp("trained")
    program = Program(small_home(root / "space"), root / "out")
    code, said = program.here(**CHANGES)
    assert code == 0, said
    return root / "space", root / "out"


@pytest.fixture
def here(home: Home, trained: tuple[Path, Path], tmp_path: Path) -> Path:
    """The folder of the training, in a home that has its corpus."""
    shutil.copytree(trained[0], home.workspace().root)
    shutil.copytree(trained[1], tmp_path / "out")
    return tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_sha256sum_knows_the_files_of_a_training(trained: tuple[Path, Path]) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "aside/sha256sums"], cwd=trained[1], capture_output=True, text=True, check=True
    )
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {
        "encoder.safetensors",
        "summary.json",
        "aside/metrics.jsonl",
    }


def test_it_becomes_the_product_of_its_recipe_and_corpus(
    home: Home, workspace: Workspace, here: Path, new_store: Callable[[Path], Tracking]
) -> None:
    store, before = new_store(home.root / "mlflow"), contents(here)
    shown = ecg("add-encoder", here)
    assert shown.exit_code == 0, shown.output
    assert "recipe    demo, 3 steps" in shown.stdout
    assert "next: ecg run evaluate release" in shown.stdout
    assert "note" not in shown.stdout
    assert contents(here) == before, "the folder is the user's"

    def launch(command: list[str]) -> None:
        raise AssertionError("it is found, and not trained again")

    encoder = materialize_encoder(workspace, RECIPE, launch)
    assert encoder.cached
    assert encoder.facts == json.loads((here / "summary.json").read_text())
    assert not list((encoder.path / "aside").glob("checkpoints/*"))
    runs = store.client().search_runs([store.client().get_experiment_by_name(EXPERIMENT).experiment_id])
    assert [run.data.metrics["loss"] for run in runs] == [encoder.facts["last"]["loss"]]
    again = ecg("add-encoder", here)
    assert (again.exit_code, "here already" in again.stdout) == (0, True)


def test_a_training_whose_check_failed_is_taken_up_and_says_so(
    home: Home, workspace: Workspace, tmp_path: Path, new_store: Callable[[Path], Tracking]
) -> None:
    """In one step no loss falls."""
    new_store(home.root / "mlflow")
    program = Program(small_home(workspace.root), tmp_path / "out")
    code, said = program.here(**CHANGES | {"steps": 1})
    assert code == 0, said
    shown = ecg("add-encoder", tmp_path / "out")
    assert shown.exit_code == CHECK_FAILED
    assert "FAILED" in shown.stdout
    assert "the loss did not fall, train for more steps" in shown.stdout
    assert "next" not in shown.stdout


def end_it_early(out: Path) -> None:
    (out / "summary.json").unlink()


def forget_the_sums(out: Path) -> None:
    (out / "aside" / "sha256sums").unlink()


def lose_the_metrics(out: Path) -> None:
    (out / "aside" / "metrics.jsonl").unlink()


def change_a_weight(out: Path) -> None:
    encoder = load_encoder(out / "encoder.safetensors")
    with torch.no_grad():
        encoder.patch.weight[0, 0] += 1
    save_encoder(out / "encoder.safetensors", encoder)


def change_the_summary(out: Path) -> None:
    text = (out / "summary.json").read_text()
    (out / "summary.json").write_text(text.replace('"steps": 3', '"steps": 5'))


def point_elsewhere(out: Path) -> None:
    (out / "aside" / "sha256sums").write_text("0" * 64 + "  ../../etc/passwd\n")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (end_it_early, "the training has not ended: give the training's command again, with --out"),
        (
            forget_the_sums,
            "aside/sha256sums is not there, so the files cannot be compared: give the training's command",
        ),
        (lose_the_metrics, "aside/metrics.jsonl is not as the training wrote it"),
        (change_a_weight, "encoder.safetensors is not as the training wrote it: give the training's command again"),
        (change_the_summary, "summary.json is not as the training wrote it"),
        (point_elsewhere, "aside/sha256sums is not as the training wrote it"),
        (shutil.rmtree, "Directory"),
        (lambda out: shutil.rmtree(out / "aside"), "aside/sha256sums is not there"),
        (lambda out: [shutil.rmtree(out), out.mkdir()], "there is no training in it: give the folder that `python -m"),
    ],
)
def test_what_is_incomplete_or_changed_is_refused(
    workspace: Workspace, here: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    spoil(here)
    shown = ecg("add-encoder", here)
    assert shown.exit_code in (1, 2)
    assert sentence in shown.stderr
    assert workspace.current("encoder") is None


def test_the_remedy_mends_what_was_changed(workspace: Workspace, here: Path) -> None:
    """The command of the training ends at once, from its last checkpoint."""
    change_a_weight(here)
    forget_the_sums(here)
    program = Program((workspace.root, workspace.require("corpus").path), here)
    code, said = program.here(**CHANGES)
    assert (code, "going on from step 3" in said) == (0, True), said
    assert take_up(workspace, here).name == "encoder"


def test_one_of_another_corpus_is_refused_and_one_of_an_earlier_corpus_is_taken(
    home: Home, workspace: Workspace, here: Path, new_store: Callable[[Path], Tracking]
) -> None:
    new_store(home.root / "mlflow")
    earlier = workspace.require("corpus")
    materialize_corpus(workspace, CorpusConfig(validation_share=0.3))
    shown = ecg("add-encoder", here)
    assert shown.exit_code == 0, shown.output
    assert "note      it was trained on an earlier corpus than the current one" in shown.stdout
    shutil.rmtree(earlier.path)
    shown = ecg("add-encoder", here)
    assert shown.exit_code == 1
    assert (
        f"it was trained on the corpus {earlier.facts['digest'][:12]}, which is not in {workspace.root}" in shown.stderr
    )
    assert "make the same one by `ecg run harmonize corpus`" in shown.stderr


def test_another_encoder_of_the_same_recipe_and_corpus_is_not_replaced(workspace: Workspace, here: Path) -> None:
    first = take_up(workspace, here)
    change_a_weight(here)
    sums = here / "aside" / "sha256sums"
    old, new = (module.sha256_of_file(path / "encoder.safetensors") for path in (first.path, here))
    sums.write_text(sums.read_text().replace(old, new))
    shown = ecg("add-encoder", here)
    assert shown.exit_code == 1
    assert "an encoder of this recipe and corpus is here already" in shown.stderr
    assert "train with another `--set name=NAME`; to compare them: `ecg compare" in shown.stderr
    assert workspace.require("encoder").digest == first.digest


def test_killed_amid_it_nothing_is_there_and_the_next_call_finishes(
    workspace: Workspace, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []

    def killed(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 3:
            raise KeyboardInterrupt
        target.write_bytes(source.read_bytes())

    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            take_up(workspace, here)
    assert workspace.current("encoder") is None
    assert [path.suffix for path in (workspace.root / "encoder").iterdir() if path.is_dir()] == [".partial"]
    assert take_up(workspace, here).facts["steps"] == 3
    assert [path.suffix for path in (workspace.root / "encoder").iterdir() if path.is_dir()] == [""]

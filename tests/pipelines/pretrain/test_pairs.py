"""A whole training of each pair of an encoder and an objective beside JEPA on patches, in processes of its own."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ecg_model.encoder_file import load_encoder
from pipelines.cache import Workspace
from pipelines.pretrain.recipes import Recipe
from pipelines.pretrain.step import EXPERIMENT, EncoderFacts
from pipelines.pretrain.take_up import take_up
from pipelines.tracking import Tracking, flat
from tests.pipelines.pretrain.test_program import same
from tests.support.pretraining import PAIRS, STEPS, Program, small_home


@pytest.mark.slow
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair != "jepa"])
def test_a_pair_is_killed_goes_on_and_is_taken_up_as_the_product(pair: str, tmp_path: Path) -> None:
    """By the program as a user has it, with its metrics mirrored to MLflow."""
    home = small_home(tmp_path / "home")
    whole, program = Program(home, tmp_path / "whole", pair), Program(home, tmp_path / "killed", pair)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = whole.run("--track", store, "--artifact-root", str(tmp_path / "artifacts"))
    assert done.returncode == 0, done.stderr
    assert program.interrupted(signal.SIGKILL, 7)[0] == -signal.SIGKILL
    again = program.run()
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stderr
    same(program, whole)

    taken = take_up(Workspace(home[0]), whole.out)
    facts = EncoderFacts.of(taken)
    assert load_encoder(taken.path / "encoder.safetensors").config == Recipe.from_dict(facts.recipe).encoder
    assert facts.steps == STEPS
    tracking = Tracking(uri=store, experiment=EXPERIMENT, artifact_root=tmp_path / "artifacts")
    client = tracking.client()
    (mirrored,) = client.search_runs([tracking.experiment_id(client)])
    assert mirrored.data.params.items() >= flat(facts.recipe).items()
    assert mirrored.data.metrics["validation_loss"] == pytest.approx(facts.last["validation_loss"])
    assert mirrored.data.metrics["utilisation"] > 0

"""`ecg rollback`: the alias moves in the home's store, and the model beside it is not forgotten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from ecg_model.serving.classify import CalibratedHead
from pipelines.finding import Finding
from pipelines.home import Home
from pipelines.release.aliases import aliases_of, find_alias, promote, versions_of
from pipelines.release.gate import GateVerdict
from pipelines.release.model import CLASSIFIER_NAME, REGISTERED_NAME, Packaged, Scores
from pipelines.release.packaging import packaged_classifier, packaged_encoder
from pipelines.release.registry import record, release_packaged
from pipelines.release.tags import CHAMPION, PREVIOUS
from pipelines.tracking import Tracking
from tests.support.commands import ecg


@pytest.fixture
def tracking(home: Home, new_store: Callable[[Path], Tracking]) -> Tracking:
    """The store of the home that the command finds."""
    return new_store(home.root / "mlflow")


def crown(tracking: Tracking, name: str, packaged: Packaged) -> None:
    """A version, let through by a gate that a test has made up."""
    release = release_packaged(
        packaged, Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking, registered_name=name
    )
    held = find_alias(CHAMPION, name=name, tracking=tracking)
    passed = GateVerdict(against=None if held is None else held.version, rules={"not_worse": Finding.passed("better")})
    promote(record(release, passed, tracking=tracking), tracking=tracking)


def encoder(folder: Path, seed: int) -> Path:
    folder.mkdir()
    save_encoder(folder / "encoder.safetensors", random_encoder(EncoderConfig(dim=32, depth=1, heads=2), seed))
    return folder / "encoder.safetensors"


def head(folder: Path) -> Path:
    one = np.ones(1)
    made = CalibratedHead(labels=("MI",), weight_CD=np.ones((1, 32)), bias_C=one, slope_C=one, intercept_C=one)
    (folder / "head.safetensors").write_bytes(made.to_bytes())
    return folder / "head.safetensors"


def test_it_goes_back_says_so_and_names_the_classifier_that_goes_with_it(tracking: Tracking, tmp_path: Path) -> None:
    first, second = (encoder(tmp_path / str(seed), seed) for seed in range(2))
    for weights in (first, second):
        crown(tracking, REGISTERED_NAME, packaged_encoder(weights))
        crown(tracking, CLASSIFIER_NAME, packaged_classifier(weights, head(tmp_path)))
    assert aliases_of(tracking=tracking) == {CHAMPION: 2, PREVIOUS: 1}

    done = ecg("rollback", "--why", "V5 amplitudes wrong")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"models:/ecg-encoder@champion is version 1 in {tracking.uri}; loaded models keep what they loaded until "
        "restarted",
        "models:/ecg-classifier@champion is version 2, with another encoder: "
        '`ecg rollback 1 --name ecg-classifier --why "..."` goes back to this one',
    ]
    assert aliases_of(tracking=tracking) == {CHAMPION: 1, PREVIOUS: 2}
    assert aliases_of(name=CLASSIFIER_NAME, tracking=tracking) == {CHAMPION: 2, PREVIOUS: 1}
    newest, oldest = versions_of(tracking=tracking)
    why = "rolled back from version 2: V5 amplitudes wrong"
    assert list(newest.moves.values())[-1] == f"replaced as champion by version 1: {why}"
    assert list(oldest.moves.values())[-1] == f"champion: {why}"
    assert why in ecg("models").output

    done = ecg("rollback", "1", "--name", "ecg-classifier", "--why", "with its encoder")
    assert done.exit_code == 0
    assert done.output.splitlines()[1:] == ["models:/ecg-encoder@champion is version 1, with the same encoder"]
    assert aliases_of(name=CLASSIFIER_NAME, tracking=tracking) == {CHAMPION: 1, PREVIOUS: 2}

    wrong = ecg("rollback", "1", "--why", "again")
    assert (wrong.exit_code, "version 1 of ecg-encoder is the champion already" in wrong.output) == (1, True)


def test_a_classifier_on_an_encoder_that_never_had_another_is_named_too(tracking: Tracking, tmp_path: Path) -> None:
    first, second = (encoder(tmp_path / str(seed), seed) for seed in range(2))
    crown(tracking, REGISTERED_NAME, packaged_encoder(first))
    crown(tracking, REGISTERED_NAME, packaged_encoder(second))
    crown(tracking, CLASSIFIER_NAME, packaged_classifier(second, head(tmp_path)))
    told = ecg("rollback", "1", "--why", "a test").output.splitlines()[1]
    assert told.endswith("with another encoder, and no version of ecg-classifier with this one ever was champion")


def test_a_server_that_does_not_answer_is_one_sentence(tracking, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for asked in (("models",), ("rollback", "--why", "worse since Monday")):
        result = ecg(*asked)
        assert result.exit_code == 1
        (line,) = result.output.splitlines()
        assert line.startswith("Error: MLflow at http://127.0.0.1:9 does not answer")


def test_rollback_says_which_version_is_champion_and_in_which_store(home: Home, tracking: Tracking) -> None:
    client = tracking.client()
    client.create_registered_model("ecg-encoder")
    for alias in ("previous", "champion"):
        was_champion = {"moved 2026-11-23T20:00:00.000000Z": "promoted"}
        version = client.create_model_version("ecg-encoder", source="here", tags=was_champion).version
        client.set_registered_model_alias("ecg-encoder", alias, str(version))
    shown = ecg("rollback", "--why", "a test")
    assert shown.exit_code == 0, shown.output
    assert f"@champion is version 1 in sqlite:///{home.root}" in shown.output
    assert str(client.get_model_version_by_alias("ecg-encoder", "champion").version) == "1"

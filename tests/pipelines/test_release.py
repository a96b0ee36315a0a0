"""Releases, aliases and the gate in a real MLflow store, and the model pulled by its alias."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow_server import free_port, mlflow_server

from ecg_model.config import EncoderConfig
from ecg_model.encoder import load_encoder, random_encoder, save_encoder
from ecg_model.serving.embed import embed
from ecg_model.signal import LEADS_12
from pipelines.release import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    GateConfig,
    Release,
    Scores,
    champion_encoder,
    comparable,
    example_ecg,
    find_alias,
    gate,
    promote,
    registered_encoder,
    release_encoder,
)
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

RECIPE = {"name": "tiny", "encoder": {"dim": 32}, "steps": 3}


def scored(value: float, digest: str = "data-1", **metrics: float) -> Scores:
    return Scores(validation=value, data_digest=digest, metrics=metrics)


# The gate


@pytest.mark.parametrize(
    ("challenger", "champion", "margin", "passes", "words"),
    [
        (scored(0.60), None, 0.0, True, "no champion"),
        (Scores(), None, 0.0, True, "no champion"),
        (scored(0.81), scored(0.80), 0.0, True, "+0.0100"),
        (scored(0.80), scored(0.80), 0.0, True, "+0.0000"),
        (scored(0.79), scored(0.80), 0.0, False, "-0.0100"),
        (scored(0.79), scored(0.80), 0.01, True, "margin 0.01"),
        (scored(0.789), scored(0.80), 0.01, False, "margin 0.01"),
        (Scores(), scored(0.10), 0.5, False, "not scored"),
        (scored(0.99), Scores(), 0.5, False, "probe the champion"),
        (scored(0.99, "data-2"), scored(0.50), 0.5, False, "probe the champion"),
        (Scores(), Scores(), 0.5, False, "not scored"),
    ],
)
def test_the_gate_s_table(challenger: Scores, champion: Scores | None, margin: float, passes: bool, words: str) -> None:
    verdict = gate(challenger, champion, GateConfig(margin=margin))
    assert verdict.promote is passes
    assert words in verdict.reason
    assert verdict.reason.startswith("promoted" if passes else "kept as challenger")


@settings(deadline=None, max_examples=200)
@given(challenger=st.integers(0, 1000), champion=st.integers(0, 1000), margin=st.integers(0, 999))
def test_on_the_same_data_a_challenger_passes_exactly_down_to_the_margin(
    challenger: int, champion: int, margin: int
) -> None:
    verdict = gate(scored(challenger / 1000), scored(champion / 1000), GateConfig(margin=margin / 1000))
    assert verdict.promote is (champion - challenger <= margin)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"validation": 1.2, "data_digest": "d"}, "between 0 and 1"),
        ({"validation": math.nan, "data_digest": "d"}, "between 0 and 1"),
        ({"validation": 0.8}, "give both"),
        ({"data_digest": "d"}, "give both"),
        ({"metrics": {"loss": math.inf}}, "loss"),
    ],
)
def test_scores_that_cannot_be_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scores(**wrong)


@pytest.mark.parametrize("margin", [-0.01, 1.0, math.nan])
def test_a_margin_that_cannot_be_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        GateConfig(margin=margin)


def test_scores_compare_on_the_same_data_alone() -> None:
    assert comparable(scored(0.5), scored(0.9))
    assert not comparable(scored(0.5), scored(0.5, "data-2"))
    assert not comparable(Scores(), Scores())


# The registry


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    root = tmp_path_factory.mktemp("mlflow")
    return Tracking(uri=f"sqlite:///{root / 'mlflow.db'}", artifact_root=root / "artifacts")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("encoders")
    config = EncoderConfig(dim=32, depth=1, heads=2)
    paths = [root / str(seed) / "encoder.safetensors" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        save_encoder(path, random_encoder(config, seed))
    return paths


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own in the store that the module shares."""
    return request.node.name.translate(str.maketrans("[]", "--"))


@pytest.fixture(autouse=True)
def nothing_is_left_outside_the_store(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Neither MLflow's process-wide settings nor the working directory are touched."""
    here = tmp_path_factory.mktemp("cwd")
    monkeypatch.chdir(here)
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = [mlflow.is_tracking_uri_set(), *map(os.environ.get, names)]
    yield
    assert [mlflow.is_tracking_uri_set(), *map(os.environ.get, names)] == before
    assert list(here.iterdir()) == []


def put(store: Tracking, name: str, encoder: Path, scores: Scores, **more: Any) -> Release:
    return release_encoder(
        encoder,
        scores,
        provenance={"corpus_digest": "c0ffee"},
        recipe=RECIPE,
        git_commit="abc123",
        tracking=store,
        registered_name=name,
        **more,
    )


def aliases(store: Tracking, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in store.client().get_registered_model(name).aliases.items()}


def test_a_release_carries_what_made_it_and_how_it_scored(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("# it works\n")
    scores = scored(0.8125, "data-1", **{"test/macro_auc": 0.80, "random/macro_auc": 0.7})
    released = put(store, name, encoders[0], scores, artifacts=[report])
    assert (released.version, released.created) == (1, True)
    assert released.scores == scores
    assert aliases(store, name) == {CHALLENGER: 1}

    client = store.client()
    tags = client.get_model_version(name, "1").tags
    assert tags["corpus_digest"] == "c0ffee"
    assert tags["git_commit"] == "abc123"
    assert tags["validation"] == "0.8125"
    assert len(tags["recipe_digest"]) == len(tags["encoder_digest"]) == 64
    run = client.get_run(released.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"name": "tiny", "encoder.dim": "32", "steps": "3"}
    assert run.data.metrics == {"validation": 0.8125, "test/macro_auc": 0.80, "random/macro_auc": 0.7}
    assert [artifact.path for artifact in client.list_artifacts(released.run_id)] == ["report.md"]


def test_a_model_that_no_gate_judges_has_versions_and_no_alias(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    first = put(store, name, encoders[0], scored(0.8), alias=None)
    second = put(store, name, encoders[1], scored(0.7), alias=None)
    assert (first.version, second.version) == (1, 2)
    assert aliases(store, name) == {}


def test_the_same_encoder_and_scores_are_released_once(store: Tracking, encoders: list[Path], name: str) -> None:
    first = put(store, name, encoders[0], scored(0.8))
    again = put(store, name, encoders[0], scored(0.8))
    other_scores = put(store, name, encoders[0], scored(0.9))
    other_encoder = put(store, name, encoders[1], scored(0.8))
    assert (first.version, again.version, other_scores.version, other_encoder.version) == (1, 1, 2, 3)
    assert (again.created, again.run_id) == (False, first.run_id)
    assert len(store.client().search_model_versions(f"name = '{name}'")) == 3


def test_the_stored_model_holds_code_and_weights_and_no_pickle(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    put(store, name, encoders[0], scored(0.8))
    stored = store.client().get_model_version_download_uri(name, "1")
    folder = Path(download_artifacts(stored, dst_path=str(tmp_path), tracking_uri=store.uri))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"encoder_model.py", "artifacts/encoder.safetensors", "code/ecg_model/signal.py", "MLmodel"} <= files
    endings = {Path(file).suffix for file in files if Path(file).name not in ("MLmodel", "registered_model_meta")}
    assert endings == {".py", ".safetensors", ".json", ".txt", ".yaml"}, "code, weights and text, nothing else"
    required = (folder / "requirements.txt").read_text().split()
    assert [line.partition("==")[0] for line in required] == ["mlflow", "torch", "numpy", "scipy", "safetensors"]
    assert all("==" in line and "+" not in line for line in required)
    assert (folder / "artifacts" / "encoder.safetensors").read_bytes() == encoders[0].read_bytes()


def test_the_champion_is_pulled_by_its_alias_and_embeds(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    assert verdict.promote
    assert aliases(store, name) == {CHAMPION: 1}
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    ecgs = example_ecg()
    embedding = model.predict(ecgs, params={"sampling_rate": 100.0})
    expected = embed(load_encoder(encoders[0]), ecgs, sampling_rate=100.0)
    assert embedding.shape == (1, 32)
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_the_gate_moves_the_aliases_and_writes_down_why(store: Tracking, encoders: list[Path], name: str) -> None:
    config = GateConfig(margin=0.01)
    judge = [promote(put(store, name, encoders[0], scored(0.80)), tracking=store, config=config)]
    judge.append(promote(put(store, name, encoders[1], scored(0.78)), tracking=store, config=config))
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    judge.append(promote(put(store, name, encoders[2], scored(0.795)), tracking=store, config=config))
    assert aliases(store, name) == {CHAMPION: 3, PREVIOUS: 1}
    assert [verdict.promote for verdict in judge] == [True, False, True]

    client = store.client()
    for version, verdict in enumerate(judge, start=1):
        assert client.get_model_version(name, str(version)).tags["verdict"] == verdict.reason
    assert client.get_model_version(name, "1").tags["replaced"].startswith("replaced by version 3")


def test_a_challenger_that_was_refused_stays_one_when_it_is_released_again(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    verdicts = [promote(put(store, name, encoders[1], scored(0.7)), tracking=store) for _ in range(2)]
    assert verdicts[0] == verdicts[1]
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    again = promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    assert again.promote, "the champion is told to be what it is"
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}


def test_an_encoder_that_was_not_scored_is_champion_only_where_there_is_none(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    assert promote(put(store, name, encoders[0], Scores()), tracking=store).promote
    assert not promote(put(store, name, encoders[1], Scores()), tracking=store).promote
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    assert store.client().get_model_version(name, "2").tags["validation"] == "not scored"


def test_on_other_data_the_champion_is_probed_again(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    assert champion_encoder(tmp_path / "none", name=name, tracking=store) is None
    promote(put(store, name, encoders[0], scored(0.9, "data-1")), tracking=store)
    challenger = put(store, name, encoders[1], scored(0.7, "data-2"))
    assert not promote(challenger, tracking=store).promote

    fetched = champion_encoder(tmp_path / "champion", name=name, tracking=store)
    assert fetched is not None
    for model in (f"models:/{name}@champion", f"models:/{name}/{fetched[1].version}"):
        again = registered_encoder(model, tmp_path / "again", tracking=store)
        assert again.read_bytes() == fetched[0].read_bytes()
    for model in (f"models:/{name}@nobody", f"models:/{name}/99", "models:/none@champion"):
        with pytest.raises(ValueError, match="is not registered at"):
            registered_encoder(model, tmp_path / "again", tracking=store)
    with pytest.raises(ValueError, match="names no registered encoder: use models:/ecg-encoder@champion"):
        registered_encoder("champion", tmp_path / "again", tracking=store)
    assert fetched is not None
    path, champion = fetched
    assert not comparable(challenger.scores, champion.scores)
    assert path.read_bytes() == encoders[0].read_bytes()
    assert champion.tags["corpus_digest"] == "c0ffee"
    assert promote(challenger, tracking=store, champion_scores=scored(0.65, "data-2")).promote
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}


def test_a_former_champion_does_not_come_back_through_the_gate(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    config = GateConfig(margin=0.1)
    promote(put(store, name, encoders[0], scored(0.80)), tracking=store, config=config)
    promote(put(store, name, encoders[1], scored(0.82)), tracking=store, config=config)
    verdict = promote(put(store, name, encoders[0], scored(0.80)), tracking=store, config=config)
    assert not verdict.promote
    assert "was champion before" in verdict.reason
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}


@pytest.mark.parametrize("died_at", [PREVIOUS, CHAMPION, "drop"])
def test_a_promotion_that_died_half_way_is_ended_by_the_next_call(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, died_at: str
) -> None:
    promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    challenger = put(store, name, encoders[1], scored(0.9))
    whole = MlflowClient.set_registered_model_alias

    def dies(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if alias == died_at:
            raise KeyboardInterrupt
        whole(client, name, alias, version)

    def dies_at_drop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", dies)
        if died_at == "drop":
            patch.setattr(MlflowClient, "delete_registered_model_alias", dies_at_drop)
        with pytest.raises(KeyboardInterrupt):
            promote(challenger, tracking=store)
    assert promote(challenger, tracking=store).promote
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}


QUIET = """
import sys
from pathlib import Path
from pipelines.release import Scores, promote, release_encoder
from pipelines.tracking import Tracking
root = Path(sys.argv[2])
tracking = Tracking(uri=f"sqlite:///{root / 'mlflow.db'}", artifact_root=root / "artifacts")
made = release_encoder(Path(sys.argv[1]), Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking)
print(promote(made, tracking=tracking).promote)
"""


def test_a_release_in_a_new_store_says_nothing_on_the_terminal(encoders: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUIET, str(encoders[0]), str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "True\n", "")


def test_an_alias_that_is_not_there_is_none(store: Tracking, encoders: list[Path], name: str) -> None:
    assert find_alias(CHAMPION, name=name, tracking=store) is None
    put(store, name, encoders[0], Scores())
    assert find_alias(CHAMPION, name=name, tracking=store) is None
    found = find_alias(CHALLENGER, name=name, tracking=store)
    assert found is not None
    assert (found.model_uri, found.scores) == (f"models:/{name}/1", Scores())


def test_a_file_of_another_name_is_refused(store: Tracking, name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"encoder\.safetensors"):
        put(store, name, tmp_path / "weights.pt", Scores())


def test_the_example_obeys_einthoven_and_goldberger() -> None:
    lead = dict(zip(LEADS_12, example_ecg()[0], strict=True))
    np.testing.assert_allclose(lead["III"], lead["II"] - lead["I"], atol=2e-3)
    np.testing.assert_allclose(lead["aVR"] + lead["aVL"] + lead["aVF"], 0.0, atol=3e-3)
    assert 0.5 < np.ptp(lead["II"]) < 3


@pytest.mark.slow
def test_a_release_through_a_server_is_pulled_from_it(
    encoders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    tracking = Tracking(uri=f"http://127.0.0.1:{port}", artifact_root=tmp_path / "not looked at")
    with mlflow_server(tmp_path, port):
        released = put(tracking, "served", encoders[0], scored(0.8))
        assert promote(released, tracking=tracking).promote
        assert not put(tracking, "served", encoders[0], scored(0.8)).created
        fetched = champion_encoder(tmp_path / "champion", name="served", tracking=tracking)
        assert fetched is not None
        assert fetched[0].read_bytes() == encoders[0].read_bytes()
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
            model = mlflow.pyfunc.load_model("models:/served@champion")
    embedding = model.predict(example_ecg(), params={"sampling_rate": 100.0})
    expected = embed(load_encoder(encoders[0]), example_ecg(), sampling_rate=100.0)
    np.testing.assert_allclose(embedding, expected, atol=1e-6)
    assert not (tmp_path / "not looked at").exists()

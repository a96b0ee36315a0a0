"""The registry: every release is a version that carries what made it and how it scored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecg_model.encoder_file import load_encoder
from ecg_model.serving.embed import embed
from pipelines.hashing import sha256_of_file
from pipelines.release.aliases import aliases_of, versions_of
from pipelines.release.model import Release, Scores
from pipelines.release.packaging import example_ecg, packaged_encoder, serves
from pipelines.release.registry import files_of, model_folder, release_packaged, version_named
from pipelines.release.tags import CHALLENGER, CHAMPION
from pipelines.tracking import Tracking
from tests.support.mlflow_server import free_port, mlflow_server

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow
from mlflow.artifacts import download_artifacts

from tests.support.releases import RECIPE, aliases, crown, put, scored

pytestmark = pytest.mark.usefixtures("nothing_is_left_outside_the_store")


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
    assert json.loads(tags["recipe"]) == RECIPE
    run = client.get_run(released.run_id)
    assert run.info.status == "FINISHED"
    # MLflow adds the model's configuration to the recipe.
    configuration = {"device": "cpu", "encoder_sha256": tags["encoder_digest"]}
    assert run.data.params == {"name": "tiny", "encoder.dim": "32", "steps": "3", **configuration}
    assert run.data.metrics == {"validation": 0.8125, "test/macro_auc": 0.80, "random/macro_auc": 0.7}
    assert [artifact.path for artifact in client.list_artifacts(released.run_id)] == ["report.md"]


def test_a_model_that_no_gate_judges_has_versions_and_no_alias(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    first = put(store, name, encoders[0], scored(0.8), alias=None)
    second = put(store, name, encoders[1], scored(0.7), alias=None)
    assert (first.version, second.version) == (1, 2)
    assert aliases(store, name) == {}


def test_the_same_weights_are_one_version_that_carries_its_newest_scores(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.md"
    report.write_text("first")
    first = put(store, name, encoders[0], scored(0.8, "data-1", **{"test/macro_auc": 0.7}), artifacts=[report])
    again = put(store, name, encoders[0], scored(0.8, "data-1", **{"test/macro_auc": 0.7}))
    report.write_text("second")
    newer = scored(0.75, "data-2", **{"test/macro_auc": 0.6})
    scored_anew = put(store, name, encoders[0], newer, artifacts=[report])
    assert [(release.version, release.created, release.rescored) for release in (first, again, scored_anew)] == [
        (1, True, False),
        (1, False, False),
        (1, False, True),
    ]
    (registered,) = versions_of(name=name, tracking=store)
    assert (registered.scores, registered.tags["validation"]) == (newer, "0.7500")
    run = store.client().get_run(first.run_id)
    assert run.data.metrics == {"validation": 0.75, "test/macro_auc": 0.6}
    assert run.data.tags["validation"] == "0.7500"
    assert run.info.status == "FINISHED"
    stored = download_artifacts(run_id=first.run_id, artifact_path="report.md", tracking_uri=store.uri)
    assert Path(stored).read_text() == "second", "the report on these scores"
    assert put(store, name, encoders[1], scored(0.8)).version == 2


def test_the_champion_is_pulled_by_its_alias_and_embeds(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    assert aliases(store, name) == {CHAMPION: 1}
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    ecgs = example_ecg()
    embedding = model.predict(ecgs, params={"sampling_rate": 100.0})
    expected = embed(load_encoder(encoders[0]), ecgs, sampling_rate=100.0)
    assert embedding.shape == (1, 32)
    np.testing.assert_allclose(embedding, expected, atol=1e-6)


def test_an_encoder_that_was_not_scored_says_so(store: Tracking, encoders: list[Path], name: str) -> None:
    put(store, name, encoders[0], Scores())
    assert store.client().get_model_version(name, "1").tags["validation"] == "not scored"


def test_an_encoder_is_fetched_by_what_people_call_it(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    champion = crown(store, name, encoders[0], scored(0.9, "data-1"))
    files = files_of(champion, tmp_path / "champion", tracking=store)
    assert {file: path.read_bytes() for file, path in files.items()} == {"encoder": encoders[0].read_bytes()}
    assert champion.tags["corpus_digest"] == "c0ffee"
    for model in (f"models:/{name}@champion", f"models:/{name}/{champion.version}"):
        again = model_folder(version_named(model, tracking=store), tracking=store, into=tmp_path / "again")
        assert (again / "artifacts" / "encoder.safetensors").read_bytes() == encoders[0].read_bytes()
    for model in (f"models:/{name}@nobody", f"models:/{name}/99", "models:/none@champion"):
        with pytest.raises(ValueError, match="is not registered at"):
            version_named(model, tracking=store)
    with pytest.raises(ValueError, match="names no registered encoder: use models:/ecg-encoder@champion"):
        version_named("champion", tracking=store)


def test_weights_that_are_not_those_released_are_refused(
    store: Tracking, encoders: list[Path], name: str, tmp_path: Path
) -> None:
    champion = crown(store, name, encoders[0], scored(0.9, "data-1"))
    released = champion.tags["encoder_digest"]
    uri = store.client().get_model_version_download_uri(name, str(champion.version))
    stored = Path(uri.removeprefix("file://"), "artifacts", "encoder.safetensors")
    before = stored.read_bytes()
    stored.write_bytes(encoders[1].read_bytes())
    try:
        for fetch in (
            lambda: files_of(champion, tmp_path / "files", tracking=store),
            lambda: model_folder(champion, tracking=store, into=tmp_path / "start"),
        ):
            with pytest.raises(ValueError, match="in the store has sha256") as refused:
                fetch()
            assert released in str(refused.value)
            assert sha256_of_file(encoders[1]) in str(refused.value)
    finally:
        stored.write_bytes(before)


QUIET = """
import sys
from pathlib import Path
from pipelines.finding import Finding
from pipelines.release.aliases import promote
from pipelines.release.gate import GateVerdict
from pipelines.release.model import Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import record, release_packaged
from pipelines.tracking import Tracking
root = Path(sys.argv[2])
tracking = Tracking(uri=f"sqlite:///{root / 'mlflow.db'}", artifact_root=root / "artifacts")
packaged = packaged_encoder(Path(sys.argv[1]))
made = release_packaged(packaged, Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking)
made = record(made, GateVerdict(against=None, rules={"not_worse": Finding.passed("first")}), tracking=tracking)
print(promote(made, tracking=tracking).version)
"""


@pytest.mark.slow
def test_a_release_in_a_new_store_says_nothing_on_the_terminal(encoders: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUIET, str(encoders[0]), str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n", "")


@pytest.mark.slow
def test_a_release_through_a_server_is_pulled_from_it(
    encoders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    tracking = Tracking(uri=f"http://127.0.0.1:{port}", artifact_root=tmp_path / "not looked at")
    with mlflow_server(tmp_path, port):
        released = crown(tracking, "served", encoders[0], scored(0.8))
        assert serves(released, packaged_encoder(encoders[0]), tracking=tracking).holds
        assert not put(tracking, "served", encoders[0], scored(0.8)).created
        (tmp_path / "report.md").write_text("of other scores")
        assert put(tracking, "served", encoders[0], scored(0.7), artifacts=[tmp_path / "report.md"]).rescored
        fetched = files_of(released, tmp_path / "champion", tracking=tracking)
        assert fetched["encoder"].read_bytes() == encoders[0].read_bytes()
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
            model = mlflow.pyfunc.load_model("models:/served@champion")
    embedding = model.predict(example_ecg(), params={"sampling_rate": 100.0})
    expected = embed(load_encoder(encoders[0]), example_ecg(), sampling_rate=100.0)
    np.testing.assert_allclose(embedding, expected, atol=1e-6)
    assert not (tmp_path / "not looked at").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_is_full_or_read_only_registers_nothing_and_the_next_try_does(tmp_path, encoders):
    disk = tmp_path / "disk"
    disk.mkdir()
    tracking = Tracking(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_root=disk)
    packaged = packaged_encoder(encoders[0])

    def release() -> Release:
        return release_packaged(packaged, scored(0.8), provenance={}, recipe={}, git_commit="g", tracking=tracking)

    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        for options, what in (("size=16k", "No space left"), ("ro,size=64m", "Read-only file system")):
            subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)
            with pytest.raises(OSError, match=what):
                release()
            assert versions_of(tracking=tracking) == []
            assert aliases_of(tracking=tracking) == {}
        subprocess.run(["mount", "-o", "remount,rw,size=64m", disk], check=True)
        first = release()
        assert (first.version, first.created) == (1, True)
        assert serves(first, packaged, tracking=tracking).holds
        assert not release().created
    finally:
        subprocess.run(["umount", disk], check=True)

"""From labels of one's own to a champion: what is fitted, what is served, what the gate says, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from click.testing import Result

from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from ecg_model.serving.classify import CalibratedHead, classify
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE
from pipelines.evaluate.probes.result import load_result
from pipelines.formats.shard import open_shard
from pipelines.hashing import sha256_of_file
from pipelines.home import Home
from pipelines.release.aliases import aliases_of, find_alias, versions_of
from pipelines.release.model import Scores
from pipelines.release.own_classifier import OwnClassifierFacts
from pipelines.release.own_classifier_config import OwnClassifierConfig, require_name
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import release_packaged
from pipelines.release.tags import CHAMPION, ECGS, kind_of
from pipelines.tracking import Tracking
from tests.support.commands import ECG, ecg
from tests.support.mlflow_server import free_port
from tests.support.own_ecgs import TINY, harmonized, put_encoder
from tests.support.shared import made_once

N = 300


@pytest.fixture(scope="session")
def labelled_home(run_folder: Path) -> Path:
    """A home with a drop that came with labels, one that did not, and an encoder: to be copied."""

    def make(root: Path) -> None:
        workspace = Home(root, "hosts").workspace()
        harmonized(workspace, "ward", N, labelled=True, absent=4)
        put_encoder(workspace)

    return made_once(run_folder / "labelled-home", make)


@pytest.fixture
def home(labelled_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_store) -> Home:
    import shutil

    shutil.copytree(labelled_home, tmp_path / "home", symlinks=True)
    monkeypatch.setenv("ECG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ECG_MIRROR", "hosts")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    new_store(tmp_path / "home" / "mlflow")
    return Home.default()


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started to pull a version: what it would say is the slow test's."""
    from pipelines.finding import Finding

    monkeypatch.setattr("pipelines.release.judging.serves", lambda *_, **__: Finding.passed("taken as served"))


def tall(home: Home) -> list[bool]:
    records = open_shard(home.workspace().require("ecgs/incoming/ward").path).records()
    return [labels == ["tall"] for labels in records.column("labels").to_pylist()]


def csv_of(folder: Path, labels: Sequence[str], name: str = "Height of R.csv") -> Path:
    lines = [f"e{i},{label}" for i, label in enumerate(labels) if label]
    (folder / name).write_text("record_id,label\n" + "\n".join(lines))
    return folder / name


def words(result: Result) -> str:
    return " ".join(result.output.split())


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_a_drop_with_labels_becomes_a_champion_and_is_found_again(home: Home) -> None:
    """Two labels that exclude each other: each ECG's probabilities sum to 1, as served and as scored."""
    first = ecg("train-classifier", "--drop", "ward", "--method", "linear")
    assert first.exit_code == 0, first.output
    assert "296 labelled ECGs; multi-class" in words(first)
    assert "4 labelled ECGs lack a lead, which no served model answers: left out" in words(first)
    assert "encoder: pretrained (ecg-encoder has no champion, so it is the data home's own)" in words(first)
    assert "models:/ecg-classifier-ward/1, registered: promoted: there was no champion" in words(first)
    product = home.workspace().require("own_classifier/ecg-classifier-ward")
    facts = OwnClassifierFacts.of(product)
    assert (facts.kind, facts.labels, facts.method) == ("multi-class", ("small", "tall"), "linear")
    assert sum(facts.ecgs.values()) == N - 4
    assert facts.test_macro_auc.value > 0.95
    assert facts.encoder_digest == sha256_of_file(product.path / ENCODER_FILE)
    predictions = load_result(product.path).predictions
    assert predictions is not None
    np.testing.assert_allclose(predictions.score_NC.sum(axis=1), 1.0)
    signal_NLT = open_shard(home.workspace().require("ecgs/incoming/ward").path).signals()
    rows = [int(record[1:]) for record in predictions.record_id[:5]]
    network, head = load_encoder(product.path / ENCODER_FILE), CalibratedHead.load(product.path / HEAD_FILE)
    served = classify(network, head, signal_NLT[rows] / 1000.0, sampling_rate=250.0)
    np.testing.assert_allclose(served, predictions.score_NC[:5], atol=1e-4)

    again = ecg("train-classifier", "--drop", "ward")
    assert again.exit_code == 0, again.output
    assert "models:/ecg-classifier-ward/1, registered before: it is the champion" in words(again)
    assert home.workspace().require("own_classifier/ecg-classifier-ward").path == product.path
    tracking = Tracking.of(home)
    (version,) = versions_of(name="ecg-classifier-ward", tracking=tracking)
    told = {name: version.tags[name] for name in ("ecgs", "method", "labels", "labels_digest", "pretrained_digest")}
    assert told == {
        "ecgs": "recorded",
        "method": "linear",
        "labels": "small, tall",
        "labels_digest": facts.labels_digest,
        "pretrained_digest": facts.encoder_digest,
    }
    card = tracking.client().get_model_version("ecg-classifier-ward", "1").description or ""
    for said in (
        "Not a medical device",
        "load_model",
        "own data: whatever its owner allows",
        "Limits",
        "**Promoted.**",
    ):
        assert said in card
    listed = ecg("models")
    assert listed.exit_code == 1
    assert "ecg-classifier-ward" in listed.output, "it names the models that there are"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("unserved")
def test_another_training_is_a_challenger_that_the_gate_compares_and_all_is_served(home: Home, tmp_path: Path) -> None:
    """Wrong labels lose against right ones; another encoder with right ones does not, and can be taken back."""
    heights = tall(home)
    right = ["tall" if one else "small" for one in heights]
    wrong = list(reversed(right))
    name = ("--name", "heights")
    assert ecg("train-classifier", csv_of(tmp_path, right), *name).exit_code == 0
    lost = ecg("train-classifier", csv_of(tmp_path, wrong), *name)
    assert lost.exit_code == 0, lost.output
    assert "models:/heights/2, registered: kept as challenger: not_worse: validation macro AUC" in words(lost)
    assert "models:/heights@champion stays version 1" in words(lost)
    others = ecg("train-classifier", csv_of(tmp_path, ["AF" if one else "no AF" for one in heights]), *name)
    assert "not_worse: nothing to compare on validation" in words(others)  # no label is common
    put_encoder(home.workspace(), seed=2)
    assert ecg("train-classifier", csv_of(tmp_path, right), *name).exit_code == 0
    tracking = Tracking.of(home)
    assert aliases_of(name="heights", tracking=tracking) == {"champion": 4, "previous": 1}
    champion = find_alias(CHAMPION, name="heights", tracking=tracking)
    assert champion is not None
    assert champion.verdict is not None
    assert "patients not named, margin 0.01" in champion.verdict.rules["not_worse"].seen
    assert ecg("rollback", "--name", "heights", "--why", "a test").exit_code == 0
    assert aliases_of(name="heights", tracking=tracking)["champion"] == 1
    port = free_port()
    command = [str(ECG), "serve", "models:/heights@champion", "--port", str(port)]
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL) as server:
        try:
            signal_NLT = open_shard(home.workspace().require("ecgs/incoming/ward").path).signals()[10:14]
            body = {"inputs": (signal_NLT / 1000.0).tolist(), "params": {"sampling_rate": 250.0, "leads": "8"}}
            answer = asked(port, body)
        finally:
            server.send_signal(signal.SIGINT)
    for row, is_tall in zip(answer, heights[10:14], strict=True):
        assert sum(row.values()) == pytest.approx(1.0)
        assert (row["tall"] > row["small"]) == is_tall


def put_blind_encoder(tracking: Tracking, folder: Path) -> None:
    """A registered encoder, pretrained on simulated ECGs, to which all ECGs are alike."""
    encoder = random_encoder(TINY, 3)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.zero_()
    save_encoder(folder / "encoder.safetensors", encoder)
    release_packaged(
        packaged_encoder(folder / "encoder.safetensors"),
        Scores(),
        provenance={ECGS: kind_of(simulated=True)},
        recipe={},
        git_commit="g",
        tracking=tracking,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_a_first_version_below_its_baselines_waits_for_a_person_and_a_recorded_encoder_replaces_a_simulated_one(
    home: Home, tmp_path: Path
) -> None:
    tracking = Tracking.of(home)
    put_blind_encoder(tracking, tmp_path)
    of_blind = ("train-classifier", "--drop", "ward", "--name", "heights", "--encoder", "models:/ecg-encoder/1")
    blind = ecg(*of_blind)
    assert blind.exit_code == 0, blind.output
    for said in (
        "models:/heights/1, registered: kept as challenger: not_below_baselines: difference of validation macro AUC to "
        "random encoder -0.",
        ", to handcrafted features -0.",
        "there is no champion yet",
        "serve it: ecg serve models:/heights/1; make it champion by hand: ecg promote 1 --name heights",
        "seen in the encoder's pretraining, without labels: not known",
    ):
        assert said in words(blind)
    assert aliases_of(name="heights", tracking=tracking) == {"challenger": 1}

    done = ecg("promote", "--name", "heights", "--why", "to try the server", "--by", "the ward's engineer")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("models:/heights@champion is version 1 in sqlite:///")
    (version,) = versions_of(name="heights", tracking=tracking)
    assert list(version.moves.values()) == ["champion: promoted by hand by the ward's engineer: to try the server"]
    assert "registered before: it is the champion" in words(ecg(*of_blind))

    better = ecg("train-classifier", "--drop", "ward", "--name", "heights", "--encoder", "pretrained")
    assert "version 1, the champion, was trained on simulated ECGs, and this on recorded ones" in words(better)
    assert aliases_of(name="heights", tracking=tracking) == {"champion": 2, "previous": 1}


def asked(port: int, body: dict) -> list[dict[str, float]]:
    """Ask a server that is starting."""
    for _ in range(600):
        try:
            response = httpx.post(f"http://127.0.0.1:{port}/invocations", json=body, timeout=60)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        assert response.status_code == 200, response.text
        return response.json()["predictions"]
    raise TimeoutError(f"no server at {port}")


@pytest.mark.slow
@pytest.mark.usefixtures("unserved")
def test_labels_that_go_together_are_calibrated_each_by_itself(home: Home, tmp_path: Path) -> None:
    """A third label is too rare on validation: it is served, and said to be uncalibrated and not scored."""
    lines = [f"e{i},{'tall' if one else 'small'}" for i, one in enumerate(tall(home))]
    lines += [f"e{i},rare" for i in range(20, 40)]
    file = tmp_path / "x.csv"
    file.write_text("record_id,label\n" + "\n".join(lines))
    done = ecg("train-classifier", file, "--name", "together")
    assert done.exit_code == 0, done.output
    facts = OwnClassifierFacts.of(home.workspace().require("own_classifier/together"))
    assert (facts.kind, facts.uncalibrated) == ("multi-label", ("rare",))
    assert set(facts.left_out) == {"rare"}
    head = CalibratedHead.load(home.workspace().require("own_classifier/together").path / HEAD_FILE)
    assert not head.exclusive
    place = head.labels.index("rare")
    assert (head.slope_C[place], head.intercept_C[place]) == (1.0, 0.0)
    assert "not calibrated" in words(done)


def refused(home: Home, tmp_path: Path, *arguments: str, labels: Callable[[int], str] = lambda i: "") -> str:
    """What the command says, which ends with exit code 1 and leaves no classifier."""
    given: list[str | Path] = [*arguments]
    text = [labels(i) for i in range(N)]
    if any(text):
        given.append(csv_of(tmp_path, text))
    done = ecg("train-classifier", *given)
    assert done.exit_code == 1, done.output
    assert not home.workspace().folder("own_classifier").exists()
    return words(done)


@pytest.mark.parametrize(
    ("arguments", "labels", "says"),
    [
        ((), lambda i: "", "give a CSV of labels or --drop NAME, one of the two"),
        (("--drop", "ward"), lambda i: "ab"[i % 2], "give a CSV of labels or --drop NAME, one of the two"),
        (("nowhere.csv",), lambda i: "", "labels 'nowhere.csv': no such file; give a csv with the columns"),
        (("--drop", "ward-9"), lambda i: "", "drop 'ward-9' is not harmonized in"),
        (("--source", "georgia"), lambda i: "ab"[i % 2], "no ECGs of georgia in"),
        ((), lambda i: "tall", "1 labels (tall): label the others too, with a second one"),
        ((), lambda i: "ab"[i % 2] if i < 40 else "", "labelled patients by split: train 2"),
        ((), lambda i: "ab"[i < 12], "too few ECGs of one label, 10 are needed in each split (a: train"),
        ((), lambda i: ("a", "reason")[i % 2], "label 'reason': a served model says by it why it refuses an ECG"),
        (
            ("--name", "ecg-classifier"),
            lambda i: "ab"[i % 2],
            "name 'ecg-classifier': this model has a road of its own",
        ),
        (("--name", "a/b"), lambda i: "ab"[i % 2], "name 'a/b': use 1 to 100 letters, digits"),
        (
            ("--encoder", "models:/ecg-encoder/9"),
            lambda i: "ab"[i % 2],
            "models:/ecg-encoder/9 is not registered at",
        ),
        (("--encoder", "best"), lambda i: "ab"[i % 2], "'best' is no encoder: give pretrained, reference,"),
    ],
)
def test_wrong_turns_are_said_before_anything_is_fitted(home, tmp_path, arguments, labels, says):
    assert says in refused(home, tmp_path, *arguments, labels=labels)
    assert not home.workspace().folder("probe").exists()


def test_ids_that_are_not_there_and_an_encoder_that_is_not_are_named(home, tmp_path):
    (tmp_path / "x.csv").write_text("record_id,label\ne1,a\ne2000,b\n")
    assert "1 of 2 records are not among the 300 harmonized ECGs of incoming, such as 'e2000'" in refused(
        home, tmp_path, str(tmp_path / "x.csv")
    )
    workspace = home.workspace()
    (workspace.folder("encoder") / "current").unlink()
    assert "there is no encoder: ecg-encoder has no champion at" in refused(home, tmp_path, "--drop", "ward")


def test_a_drop_without_labels_says_where_they_are_given(home, tmp_path):
    harmonized(home.workspace(), "plain", 4)
    assert "drop 'plain': none of its 4 ECGs has a label: name them in drop.json" in refused(
        home, tmp_path, "--drop", "plain"
    )
    assert "300 records are in more than one drop" not in refused(home, tmp_path, "--drop", "plain")
    assert "4 records are in more than one drop of incoming, such as 'e0'" in refused(home, tmp_path, "--drop", "ward")


def test_names_are_made_of_the_labels_and_those_of_others_are_refused():
    assert OwnClassifierConfig(labels="x/AF or not.csv").registered_name == "ecg-classifier-af-or-not"
    assert OwnClassifierConfig(drop="ward-7_2026").registered_name == "ecg-classifier-ward-7_2026"
    for taken in ("ecg-encoder", "ecg-classifier", "ecg-encoder-reference"):
        with pytest.raises(ValueError, match="has a road of its own"):
            require_name(taken)
    with pytest.raises(ValueError, match="method='knn': use linear, attention_pool, fine_tuned or auto"):
        OwnClassifierConfig(drop="a", method="knn")


def test_a_model_of_another_kind_is_not_written_to(home, tmp_path, unserved):
    from tests.support.releases import put

    encoder = home.workspace().require("encoder").path / ENCODER_FILE
    put(Tracking.of(home), "somebodys", encoder, Scores())
    assert "name 'somebodys': models:/somebodys/1 is no classifier of own labels" in refused(
        home, tmp_path, "--drop", "ward", "--name", "somebodys"
    )

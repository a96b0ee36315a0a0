"""Releases, verdicts and aliases in a real MLflow store, and the model pulled by its alias."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder import load_encoder, random_encoder, save_encoder
from ecg_model.serving.embed import embed
from ecg_model.signal import LEADS_12
from pipelines.finding import Finding
from pipelines.release.aliases import aliases_of, find_alias, promote, rollback, versions_of
from pipelines.release.gate import RULES, GateVerdict
from pipelines.release.model import Release, Scores
from pipelines.release.packaging import example_ecg, packaged_encoder, serves
from pipelines.release.registry import files_of, record, registered_encoder, release_packaged
from pipelines.release.tags import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.tracking import Tracking
from tests.support.mlflow_server import free_port, mlflow_server

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

RECIPE = {"name": "tiny", "encoder": {"dim": 32}, "steps": 3}


def scored(value: float, digest: str = "data-1", **metrics: float) -> Scores:
    return Scores(validation=value, data_digest=digest, metrics=metrics)


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
    return release_packaged(
        packaged_encoder(encoder),
        scores,
        provenance={"corpus_digest": "c0ffee"},
        recipe=RECIPE,
        git_commit="abc123",
        tracking=store,
        registered_name=name,
        **more,
    )


def judged(store: Tracking, release: Release, *, holds: bool = True, against: int | None = None) -> Release:
    """A release with a verdict that a test has made up."""
    rules = {name: Finding(holds, f"{name} was looked at") for name in RULES}
    return record(release, GateVerdict(against=against, rules=rules), tracking=store)


def crown(store: Tracking, name: str, encoder: Path, scores: Scores) -> Release:
    """Released and let through the gate."""
    held = find_alias(CHAMPION, name=name, tracking=store)
    release = judged(store, put(store, name, encoder, scores), against=None if held is None else held.version)
    return promote(release, tracking=store)


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
    assert [(one.version, one.created, one.rescored) for one in (first, again, scored_anew)] == [
        (1, True, False),
        (1, False, False),
        (1, False, True),
    ]
    (held,) = versions_of(name=name, tracking=store)
    assert (held.scores, held.tags["validation"]) == (newer, "0.7500")
    run = store.client().get_run(first.run_id)
    assert run.data.metrics == {"validation": 0.75, "test/macro_auc": 0.6}
    assert run.data.tags["validation"] == "0.7500"
    assert run.info.status == "FINISHED"
    kept = download_artifacts(run_id=first.run_id, artifact_path="report.md", tracking_uri=store.uri)
    assert Path(kept).read_text() == "second", "the report on these scores"
    assert put(store, name, encoders[1], scored(0.8)).version == 2


def test_newer_code_for_the_same_weights_is_a_version_and_leaves_the_previous_champion(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.80))
    crown(store, name, encoders[1], scored(0.82))
    monkeypatch.setattr("pipelines.versions.RELEASE", "newer")
    assert crown(store, name, encoders[1], scored(0.82)).version == 3
    assert aliases(store, name) == {CHAMPION: 3, PREVIOUS: 1}
    with pytest.raises(ValueError, match=r"/2 was champion before \(replaced as champion by version 3"):
        promote(versions_of(name=name, tracking=store)[1], tracking=store)
    assert rollback(to=2, why="the newer code is slow", name=name, tracking=store).version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}
    assert rollback(why="wrong gains", name=name, tracking=store).version == 1
    assert aliases(store, name) == {CHAMPION: 1, PREVIOUS: 2}


def test_newer_code_does_not_bring_back_weights_that_were_rolled_back(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.80))
    crown(store, name, encoders[1], scored(0.82))
    rollback(why="wrong gains", name=name, tracking=store)
    monkeypatch.setattr("pipelines.versions.RELEASE", "newer")
    with pytest.raises(ValueError, match=r"/2 was champion before .*wrong gains.*ecg rollback"):
        crown(store, name, encoders[1], scored(0.82))
    assert rollback(to=3, why="the gains were the code's", name=name, tracking=store).version == 3
    assert aliases(store, name) == {CHAMPION: 3, PREVIOUS: 1}


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


def test_a_verdict_is_written_down_and_moves_the_aliases(store: Tracking, encoders: list[Path], name: str) -> None:
    first = crown(store, name, encoders[0], scored(0.80))
    assert aliases(store, name) == {CHAMPION: 1}
    refused = judged(store, put(store, name, encoders[1], scored(0.78)), holds=False, against=1)
    with pytest.raises(ValueError, match=r"/2 has not passed the gate: kept as challenger: not_worse"):
        promote(refused, tracking=store)
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    crown(store, name, encoders[2], scored(0.795))
    assert aliases(store, name) == aliases_of(name=name, tracking=store) == {CHAMPION: 3, PREVIOUS: 1}

    newest, second, oldest = versions_of(name=name, tracking=store)
    assert [newest.version, second.version, oldest.version] == [3, 2, 1]
    assert oldest.tags["verdict"] == first.tags["verdict"] == "promoted: not_worse was looked at"
    assert second.verdict is not None
    assert not second.verdict.promote
    assert [what.partition(":")[0] for what in oldest.moves.values()] == [
        "champion",
        "replaced as champion by version 3",
    ]
    assert (list(second.moves), len(newest.moves)) == ([], 1)
    page = store.client().get_model_version(name, "2").description
    assert page is not None
    assert page.startswith("**Kept as challenger.** Against version 1.")


def test_only_what_passed_against_the_champion_there_is_is_promoted(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    with pytest.raises(ValueError, match=r"/1 has not passed the gate: not judged"):
        promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    stale = judged(store, put(store, name, encoders[1], scored(0.9)), against=None)
    crown(store, name, encoders[0], scored(0.8))
    with pytest.raises(ValueError, match="judged against version None, and version 1 is champion now: judge it again"):
        promote(stale, tracking=store)
    assert aliases(store, name) == {CHAMPION: 1}


def test_a_challenger_that_was_refused_stays_one_when_it_is_released_again(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    judged(store, put(store, name, encoders[1], scored(0.7)), holds=False, against=1)
    put(store, name, encoders[1], scored(0.7))
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    again = promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    assert again.version == 1, "the champion is told to be what it is"
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}


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
        again = registered_encoder(model, tmp_path / "again", tracking=store)
        assert again.read_bytes() == encoders[0].read_bytes()
    for model in (f"models:/{name}@nobody", f"models:/{name}/99", "models:/none@champion"):
        with pytest.raises(ValueError, match="is not registered at"):
            registered_encoder(model, tmp_path / "again", tracking=store)
    with pytest.raises(ValueError, match="names no registered encoder: use models:/ecg-encoder@champion"):
        registered_encoder("champion", tmp_path / "again", tracking=store)


def test_going_back_swaps_the_champion_with_the_previous_and_says_why(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    with pytest.raises(ValueError, match="has no champion"):
        rollback(why="x", name=name, tracking=store)
    crown(store, name, encoders[0], scored(0.80))
    with pytest.raises(ValueError, match="has no previous champion: name a version"):
        rollback(why="x", name=name, tracking=store)
    crown(store, name, encoders[1], scored(0.82))
    put(store, name, encoders[2], scored(0.81))
    now = rollback(why="wrong gains since Monday", name=name, tracking=store)
    assert now.version == 1
    assert aliases(store, name) == {CHAMPION: 1, PREVIOUS: 2, CHALLENGER: 3}
    assert list(now.moves.values())[-1] == "champion: rolled back from version 2: wrong gains since Monday"
    for wrong, message in ((1, "is the champion already"), (3, "never was champion"), (9, "use one of 1, 2, 3")):
        with pytest.raises(ValueError, match=message):
            rollback(to=wrong, why="x", name=name, tracking=store)
    passed = next(one for one in versions_of(name=name, tracking=store) if one.version == 2)
    assert passed.verdict is not None
    assert passed.verdict.promote
    with pytest.raises(ValueError, match=r"was champion before .*ecg rollback"):
        promote(passed, tracking=store)  # its verdict stands, and names the champion that there is
    assert rollback(to=2, why="it was the hospital", name=name, tracking=store).version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: 3}
    store.client().delete_registered_model_alias(name, CHAMPION)  # by hand, in MLflow's UI
    with pytest.raises(ValueError, match="has no champion"):
        rollback(why="x", name=name, tracking=store)
    assert rollback(to=2, why="it was deleted", name=name, tracking=store).version == 2


@pytest.mark.slow
def test_a_version_serves_what_its_encoder_gives_and_nothing_else(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    release = put(store, name, encoders[0], scored(0.8))
    good = serves(release, packaged_encoder(encoders[0]), tracking=store)
    assert good.holds, good.seen
    other = serves(release, packaged_encoder(encoders[1]), tracking=store)
    assert not other.holds
    assert "differs by" in other.seen


def test_a_pull_that_fails_or_hangs_says_nothing_of_the_version(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, so that it is tried again: a full disk is no reason to refuse a training."""
    release, packaged = put(store, name, encoders[0], scored(0.8)), packaged_encoder(encoders[0])
    with pytest.raises(RuntimeError, match=rf"models:/{name}/77 could not be pulled and run: .*not found"):
        serves(replace(release, version=77), packaged, tracking=store)
    monkeypatch.setattr("pipelines.release.packaging._PULL_SECONDS", 0.2)
    with pytest.raises(TimeoutError, match=rf"models:/{name}/1 was not pulled and run within 0.2 s"):
        serves(release, packaged, tracking=store)


MOVES = (
    "set_registered_model_tag",
    "set_model_version_tag",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "delete_registered_model_tag",
)
"""What a promotion does in MLflow, in order."""
BACK = tuple(step for step in MOVES if step != "delete_registered_model_alias")  # there is no challenger to drop


def dying(patch: pytest.MonkeyPatch, at: int, moves: tuple[str, ...]) -> None:
    """The process dies before this step of a move."""
    done: list[str] = []

    def step(called: str) -> Callable[..., Any]:
        whole = getattr(MlflowClient, called)

        def do(*given: Any) -> Any:
            if len(done) == at:
                raise KeyboardInterrupt
            done.append(called)
            assert done == list(moves[: len(done)])
            return whole(*given)

        return do

    for called in set(MOVES):
        patch.setattr(MlflowClient, called, step(called))


@pytest.mark.parametrize("at", range(len(MOVES)))
def test_a_promotion_that_died_half_way_is_ended_by_the_next_call(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    challenger = judged(store, put(store, name, encoders[1], scored(0.9)), against=1)
    with monkeypatch.context() as patch:
        dying(patch, at, MOVES)
        with pytest.raises(KeyboardInterrupt):
            promote(challenger, tracking=store)
    again = put(store, name, encoders[1], scored(0.9))  # as the gate does, which ends what was begun
    assert len(again.moves) == (0 if at == 0 else 1)
    assert promote(again, tracking=store).version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}
    first, second = (list(one.moves.values()) for one in reversed(versions_of(name=name, tracking=store)))
    assert [move.split(":")[0] for move in first] == ["champion", "replaced as champion by version 2"]
    assert [move.split(":")[0] for move in second] == ["champion"]


@pytest.mark.parametrize("at", range(len(BACK)))
def test_a_rollback_that_died_half_way_is_ended_by_the_next_and_not_turned_round(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    crown(store, name, encoders[1], scored(0.82))
    with monkeypatch.context() as patch:
        dying(patch, at, BACK)
        with pytest.raises(KeyboardInterrupt):
            rollback(why="wrong gains", name=name, tracking=store)
    assert rollback(why="wrong gains", name=name, tracking=store).version == 1
    assert aliases(store, name) == {CHAMPION: 1, PREVIOUS: 2}


def halfway(patch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """`meanwhile` happens in the next move, once it is written on the model and nothing else."""
    whole = MlflowClient.set_model_version_tag

    def do(*given: Any) -> None:
        patch.undo()
        meanwhile()
        whole(*given)

    patch.setattr(MlflowClient, "set_model_version_tag", do)


def test_of_a_promotion_and_a_rollback_at_once_one_waits_for_the_other(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    crown(store, name, encoders[1], scored(0.82))
    challenger = judged(store, put(store, name, encoders[2], scored(0.9)), against=2)
    began: list[Future[Release]] = []
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:

        def meanwhile() -> None:
            began.append(pool.submit(rollback, why="wrong gains", name=name, tracking=store))
            with pytest.raises(TimeoutError):
                began[0].result(timeout=1.0)

        halfway(patch, meanwhile)
        assert promote(challenger, tracking=store).version == 3
        assert began[0].result(timeout=60).version == 2, "the champion before the one that was just made"
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 3}


def test_a_move_from_another_home_is_not_overwritten(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two homes on one store hold different locks."""
    other = Tracking(uri=store.uri, artifact_root=tmp_path / "home" / "artifacts")
    crown(store, name, encoders[0], scored(0.8))
    crown(store, name, encoders[1], scored(0.82))
    challenger = judged(store, put(store, name, encoders[2], scored(0.9)), against=2)
    with monkeypatch.context() as patch:
        halfway(patch, lambda: rollback(why="wrong gains", name=name, tracking=other))
        with pytest.raises(RuntimeError, match=f"moved the aliases of {name} meanwhile: look with `ecg models`"):
            promote(challenger, tracking=store)
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 3}, "as the rollback said"


QUIET = """
import sys
from pathlib import Path
from pipelines.harmonize.checks import Finding
from pipelines.release.gate import Verdict
from pipelines.release.registry import Scores, promote, record, packaged_encoder, release_packaged
from pipelines.tracking import Tracking
root = Path(sys.argv[2])
tracking = Tracking(uri=f"sqlite:///{root / 'mlflow.db'}", artifact_root=root / "artifacts")
packaged = packaged_encoder(Path(sys.argv[1]))
made = release_packaged(packaged, Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking)
made = record(made, Verdict(against=None, rules={"not_worse": Finding.passed("first")}), tracking=tracking)
print(promote(made, tracking=tracking).version)
"""


@pytest.mark.slow
def test_a_release_in_a_new_store_says_nothing_on_the_terminal(encoders: list[Path], tmp_path: Path) -> None:
    command = [sys.executable, "-c", QUIET, str(encoders[0]), str(tmp_path)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n", "")


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

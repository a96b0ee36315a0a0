"""The mirror of a metrics file against real MLflow stores: SQLite, and a server that is killed and brought back."""

from __future__ import annotations

import base64
import json
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import mlflow.db
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Workspace
from pipelines.corpus.step import CorpusFacts
from pipelines.pretrain.recipes import Recipe, recipe_named
from pipelines.pretrain.step import materialize_encoder, send_metrics
from pipelines.release.steps import release_current
from pipelines.tracking import MIRROR_TAG, MetricsMirror, Tracking, arrived, flat, mirror_metrics
from tests.support.mlflow_server import free_port, mlflow_server

quick_mirror = partial(mirror_metrics, poll_seconds=0.02, flush_seconds=20.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], Tracking]) -> Tracking:
    return new_store(tmp_path_factory.mktemp("mlflow"))


def append(path: Path, *steps: int, **values: float) -> None:
    with path.open("a") as stream:
        for step in steps:
            stream.write(json.dumps({"step": step, "time": 1000.0 + step, "loss": 1.0 / (1 + step)} | values) + "\n")


def history(tracking: Tracking, mirror: MetricsMirror, key: str = "loss") -> list[tuple[int, float, int]]:
    assert mirror.run_id is not None
    metrics = tracking.client().get_metric_history(mirror.run_id, key)
    return sorted((metric.step, metric.value, metric.timestamp) for metric in metrics)


def expected(*steps: int) -> list[tuple[int, float, int]]:
    return [(step, 1.0 / (1 + step), 1000 * (1000 + step)) for step in steps]


def wait_until(true: Callable[[], bool]) -> None:
    """Bounded by the test's own timeout: what is waited for either comes or the test fails there."""
    while not true():
        time.sleep(0.05)


def runs(tracking: Tracking, name: str) -> list[str]:
    client = tracking.client()
    runs = client.search_runs([tracking.experiment_id(client)], f"attributes.run_name = '{name}'")
    return [run.info.run_id for run in runs]


@pytest.mark.parametrize("uri", ["http://bob:s3cret@host:5000", "postgresql+psycopg2://bob:s3cret@host/mlflow"])
def test_a_password_in_a_store_s_address_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        Tracking(uri=uri, artifact_root=Path())
    assert "s3cret" not in str(refused.value)
    Tracking(uri=uri.replace(":s3cret", ""), artifact_root=Path())


def test_a_server_behind_a_password_is_asked_with_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == f"Basic {base64.b64encode(b'bob:s3cret').decode()}"
            self.send_response(200 if known else 401)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracking = Tracking(uri=f"http://127.0.0.1:{server.server_port}")
        assert tracking.health(10).status_code == 401
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "bob")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
        assert tracking.health(10).status_code == 200
        server.shutdown()


def test_every_line_arrives_once_with_its_step_and_time(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    settings = {"encoder": {"dim": 768}, "seed": 0}
    with quick_mirror(path, tracking=store, run_name="whole", tags={"corpus": "abc"}, params=settings) as m:
        append(path, *range(5))
        append(path, *range(5, 2500), rank=2)
    assert history(store, m) == expected(*range(2500))
    assert [step for step, _, _ in history(store, m, "rank")] == list(range(5, 2500))
    run = store.client().get_run(m.run_id or "")
    assert run.info.status == "FINISHED"
    assert run.data.params == {"encoder.dim": "768", "seed": "0"}
    assert run.data.tags["corpus"] == "abc"


def test_metrics_arrive_while_the_body_still_works(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with quick_mirror(path, tracking=store, run_name="live") as mirror:
        append(path, 0, 1)
        wait_until(lambda: mirror.run_id is not None and len(history(store, mirror)) == 2)


def test_a_resumed_training_continues_its_run_and_logs_nothing_twice(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with quick_mirror(path, tracking=store, run_name="resumed") as first:
        append(path, *range(8))
    lines = path.read_text().splitlines(keepends=True)
    with quick_mirror(path, tracking=store, run_name="resumed", params={"new": 1}) as second:
        path.write_text("".join(lines[:5]))  # back to the checkpoint at step 5
        append(path, *range(5, 12))
    assert second.run_id == first.run_id
    assert runs(store, "resumed") == [first.run_id]
    assert history(store, second) == expected(*range(12))


def test_a_file_cut_back_under_a_running_mirror_is_read_again(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with quick_mirror(path, tracking=store, run_name="cut") as mirror:
        append(path, *range(6))
        wait_until(lambda: mirror.run_id is not None and len(history(store, mirror)) == 6)
        path.write_text("")
        append(path, *range(3, 20))  # longer than what was read: the size alone does not tell
    assert history(store, mirror) == expected(*range(20))


def test_a_mirror_that_died_between_run_and_answer_finds_its_run(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    (tmp_path / "metrics.jsonl.mlflow.json").write_text(json.dumps({"key": "k1"}))
    client = store.client()
    run = client.create_run(store.experiment_id(client), tags={MIRROR_TAG: "k1"}, run_name="orphan")
    client.log_metric(run.info.run_id, "loss", 1.0, timestamp=1000000, step=0)
    append(path, 0, 1)
    with quick_mirror(path, tracking=store, run_name="orphan") as mirror:
        pass
    assert mirror.run_id == run.info.run_id
    assert history(store, mirror) == expected(0, 1)


def test_a_torn_line_is_left_out_and_the_rest_arrives(
    store: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, 0)
    with path.open("a") as stream:
        stream.write('{"step": 1, "lo{"step": 1, "loss": 0.5}\n[1]\n{"loss": 3}\n')
    append(path, 2)
    with path.open("a") as stream:
        stream.write('{"step": 3, "loss": 0.')  # not whole yet
    with quick_mirror(path, tracking=store, run_name="torn") as mirror:
        pass
    assert history(store, mirror) == expected(0, 2)
    assert sum("not a metric" in message for message in caplog.messages) == 3


def test_what_is_not_a_number_is_left_out(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "loss": NaN, "phase": "warm-up", "done": false, "mask": null}\n')
    with quick_mirror(path, tracking=store, run_name="kinds") as mirror:
        pass
    metrics = store.client().get_run(mirror.run_id or "").data.metrics
    assert list(metrics) == ["loss"]
    assert metrics["loss"] != metrics["loss"]


def test_a_training_that_fails_ends_its_run_as_failed_and_its_error_passes(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def train() -> None:
        with quick_mirror(path, tracking=store, run_name="failed"):
            append(path, 0)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        train()
    client = store.client()
    (run_id,) = runs(store, "failed")
    assert client.get_run(run_id).info.status == "FAILED"
    assert [metric.step for metric in client.get_metric_history(run_id, "loss")] == [0]


def test_a_store_that_is_never_there_costs_a_bounded_wait_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    tracking = Tracking(uri=f"http://127.0.0.1:{free_port()}")
    caplog.set_level(logging.WARNING)
    with mirror_metrics(path, tracking=tracking, run_name="away", poll_seconds=0.02, flush_seconds=0.5) as mirror:
        append(path, 0)
    assert mirror.run_id is None
    assert "not everything reached MLflow" in caplog.messages[-1]
    assert str(path) in caplog.messages[-1]
    assert sum("trying again" in message for message in caplog.messages) == 1, "an outage is told once"


def a_training_whose_server_is_away(workspace: Workspace) -> Callable[[list[str]], None]:
    """What stands in for the program: its metrics reach nobody as it ends."""
    away = Tracking(uri=f"http://127.0.0.1:{free_port()}", experiment="pretrain")

    def launch(command: list[str]) -> None:
        out = Path(command[command.index("--out") + 1])
        recipe = Recipe.from_dict(json.loads(command[command.index("--recipe-json") + 1]))
        digests = {"recipe_digest": recipe.digest, "corpus_digest": workspace.require("corpus").facts["digest"]}
        (out / "summary.json").write_text(json.dumps({"recipe": recipe.to_dict(), **digests}))
        save_encoder(out / "encoder.safetensors", random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0))
        with mirror_metrics(out / "aside" / "metrics.jsonl", tracking=away, run_name="demo", flush_seconds=0.1):
            append(out / "aside" / "metrics.jsonl", *range(3))

    return launch


def test_what_did_not_arrive_as_a_training_ended_arrives_when_its_encoder_is_asked_for_or_released(
    store: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace, tracking = Workspace(tmp_path), replace(store, experiment="pretrain")
    corpus = CorpusFacts(
        considered=9, train=5, validation=4, excluded={}, by_source={}, patients=9, digest="c" * 64
    ).to_dict()
    workspace.build("corpus", version="1", config={}, inputs={}, make=lambda folder: corpus)
    launch, client = a_training_whose_server_is_away(workspace), tracking.client()

    def mirrored(recipe: Recipe) -> list[tuple[str, int]]:
        runs = client.search_runs([tracking.experiment_id(client)], f"tags.recipe_digest = '{recipe.digest}'")
        return [(run.info.status, len(client.get_metric_history(run.info.run_id, "loss"))) for run in runs]

    requested, released = (recipe_named("demo", {"seed": seed}) for seed in (1, 2))
    materialize_encoder(workspace, requested, launch)
    assert mirrored(requested) == []
    again = materialize_encoder(workspace, requested, launch, track=store.uri, artifact_root=store.artifact_root)
    assert again.cached
    assert mirrored(requested) == [("FINISHED", 3)]

    encoder = materialize_encoder(workspace, released, launch)
    with pytest.raises(ValueError, match="is not built"):  # it was never probed
        release_current(workspace, store, simulated=True)
    assert mirrored(released) == [("FINISHED", 3)]
    caplog.clear()
    send_metrics(encoder, Tracking(uri=f"http://127.0.0.1:{free_port()}"))
    assert not caplog.messages, "nothing is left to send, so nobody is asked"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uri": "mlruns"}, "no file store"),
        ({"uri": "file:///tmp/mlruns"}, "no file store"),
        ({"uri": "sqlite:///x.db"}, "artifact_root is missing"),
    ],
)
def test_a_wrong_setting_says_what_to_write(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tracking(**settings)


def test_the_experiment_is_made_once_by_many(store: Tracking) -> None:
    tracking = replace(store, experiment="many")
    ids: list[str] = []
    workers = [threading.Thread(target=lambda: ids.append(tracking.experiment_id(tracking.client()))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1
    assert store.artifact_root is not None
    assert tracking.client().get_experiment(ids[0]).artifact_location == (store.artifact_root / "many").as_uri()


def test_nested_settings_become_dotted_parameters() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": None}, "e": [1, 2]}) == {"a.b.c": "1", "a.d": "None", "e": "[1, 2]"}


@pytest.mark.slow
def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow cannot open a store with half of its tables, and nobody would know what to do about it."""
    store = Tracking(uri=f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}", artifact_root=tmp_path / "artifacts")
    with sqlite3.connect(tmp_path / "half.db") as half:
        half.execute("create table mcp_servers (name text)")

    def killed(uri: str) -> None:
        shutil.copyfile(tmp_path / "half.db", uri.removeprefix("sqlite:///"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.db.upgrade, "callback", killed)
        with pytest.raises(KeyboardInterrupt):
            store.upgrade()
    assert store.experiment_id(store.client())


def test_metrics_whose_state_was_lost_count_as_not_delivered(store: Tracking, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with quick_mirror(path, tracking=store, run_name="lost"):
        append(path, 0)
    assert arrived(path)
    (tmp_path / "metrics.jsonl.mlflow.json").write_bytes(bytes(20))
    assert not arrived(path)
    with quick_mirror(path, tracking=store, run_name="lost") as mirror:
        pass
    assert history(store, mirror) == expected(0)


@pytest.mark.parametrize("kind", ["run", "model"])
def test_artifacts_are_flushed_by_the_id_of_their_run_or_model(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Tracking(uri="http://127.0.0.1:1", artifact_root=tmp_path)
    file = tmp_path / "1" / kind / "m-7" / "artifacts" / "weights"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"w")
    flushed: list[Path] = []
    monkeypatch.setattr("pipelines.durable.flush", flushed.append)
    store.flush("m-7")
    assert flushed == [*[file, *file.parents][:5], tmp_path]


@pytest.mark.slow
def test_a_server_killed_in_mid_training_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "metrics.jsonl"
    tracking = Tracking(uri=f"http://127.0.0.1:{port}")
    with mirror_metrics(path, tracking=tracking, run_name="outage", poll_seconds=0.1, flush_seconds=60) as mirror:
        append(path, *range(10))  # no server yet
        with mlflow_server(tmp_path, port):
            wait_until(lambda: mirror.run_id is not None and len(history(tracking, mirror)) == 10)
            append(path, *range(10, 20))
        append(path, *range(20, 1500))  # killed: training goes on
        with mlflow_server(tmp_path, port):
            wait_until(lambda: len(history(tracking, mirror)) == 1500)
            append(path, *range(1500, 1510))
            wait_until(lambda: len(history(tracking, mirror)) == 1510)
            assert history(tracking, mirror) == expected(*range(1510))
            assert runs(tracking, "outage") == [mirror.run_id]
            mirror.close(failed=False, flush_seconds=60)
            assert tracking.client().get_run(mirror.run_id or "").info.status == "FINISHED"

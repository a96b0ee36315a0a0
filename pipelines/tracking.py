"""MLflow: the address of a store, and a thread that copies a training's metrics file to a run.

Training appends JSON lines to a file and does not use MLflow. `mirror_metrics` follows that file from a thread of the
process that started the training. A server that is unreachable costs the training nothing: the file is the queue, and
its lines arrive when the server is back. The last step of each metric is read from the server, so a mirror that was
killed anywhere, even between a batch and its answer, continues without a gap and logs nothing twice.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from pipelines import durable
from pipelines.addresses import is_address, require_no_credentials, shown
from pipelines.durable import write_atomically

# Read by MLflow when it is imported. A user's own setting wins.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

with warnings.catch_warnings():
    # MLflow 3.17 warns of its own type hints and of SQLAlchemy 2.1's deprecations while it is imported.
    warnings.simplefilter("ignore")
    import mlflow.db
    import mlflow.pyfunc
    import mlflow.store.tracking.sqlalchemy_store
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run, RunStatus
    from mlflow.exceptions import MlflowException
    from mlflow.tracking.context.registry import resolve_tags

log = logging.getLogger(__name__)

_WITH_USERS = ("http", "sqlite", "postgresql", "mysql", "mssql")  # schemes of addresses that may name a user
MIRROR_TAG = "ecg.mirror"
_BATCH = 1000  # MLflow's limit of metrics in one request
_CHUNK = 1 << 20  # bytes of the metrics file read at a time
_LONGEST_WAIT = 30.0  # seconds between two attempts


class HasStore(Protocol):
    """A data home (`pipelines.home`)."""

    @property
    def tracking_uri(self) -> str: ...
    @property
    def artifact_root(self) -> Path: ...


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """An MLflow store and one experiment in it."""

    uri: str  # of a server (http, https) or a database (sqlite, postgresql...)
    experiment: str = "ecg-foundry"
    artifact_root: Path | None = None
    """The folder for artifacts; needed with a database, ignored with a server, which has its own."""

    def __post_init__(self) -> None:
        require_no_credentials(
            self.uri,
            "the tracking uri",
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server, or the driver's variable, such as "
            "PGPASSWORD, for a database",
            login=self.uri.lower().startswith(_WITH_USERS),
        )
        if "://" not in self.uri or self.uri.startswith("file:"):
            raise ValueError(
                f"tracking uri {shown(self.uri)}: MLflow 3 has no file store; use sqlite:///FILE, a database or "
                "http(s)://"
            )
        if self.artifact_root is not None and is_address(str(self.artifact_root)):
            raise ValueError(f"artifact_root {shown(str(self.artifact_root))}: give a folder of this machine")
        if not self.is_server and self.artifact_root is None:
            raise ValueError(f"artifact_root is missing: a store at {self.uri} needs a folder for its artifacts")

    @classmethod
    def of(cls, home: HasStore) -> Tracking:
        """Return the store of a data home."""
        return cls(uri=home.tracking_uri, artifact_root=home.artifact_root)

    @property
    def is_server(self) -> bool:
        """Whether the store is a server, not a database."""
        return self.uri.lower().startswith(("http://", "https://"))

    def upgrade(self) -> None:
        """Migrate a database to the schema of this MLflow, or create it. Does nothing for a server."""
        if not self.is_server:
            self._make_database()
            _migrate(self.uri)

    def health(self, seconds: float) -> httpx.Response:
        """Return a server's health answer, within seconds; MLflow's own retries take minutes.

        Raises httpx.HTTPError if there is no answer.
        """
        name, password = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD"))
        credentials = (name, password) if name and password else None
        return httpx.get(f"{self.uri.rstrip('/')}/health", auth=credentials, timeout=seconds)

    def client(self) -> MlflowClient:
        """Return a client of this store; an SQLite store is created if it does not exist."""
        self._make_database()
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def flush(self, *parts: str) -> None:
        """Write to the disk what was stored so far, as far as it is below this home.

        parts: ids of runs and models, whose artifacts are written to the disk: MLflow does not. A server on another
        machine has its own. SQLite leaves it to the file system when the journal of a change that is made goes away;
        if it comes back, the change is undone.
        """
        if self.artifact_root is not None:
            folders = [folder for part in parts for folder in self.artifact_root.rglob(part)]
            files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
            durable.flush_files(files, self.artifact_root)
        if self._file is not None:
            durable.flush(self._file.parent)

    @property
    def _file(self) -> Path | None:
        """The file of an SQLite store."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None

    def _make_database(self) -> None:
        """Create an SQLite store that does not exist, whole: MLflow could not go on with half of its tables."""
        if self._file is None or self._file.is_file():
            return
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "mlflow.db"
            _migrate(f"sqlite:///{made}")
            durable.write_once(self._file, made.read_bytes())

    def experiment_id(self, client: MlflowClient) -> str:
        """Return the experiment's id; the experiment is created if it does not exist."""
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is None:
            local = None if self.is_server else self.artifact_root
            location = None if local is None else (local.resolve() / self.experiment).as_uri()
            try:
                return client.create_experiment(self.experiment, artifact_location=location)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = client.get_experiment_by_name(self.experiment)
                assert experiment is not None
        return experiment.experiment_id


def _migrate(uri: str) -> None:
    assert mlflow.db.upgrade.callback is not None  # it is a command
    mlflow.db.upgrade.callback(uri)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to MLflow parameters: {"encoder": {"dim": 768}} -> {"encoder.dim": "768"}."""
    result: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = str(value)
    return result


@contextmanager
def mirror_metrics(
    metrics_path: Path,
    *,
    tracking: Tracking,
    run_name: str,
    tags: Mapping[str, str] | None = None,
    params: Mapping[str, Any] | None = None,
    poll_seconds: float = 1.0,
    flush_seconds: float = 30.0,
) -> Iterator[MetricsMirror]:
    """Log the lines of `metrics_path` to a run of `tracking` while the body runs, then end the run.

    A line is a JSON object: `step` (int), numbers, and optionally `time` (seconds since 1970), the time that MLflow
    shows; other values are ignored. The run's key is stored in `<metrics_path>.mlflow.json`, so the next mirror of the
    same file continues the run. No error of MLflow reaches the body.

    poll_seconds: between two looks at the file.
    flush_seconds: the longest time spent at the end on lines not delivered yet; a warning names the rest, and `arrived`
        returns False.
    """
    mirror = MetricsMirror(metrics_path, tracking, run_name, dict(tags or {}), flat(params or {}), poll_seconds)
    mirror.start()
    try:
        yield mirror
    except BaseException:
        mirror.close(failed=True, flush_seconds=flush_seconds)
        raise
    mirror.close(failed=False, flush_seconds=flush_seconds)


def arrived(metrics_path: Path) -> bool:
    """Return whether no line of this file waits for delivery: all were delivered, or it was never mirrored."""
    state = _state_of(metrics_path)
    return not state.is_file() or _stored_in(state).get("delivered", False)


def mirrored_run(metrics_path: Path, tracking: Tracking) -> str | None:
    """Return the id of the run that a file was mirrored to, or None if there is none in this store."""
    key = _stored_in(_state_of(metrics_path)).get("key")
    client = tracking.client()
    run = None if key is None else _run_of(client, tracking.experiment_id(client), key)
    return None if run is None else run.info.run_id


def _run_of(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """Return the run of a mirror's key."""
    runs = client.search_runs([experiment], f"tags.`{MIRROR_TAG}` = '{key}'", max_results=1)
    return runs[0] if runs else None


def _state_of(metrics_path: Path) -> Path:
    return metrics_path.with_name(f"{metrics_path.name}.mlflow.json")


def _stored_in(state: Path) -> dict[str, Any]:
    """Return the key of a mirror's run, and whether all was delivered; nothing if the file is absent or damaged."""
    try:
        return dict(json.loads(state.read_text())) if state.is_file() else {}
    except (ValueError, TypeError):
        log.warning("%s cannot be read: the metrics beside it go to a new run", state)
        return {}


class MetricsMirror:
    """The thread behind `mirror_metrics`. `run_id` is None until the store has answered once."""

    def __init__(
        self,
        metrics_path: Path,
        tracking: Tracking,
        run_name: str,
        tags: dict[str, str],
        params: dict[str, str],
        poll_seconds: float,
    ) -> None:
        self.run_id: str | None = None
        self._path, self._tracking, self._poll = metrics_path, tracking, poll_seconds
        self._run_name, self._tags, self._params = run_name, tags, params
        self._state_path = _state_of(metrics_path)
        self._key = self._known_or_new_key()
        self._store(delivered=False)  # the key is stored before the run is created, so there is never a second run
        self._client: MlflowClient | None = None  # None: (re)connect before the next batch
        self._logged: dict[str, int] = {}  # metric -> the last step that was sent
        # How far the file was read, and the line that ends there, which shows whether the file was rewritten since.
        self._offset, self._last_line = 0, b""
        self._closing, self._deadline = threading.Event(), float("inf")
        self._status, self._delivered, self._failure = "FINISHED", False, ""
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)

    def start(self) -> None:
        """Start following the file."""
        self._thread.start()

    def close(self, *, failed: bool, flush_seconds: float) -> None:
        """Deliver the remaining lines and end the run, within flush_seconds."""
        self._status = "FAILED" if failed else "FINISHED"
        self._deadline = time.monotonic() + flush_seconds
        self._closing.set()
        self._thread.join(flush_seconds + 1)
        if not self._delivered:
            log.warning(
                "%s: not everything reached MLflow at %s within %.0f s (%s); the next mirror of it sends the rest",
                self._path,
                self._tracking.uri,
                flush_seconds,
                self._failure or "no answer",
            )

    def _work(self) -> None:
        """Deliver new lines until closed, and retry with growing waits after errors."""
        failures = 0
        while True:
            closing = self._closing.is_set()  # read before the delivery, so that all lines written until then are sent
            try:
                self._deliver()
                if closing:
                    self._end_run()
                    return
                failures = 0
                wait = self._poll
            except Exception as error:  # whatever the store does, training continues and the file has the lines
                self._client, self._failure = None, f"{type(error).__name__}: {error}".splitlines()[0][:200]
                if failures == 0:
                    log.warning("MLflow at %s: %s; trying again", self._tracking.uri, self._failure)
                wait = min(self._poll * 2 ** min(failures, 10), _LONGEST_WAIT)
                failures += 1
            if closing:
                remaining = self._deadline - time.monotonic()
                if remaining <= 0:
                    return
                time.sleep(min(wait, remaining, 1.0))
            else:
                self._closing.wait(wait)

    def _deliver(self) -> None:
        """Send every complete line of the file that the store does not have yet."""
        client = self._client or self._connect()
        assert self.run_id is not None
        for lines in self._complete_lines():
            metrics = [metric for line in lines for metric in self._metrics_of(line)]
            for start in range(0, len(metrics), _BATCH):
                client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])

    def _connect(self) -> MlflowClient:
        """Find or create the run and read each metric's last step; the file is then read from its beginning."""
        if self._tracking.is_server:
            answer = self._tracking.health(5.0)
            if answer.is_server_error:  # from a proxy whose server is down; any other answer is from a running server
                answer.raise_for_status()
        client = self._tracking.client()
        experiment = self._tracking.experiment_id(client)
        run = _run_of(client, experiment, self._key)
        if run is None:
            # With the source and the commit of the program, as `mlflow.start_run` tells them.
            tags = resolve_tags({**self._tags, MIRROR_TAG: self._key})
            run = client.create_run(experiment, tags=tags, run_name=self._run_name)
        elif run.info.status != RunStatus.to_string(RunStatus.RUNNING):
            client.update_run(run.info.run_id, status="RUNNING")
        self.run_id = run.info.run_id
        new = [Param(key, value) for key, value in self._params.items() if key not in run.data.params]
        if new:
            client.log_batch(self.run_id, params=new)
        self._logged = {
            key: max(metric.step for metric in client.get_metric_history(self.run_id, key)) for key in run.data.metrics
        }
        self._offset, self._last_line = 0, b""
        self._client = client
        return client

    def _end_run(self) -> None:
        assert self._client is not None
        assert self.run_id is not None
        self._client.set_terminated(self.run_id, self._status)
        self._tracking.flush()  # before the state that vouches for it
        self._store(delivered=True)
        self._delivered = True

    def _complete_lines(self) -> Iterator[list[bytes]]:
        """Yield the lines after the last one read, in chunks; all lines if the file was truncated or rewritten."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._offset - len(self._last_line))
            if stream.read(len(self._last_line)) != self._last_line:
                self._offset, self._last_line = 0, b""
                stream.seek(0)
            rest = b""
            while chunk := stream.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                if lines:
                    yield lines
                    self._last_line = lines[-1] + b"\n"
                    self._offset = stream.tell() - len(rest)

    def _metrics_of(self, line: bytes) -> list[Metric]:
        """Return the numbers of a line that were not sent before."""
        try:
            values = json.loads(line)
            step = int(values.pop("step"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # A process killed in mid-line leaves one such line.
            log.warning("%s: a line that is not a metric is left out (%s): %.80r", self._path, error, line)
            return []
        timestamp = int(1000 * values.pop("time", time.time()))
        numbers = {key: value for key, value in values.items() if type(value) in (int, float)}
        new = {key: value for key, value in numbers.items() if step > self._logged.get(key, -1)}
        self._logged |= dict.fromkeys(new, step)  # read from the store again if the batch does not arrive
        return [Metric(key, float(value), timestamp, step) for key, value in new.items()]

    def _known_or_new_key(self) -> str:
        return _stored_in(self._state_path).get("key") or uuid.uuid4().hex

    def _store(self, *, delivered: bool) -> None:
        write_atomically(self._state_path, json.dumps({"key": self._key, "delivered": delivered}).encode())

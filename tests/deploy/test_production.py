"""Production on PostgreSQL as docs/production.md has it: started by its one command, killed piece by piece, backed up,
lost and restored."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from pipelines.home import Home
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.tracking import Tracking
from tests.support.older_mlflow import make_older
from tests.support.paths import ROOT
from tests.support.postgres import PASSWORD, USER, Postgres, free_port, postgres

SERVERS = ("code-server", "daemon", "mlflow", "webserver")
ENCODER = EncoderConfig(dim=16, depth=1, heads=2)
HOST = "127.0.0.2"
"""Where the UIs listen: an address that is not the usual one, which every program has to be told."""
LOCATION = {"repositoryLocationName": "ecg-foundry", "repositoryName": "__repository__"}


def write_environment(file: Path, values: dict[str, str]) -> None:
    """Write an environment file that only its owner reads."""
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))


class Production:
    """The stack of deploy/start: its addresses, and what can be asked of it."""

    def __init__(self, folder: Path, database: Postgres) -> None:
        self.home, self.database, self.file = folder / "home", database, folder / "environment"
        self.ports = {name: free_port() for name in ("DAGSTER", "MLFLOW")}
        values = {
            **dict(line.split("=", 1) for line in _example()),
            "ECG_HOME": str(self.home),
            "PGPORT": str(database.port),
            "PGUSER": USER,
            "PGPASSWORD": f"'{PASSWORD}'",
            "ECG_MIRROR": str(folder / "mirror"),
            "ECG_HOST": HOST,
            **{f"ECG_{name}_PORT": str(port) for name, port in self.ports.items()},
        }
        write_environment(self.file, values)
        self.address = f"http://{HOST}:{self.ports['DAGSTER']}"
        self.tracking = Tracking(uri=f"http://{HOST}:{self.ports['MLFLOW']}")

    def script(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.database.binaries}:{os.environ['PATH']}"
        return subprocess.run(
            [str(ROOT / "deploy" / name), *arguments],
            capture_output=True,
            text=True,
            env={**_bare(), "PATH": path},
            cwd="/",
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        with subprocess.Popen(
            [str(ROOT / "deploy" / "start"), str(self.file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_bare(),
            cwd="/",
        ) as stack:
            try:
                until(self.loaded, "the code location is loaded", stack)
                until(lambda: self.healthy("mlflow"), "MLflow answers", stack)
                yield
            finally:
                stack.send_signal(signal.SIGTERM)
                assert stack.wait(60) == 0
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{self.address}/server_info", timeout=2)

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.address}/graphql", json={"query": query, "variables": variables}, timeout=30)
        answer.raise_for_status()
        result = answer.json()
        assert "errors" not in result, result
        return result["data"]

    def loaded(self) -> bool:
        query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
        return bool(self.graphql(query)["repositoriesOrError"].get("nodes"))

    def healthy(self, server: str) -> bool:
        if server == "mlflow":
            return httpx.get(f"{self.tracking.uri}/health", timeout=5).status_code == 200
        if server == "daemon":
            query = "{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }"
            all_of = self.graphql(query)["instance"]["daemonHealth"]["allDaemonStatuses"]
            return all(daemon["healthy"] for daemon in all_of if daemon["required"])
        return self.loaded()

    def pid(self, server: str) -> int:
        command = [Path(sys.executable).with_name("supervisorctl"), "-c", ROOT / "deploy/supervisord.conf", "pid"]
        environment = {**_bare(), "ECG_HOME": str(self.home), "ECG_BIN": "", "ECG_HOST": ""}
        environment |= {f"ECG_{name}_PORT": "" for name in self.ports}
        completed = subprocess.run([*command, server], capture_output=True, text=True, env=environment, check=False)
        return int(completed.stdout or 0)

    def launch(self, partition: str) -> str:
        query = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        tags = [{"key": "dagster/partition", "value": partition}]
        selector = {**LOCATION, "jobName": "harvest_ptbxl"}
        run = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": tags}}
        launched = self.graphql(query, run=run)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def runs(self) -> dict[str, str]:
        query = "{ runsOrError { ... on Runs { results { runId status } } } }"
        return {run["runId"]: run["status"] for run in self.graphql(query)["runsOrError"]["results"]}

    def switch(self, cursor: str) -> None:
        """What somebody does in the UI: the sensor off, its cursor set, the schedule on; each is not what it is of
        itself."""
        sensor = {**LOCATION, "sensorName": "incoming_drops"}
        schedule = {**LOCATION, "scheduleName": "weekly_retraining"}
        state = "sensorOrError(sensorSelector: $at) { ... on Sensor { sensorState { id } } }"
        at = self.graphql(f"query($at: SensorSelector!) {{ {state} }}", at=sensor)["sensorOrError"]["sensorState"]["id"]
        self.graphql("mutation($id: String!) { stopSensor(id: $id) { __typename } }", id=at)
        # A tick that is under way writes its own cursor when it ends.
        until(lambda: "STARTED" not in self.last_ticks(sensor), "the sensor's last tick has ended")
        set_to = "setSensorCursor(sensorSelector: $at, cursor: $cursor) { __typename }"
        self.graphql(f"mutation($at: SensorSelector!, $cursor: String!) {{ {set_to} }}", at=sensor, cursor=cursor)
        start = "startSchedule(scheduleSelector: $at) { __typename }"
        self.graphql(f"mutation($at: ScheduleSelector!) {{ {start} }}", at=schedule)

    def last_ticks(self, sensor: dict[str, str]) -> list[str]:
        """The status of a sensor's last ticks."""
        about = "sensorOrError(sensorSelector: $at) { ... on Sensor { sensorState { ticks(limit: 3) { status } } } }"
        state = self.graphql(f"query($at: SensorSelector!) {{ {about} }}", at=sensor)["sensorOrError"]["sensorState"]
        return [tick["status"] for tick in state["ticks"]]

    def switches(self) -> dict[str, tuple[str, str | None]]:
        """Of each sensor and schedule, whether it is on, and its cursor."""
        about = "{ status typeSpecificData { ... on SensorData { lastCursor } } }"
        query = f"""query($at: RepositorySelector!) {{
            sensorsOrError(repositorySelector: $at) {{
                ... on Sensors {{ results {{ name state: sensorState {about} }} }} }}
            schedulesOrError(repositorySelector: $at) {{
                ... on Schedules {{ results {{ name state: scheduleState {about} }} }} }} }}"""
        data = self.graphql(query, at=LOCATION)
        listed = [*data["sensorsOrError"]["results"], *data["schedulesOrError"]["results"]]
        return {
            instigator["name"]: (
                instigator["state"]["status"],
                (instigator["state"]["typeSpecificData"] or {}).get("lastCursor"),
            )
            for instigator in listed
        }

    def materialized(self) -> list[str]:
        query = """{ assetNodeOrError(assetKey: {path: ["ecgs", "ptbxl"]}) {
            ... on AssetNode { assetMaterializations { partition } } } }"""
        return [
            materialization["partition"]
            for materialization in self.graphql(query)["assetNodeOrError"]["assetMaterializations"]
        ]


def _example() -> list[str]:
    lines = (ROOT / "deploy" / "environment.example").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _bare() -> dict[str, str]:
    """This process' environment without what would decide for the stack."""
    foreign = ("ECG_", "PG", "MLFLOW_", "DAGSTER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def until(holds: Callable[[], bool], what: str, stack: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert stack is None or stack.poll() is None, "deploy/start ended"
        try:
            if holds():
                return
        except (httpx.HTTPError, AssertionError, KeyError):
            pass  # it is being started, or its database is away
        time.sleep(0.5)
    raise AssertionError(f"not within four minutes: {what}")


def test_every_variable_that_is_read_is_explained():
    named = {line.split("=")[0] for line in _example()}
    files = [
        path
        for folder in ("pipelines", "assets", "orchestration", "ecg_foundry")
        for path in (ROOT / folder).rglob("*.py")
    ]
    read = {name for path in files for name in re.findall(r'environ(?:\.get\(|\[)"(ECG_\w+)"', path.read_text())}
    assert {"ECG_HOME", "ECG_PROCESSES"} <= read <= named
    storage = yaml.safe_load((ROOT / "deploy" / "storage.yaml").read_text())["storage"]["postgres"]["postgres_db"]
    assert {value["env"] for value in storage.values() if isinstance(value, dict)} <= named


def test_a_shell_has_what_the_servers_have(tmp_path):
    example = {**dict(line.split("=", 1) for line in _example()), "PGPASSWORD": "secret", "ECG_HOME": str(tmp_path)}
    script = "echo $ECG_HOME $DAGSTER_HOME $PGPASSWORD $MLFLOW_TRACKING_URI; command -v ecg"
    for host, reached in (("0.0.0.0", "127.0.0.1"), ("10.0.0.7", "10.0.0.7")):
        write_environment(tmp_path / "environment", {**example, "ECG_HOST": host})
        command = [ROOT / "deploy" / "shell", tmp_path / "environment"]
        completed = subprocess.run(
            command, input=script, capture_output=True, text=True, env=_bare(), cwd="/", check=True
        )
        has, ecg = completed.stdout.splitlines()
        assert has == f"{tmp_path} {tmp_path}/dagster secret http://{reached}:5000"
        assert Path(ecg).samefile(Path(sys.executable).with_name("ecg"))


def test_what_is_missing_is_named(tmp_path):
    start = ROOT / "deploy" / "start"
    absent = subprocess.run([start, tmp_path / "none"], capture_output=True, text=True, env=_bare())
    assert absent.returncode == 1
    assert "copy deploy/environment.example to it" in absent.stderr
    write_environment(tmp_path / "unfilled", dict(line.split("=", 1) for line in _example()))
    unfilled = subprocess.run([start, tmp_path / "unfilled"], capture_output=True, text=True, env=_bare())
    assert unfilled.returncode == 1
    assert "PGPASSWORD is empty" in unfilled.stderr
    example = {**dict(line.split("=", 1) for line in _example()), "PGPASSWORD": "secret", "ECG_HOME": str(tmp_path)}
    example["ECG_RETRAIN_CHANGES"] = """'{"epochs": 3}'"""
    write_environment(tmp_path / "environment", example)
    unnamed = subprocess.run([start, tmp_path / "environment"], capture_output=True, text=True, env=_bare())
    assert unnamed.returncode == 1
    assert "changes={'epochs': 3}: name the recipe that they change" in unnamed.stderr
    assert not (tmp_path / "dagster").exists(), "nothing is begun"


@pytest.mark.parametrize(
    ("name", "address"),
    [("ECG_INCOMING", "s3://KEY:SEKRET@bucket/p"), ("ECG_MIRROR", "https:/user:SEKRET@host/x")],
)
def test_an_address_with_a_secret_is_refused_before_anything_is_written(tmp_path, name, address):
    example = {**dict(line.split("=", 1) for line in _example()), "PGPASSWORD": "s", "ECG_HOME": str(tmp_path / "home")}
    write_environment(tmp_path / "environment", {**example, name: address})
    command = [ROOT / "deploy" / "start", tmp_path / "environment"]
    refused = subprocess.run(command, capture_output=True, text=True, env=_bare())
    assert refused.returncode == 1
    assert "has a user name or a password in its address" in refused.stderr
    assert "SEKRET" not in refused.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_an_environment_that_others_can_read_is_refused(tmp_path, mode):
    write_environment(tmp_path / "environment", {**dict(line.split("=", 1) for line in _example()), "PGPASSWORD": "s"})
    (tmp_path / "environment").chmod(mode)
    for script in ("start", "shell", "backup", "restore"):
        arguments = [] if script in ("start", "shell") else [tmp_path / "copy"]
        (tmp_path / "copy").mkdir(exist_ok=True)
        command = [ROOT / "deploy" / script, *arguments, tmp_path / "environment"]
        refused = subprocess.run(command, input="", capture_output=True, text=True, env=_bare(), cwd="/")
        assert refused.returncode == 1
        assert f"has mode {mode:o}, so others can read it: chmod 600" in refused.stderr


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nothing_is_lost_when_pieces_die_and_when_everything_does(tmp_path):
    sizes = MirrorSizes(chapman=(), code15=(), ptbxl=(60, 20), cpsc2018=(), georgia=(), ludb=0)
    write_mirror(tmp_path / "mirror", seed=2, sizes=sizes)
    with postgres(free_port()) as database:
        stack = Production(tmp_path, database)
        make_older(database.url("mlflow"))
        with stack.running():
            second = stack.script("start", str(stack.file))
            assert (second.returncode, second.stderr.split(":")[0]) == (
                1,
                f"the servers of {stack.home} run already, or a restore does",
            )
            stack.switch("up to here")
            switches = stack.switches()
            assert switches["incoming_drops"] == ("STOPPED", "up to here")
            assert switches["weekly_retraining"][0] == "RUNNING"
            first = stack.launch("00000")
            until(lambda: stack.runs().get(first) in ("STARTED", "SUCCESS"), "the run is under way")
            before = {server: stack.pid(server) for server in SERVERS}
            for pid in before.values():
                os.kill(pid, signal.SIGKILL)  # in mid-run, all at once
            for server in SERVERS:
                until(lambda server=server: stack.healthy(server), f"{server} is back")
                assert stack.pid(server) not in (0, before[server])
            until(lambda: set(stack.materialized()) == {"00000"}, "the run, or its retry, has brought the partition in")
            products = list(
                (Home(stack.home, str(tmp_path / "mirror")).workspace().folder("ecgs/ptbxl/00000")).iterdir()
            )
            assert len([path for path in products if path.is_dir()]) == 1, "made once, and nothing half-made is left"
            assert stack.switches() == switches

            second = stack.launch("01000")
            until(lambda: stack.runs().get(second) == "STARTED", "a second run is under way")
            database.stop("immediate")  # as a crash leaves it
            database.start()
            until(lambda: stack.healthy("daemon"), "the daemon has its database back")
            until(lambda: set(stack.materialized()) == {"00000", "01000"}, "the run went on, or was started again")
            launched: list[str] = []
            until(lambda: bool(launched.append(stack.launch("01000")) or launched), "the UI drops its dead connections")
            until(lambda: set(stack.runs().values()) <= {"SUCCESS", "FAILURE"}, "every run has come to its end")
            history = stack.runs()
            assert {first, second, *launched} <= history.keys()
            assert history[launched[0]] == "SUCCESS"
            assert stack.switches() == switches
            version = _registered(stack.tracking, tmp_path)
            listed = subprocess.run(
                [Path(sys.executable).with_name("ecg"), "models"],
                capture_output=True,
                text=True,
                env={**_bare(), "ECG_HOME": str(stack.home)},
            )
            assert re.search(rf"^ *{version} +champion ", listed.stdout, re.MULTILINE), listed
            key = Home(stack.home).patient_key()
            backed_up = stack.script("backup", str(tmp_path / "backup"), str(stack.file))
            assert backed_up.returncode == 0, backed_up.stderr
            written = [tmp_path / "backup", *(tmp_path / "backup").iterdir(), stack.home, stack.home / "run"]
            assert {str(path): path.stat().st_mode & 0o077 for path in written} == dict.fromkeys(map(str, written), 0)
            hostile = {"Origin": "https://evil.example", "Content-Type": "application/json"}
            body = {"query": "{ version }"}
            assert httpx.post(f"{stack.address}/graphql", json=body, headers=hostile).status_code == 403
            assert httpx.get(f"{stack.address}/graphql", params=body).status_code == 403
            assert httpx.post(f"{stack.address}/graphql", json=body).status_code == 200
            supervisor_log = (stack.home / "logs" / "supervisord.log").read_text()
            assert [supervisor_log.count(f"exited: {server} ") for server in SERVERS] == [1] * len(SERVERS), (
                supervisor_log
            )
            assert "Updating database tables" in (stack.home / "logs" / "migrate.log").read_text(), "MLflow's, too"

        refused = stack.script("restore", str(tmp_path / "backup"), str(stack.file))
        assert refused.returncode == 1
        assert "is not empty: move it away first" in refused.stderr
        stack.home.rename(tmp_path / "lost")
        database.recreate()
        restored = stack.script("restore", str(tmp_path / "backup"), str(stack.file))
        assert restored.returncode == 0, restored.stderr
        assert Home(stack.home).patient_key() == key
        assert (stack.home / "keys" / "patients").stat().st_mode & 0o777 == 0o600
        with stack.running():
            assert stack.runs() == history
            assert stack.switches() == switches
            assert set(stack.materialized()) == {"00000", "01000"}
            champion = stack.tracking.client().get_model_version_by_alias("ecg-encoder", "champion")
            assert champion.version == version
            again = stack.launch("00000")
            until(lambda: stack.runs().get(again) == "SUCCESS", "a run on what was restored")
            assert load_encoder(_pulled(stack.tracking, tmp_path / "pulled")).config == ENCODER


def _registered(tracking: Tracking, folder: Path) -> str:
    """A version whose artifact is an encoder, and the alias on it."""
    client = tracking.client()
    run = client.create_run(tracking.experiment_id(client))
    save_encoder(folder / "encoder.safetensors", random_encoder(ENCODER, 1))
    client.log_artifact(run.info.run_id, str(folder / "encoder.safetensors"))
    client.create_registered_model("ecg-encoder")
    source = f"runs:/{run.info.run_id}/encoder.safetensors"
    version = client.create_model_version("ecg-encoder", source=source, run_id=run.info.run_id)
    client.set_registered_model_alias("ecg-encoder", "champion", str(version.version))
    return version.version


def _pulled(tracking: Tracking, folder: Path) -> Path:
    client = tracking.client()
    champion = client.get_model_version_by_alias("ecg-encoder", "champion")
    assert champion.run_id is not None
    folder.mkdir()
    return Path(client.download_artifacts(champion.run_id, "encoder.safetensors", str(folder)))

"""`make demo` and `make ui` as programs: what a user's mistake gives, and that the servers start and stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import httpx
import pytest

from orchestration.links import links
from orchestration.ports import holder_of, require_free
from orchestration.ui import require_free_ports, start, stop, wait_until_healthy
from pipelines.corpus.step import only_ptbxl
from pipelines.home import HOSTS, Home
from tests.support.paths import ROOT
from tests.support.registered import TINY, harmonized, released


def program(home: Path, *arguments: str, name: str = "demo") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"orchestration.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=pointed(home), cwd=ROOT)


def pointed(home: Path) -> dict[str, str]:
    """The environment that points to a home, and to nothing else."""
    foreign = ("ECG_", "MLFLOW_", "DAGSTER_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**own, "ECG_HOME": str(home)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), [("demo", ()), ("demo", ("--mirror", "{}/real")), ("ui", ())])
def test_production_s_home_is_left_as_it_is(tmp_path, name, arguments):
    (tmp_path / "real").mkdir()
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    (home / "mirror").write_text("hosts")
    as_started = (ROOT / "dagster.yaml").read_text() + (ROOT / "deploy" / "storage.yaml").read_text()
    (home / "dagster" / "dagster.yaml").write_text(as_started)
    done = program(home, *(argument.format(tmp_path) for argument in arguments), name=name)
    assert done.returncode == 1
    assert "is production's home" in done.stdout + done.stderr
    assert "deploy/start" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert {path.name for path in home.iterdir()} == {"dagster", "mirror"}
    assert (home / "mirror").read_text() == "hosts"
    assert [path.read_text() for path in (home / "dagster").iterdir()] == [as_started]


@pytest.mark.slow
def test_a_mirror_that_is_not_there_is_one_line_and_is_not_remembered(tmp_path):
    done = program(tmp_path / "home", "--mirror", str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "no such folder; give a folder, a base URL, or 'hosts'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "home" / "mirror").exists()


@pytest.mark.slow
def test_an_empty_mirror_says_that_nothing_is_there_and_what_to_do(tmp_path):
    (tmp_path / "mirror").mkdir()
    done = program(tmp_path / "home", "--mirror", str(tmp_path / "mirror"))
    assert done.returncode == 1
    assert done.stdout.count("not in this mirror") == 7
    assert "harmonize a partition first" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_server_that_ends_at_once_is_named_with_its_log(tmp_path):
    log = tmp_path / "log"
    server = start([sys.executable, "-c", "print('no port'); raise SystemExit(3)"], log, {})
    with pytest.raises(click.ClickException, match=r"ended with 3: see .*log"):
        wait_until_healthy(server, "http://127.0.0.1:9", log)
    assert log.read_text() == "no port\n"


def test_a_server_stops_on_the_signal_and_a_deaf_one_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestration.ui.STOP_SECONDS", 1)
    willing = start([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "a", {})
    script = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    deaf = start([sys.executable, "-c", script], tmp_path / "b", {})
    while not (tmp_path / "b").read_text():
        time.sleep(0.05)
    stop([willing, deaf])
    assert willing.returncode != 0
    assert deaf.returncode == -signal.SIGKILL


PARENT = """
import sys, time
from pathlib import Path
from orchestration.ui import start
start([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"], Path(sys.argv[1]), {})
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent died")
def test_a_server_stops_where_its_parent_is_killed(tmp_path):
    """Else it would keep its port, and the next `make ui` could not start."""
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", PARENT, str(log)], cwd=ROOT) as parent:
        while not (log.is_file() and log.read_text().endswith("\n")):
            time.sleep(0.02)
        parent.kill()
    server = Path("/proc", log.read_text().strip())
    while server.exists() and "(zombie)" not in (server / "status").read_text():
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["PORT", "MLFLOW_PORT"])
def test_a_taken_port_is_named_with_who_holds_it_and_how_to_choose_another(tmp_path, option):
    with listening() as port:
        words = ["make", "--old-file=install", "ui", f"PORT={free()}", f"MLFLOW_PORT={free()}", f"{option}={port}"]
        command = [*words, f"ECG_HOME={tmp_path / 'home'}", f"BIN={Path(sys.executable).parent}"]
        done = subprocess.run(command, capture_output=True, text=True, env=pointed(tmp_path / "home"), cwd=ROOT)
    assert done.returncode == 2
    assert f"Error: port {port} is taken by process {os.getpid()} (" in done.stderr
    assert f"stop it, or choose another port with `make ui {option}={port + 1}`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "logs").exists(), "no server was started"


@contextmanager
def listening(address: str = "127.0.0.1") -> Iterator[int]:
    with socket.create_server((address, 0)) as listener:
        yield listener.getsockname()[1]


def free() -> int:
    with listening() as port:
        return port


def test_who_listens_on_a_port_is_told():
    for address in ("127.0.0.1", "0.0.0.0"):
        with listening(address) as port:
            assert holder_of(port).startswith(f"process {os.getpid()} (")
            with pytest.raises(
                ValueError, match=f"port {port} is taken by process {os.getpid()} .*: stop it, or .* with 1"
            ):
                require_free(port, "1")
        require_free(port, "1")
    assert holder_of(port) == "another process, which this user may not look at"


def test_both_servers_on_one_port_are_refused():
    with pytest.raises(ValueError, match="port 3000 for both: give Dagster and MLflow different ports"):
        require_free_ports(3000, 3000)


def test_what_is_there_is_linked(tmp_path, new_store):
    home = Home(tmp_path, HOSTS)
    store = new_store(tmp_path / "mlflow")
    assert links(home, "http://d:1", "http://m:2") == {"asset graph": "http://d:1/asset-groups"}
    released(store, "1" * 64, TINY, "promoted", champion=True)
    page = "http://m:2/#/models/ecg-encoder/versions/1?workflowType=machine_learning"
    client = store.client()
    for name in ("af of ward 7", "without a champion"):
        client.create_registered_model(name)
        client.create_model_version(name, source="here")
    client.set_registered_model_alias("af of ward 7", "champion", "1")
    found = links(home, "http://d:1", "http://m:2")
    assert [*found] == ["asset graph", "champion of ecg-encoder", "champion of af of ward 7"]
    assert found["champion of ecg-encoder"] == page
    assert found["champion of af of ward 7"] == page.replace("ecg-encoder", "af%20of%20ward%207")


@pytest.mark.slow
def test_the_ui_answers_on_loopback_and_ends_with_its_parent(tmp_path):
    environment = pointed(tmp_path / "home")
    command = [sys.executable, "-m", "orchestration.ui", "--dagster-port", "13311", "--mlflow-port", "13312"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as ui:
        assert ui.stdout is not None
        lines = [ui.stdout.readline() for _ in range(3)]
        assert "http://127.0.0.1:13311" in lines[0]
        query = {
            "query": "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        }
        answer = httpx.post("http://127.0.0.1:13311/graphql", json=query, timeout=60).json()
        assert answer["data"]["repositoriesOrError"]["nodes"][0]["location"]["name"] == "ecg-foundry"
        assert httpx.get("http://127.0.0.1:13312/health", timeout=30).text == "OK"
        ui.send_signal(signal.SIGINT)
        time.sleep(0.5)
        ui.send_signal(signal.SIGINT)  # somebody who cannot wait
        assert ui.wait(60) == 0
    for port in (13311, 13312):
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/", timeout=2)


@pytest.mark.parametrize(
    ("shards", "alone"),
    [({}, False), ({"ptbxl/00000": "a"}, True), ({"ptbxl/00000": "a", "chapman/01": "b"}, False)],
)
def test_ptbxl_alone_is_pretrained_on_without_labels(tmp_path, shards, alone):
    home = Home(tmp_path, HOSTS)
    harmonized(home.workspace(), shards)
    assert only_ptbxl(home.workspace()) is alone

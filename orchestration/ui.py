"""`make ui`: Dagster's UI, daemon and code server and the MLflow UI, for this machine only, with one parent. Ctrl-C
stops them all.

    python -m orchestration.ui [--dagster-port 3000] [--mlflow-port 5000]

Servers started in the background ignore a terminal's signals, so each gets a separate session and a restored SIGINT
handler, and is stopped with SIGINT.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import httpx

from orchestration.code_server import LOCATION
from orchestration.links import links
from orchestration.ports import require_free
from pipelines.disk_space import DiskFull, full_disk_explained
from pipelines.durable import make_folder
from pipelines.formatting import escape_output, format_text
from pipelines.home import SERVERS_LOCK, Home
from pipelines.locks import exclusive_now
from pipelines.moved import mend
from pipelines.program import tied

PORT = click.IntRange(1, 65535)
START_SECONDS = 90
STOP_SECONDS = 20


WORKSPACE = "deploy/workspace.yaml"


def code_server_command(socket: Path) -> list[str]:
    """Return the command of the code server that UI and daemon share, on a Unix socket."""
    server = [str(Path(sys.executable).with_name("dagster")), "code-server", "start"]
    code = ["--module-name", "orchestration.definitions", "--location-name", LOCATION]
    return [*server, *code, "--socket", str(socket), "--log-level", "warning"]


def daemon_command() -> list[str]:
    return [sys.executable, "-m", "orchestration.daemon", "--workspace", WORKSPACE, "--log-level", "warning"]


def webserver_command(port: int) -> list[str]:
    return [sys.executable, "-m", "orchestration.webserver", "--workspace", WORKSPACE, "--port", str(port)]


def mlflow_command(home: Home, port: int) -> list[str]:
    store = ["--backend-store-uri", home.tracking_uri, "--default-artifact-root", home.artifact_root.as_uri()]
    return [sys.executable, "-m", "mlflow", "server", *store, "--host", "127.0.0.1", "--port", str(port)]


@dataclass(frozen=True, kw_only=True)
class Server:
    """A program that `make ui` keeps running."""

    name: str
    command: list[str]
    log: str
    environment: Mapping[str, str]
    address: str = ""
    """Where people open it; empty if they do not."""
    health: str = ""


def planned(home: Home, socket: Path, dagster_port: int, mlflow_port: int) -> list[Server]:
    """Return the servers in the order in which they are started."""
    dagster = {"ECG_CODE_SOCKET": str(socket)}
    # Without job workers, which are not used here, MLflow runs 2 processes instead of 9.
    mlflow = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return [
        Server(name="code", command=code_server_command(socket), log="code-server.log", environment=dagster),
        Server(name="daemon", command=daemon_command(), log="daemon.log", environment=dagster),
        Server(
            name="Dagster",
            command=webserver_command(dagster_port),
            log="dagster.log",
            environment=dagster,
            address=f"http://127.0.0.1:{dagster_port}",
            health="/server_info",
        ),
        Server(
            name="MLflow",
            command=mlflow_command(home, mlflow_port),
            log="mlflow.log",
            environment=mlflow,
            address=f"http://127.0.0.1:{mlflow_port}",
            health="/health",
        ),
    ]


def start(
    command: list[str], log: Path, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a server in a separate session; its output goes to `log`. If this process is killed, it is told to stop."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            tied(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
            pass_fds=pass_fds,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when `url` answers 200. Raises ClickException naming the log if the server ends or does not answer."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise click.ClickException(f"the server of {url} ended with {server.returncode}: see {log}")
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.3)
    raise click.ClickException(f"{url} did not answer within {START_SECONDS} s; see {log}")


def stop(servers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop all servers at once; one that does not end in time is killed."""
    running = [server for server in servers if server.poll() is None]
    for server in running:
        server.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for server in running:
        try:
            server.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@click.command(help="Open the Dagster and MLflow UIs on loopback; Ctrl-C stops both.")
@click.option("--dagster-port", type=PORT, default=3000, show_default=True, help="Port of the Dagster UI.")
@click.option("--mlflow-port", type=PORT, default=5000, show_default=True, help="Port of the MLflow UI.")
def main(dagster_port: int, mlflow_port: int) -> None:
    escape_output()
    # Slow to import, and not needed by the other functions of this module.
    from orchestration.instance import open_instance, refuse_production
    from orchestration.limits import seed

    os.umask(0o077)  # what is written is its owner's alone
    with ExitStack() as held:
        try:
            home = Home.default()
            refuse_production(home)
            make_folder(home.root)
            mend(home)  # before the lock is held, which it takes
            busy = f"the servers of {home.root} run already ({{holder}}): use them, or stop them first"
            lock = held.enter_context(exclusive_now(home.root / SERVERS_LOCK, busy))
            require_free_ports(dagster_port, mlflow_port)
            with full_disk_explained(home.root), open_instance(home) as instance:
                seed(instance)
        except (ValueError, DiskFull) as error:
            raise click.ClickException(format_text(str(error))) from error
        _run(home, dagster_port, mlflow_port, lock.fileno())


def require_free_ports(dagster: int, mlflow: int) -> None:
    """Raise ValueError if a port is taken, or both are the same; it says who holds it, and how to choose another."""
    if dagster == mlflow:
        raise ValueError(f"port {dagster} for both: give Dagster and MLflow different ports")
    require_free(dagster, f"`make ui PORT={dagster + 1}` (--dagster-port)")
    require_free(mlflow, f"`make ui MLFLOW_PORT={mlflow + 1}` (--mlflow-port)")


def _run(home: Home, dagster_port: int, mlflow_port: int, lock: int) -> None:
    """Run the servers until one ends or a signal comes. The lock, an open file, is held until the last has ended."""
    logs = home.root / "logs"
    home.artifact_root.mkdir(parents=True, exist_ok=True)
    # Both signals stop the servers. A shell that starts this in the background has SIGINT ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    servers: list[subprocess.Popen[bytes]] = []
    # The code server starts whatever code it is asked to: only this user enters the folder of its socket.
    run = tempfile.mkdtemp(prefix="ecg-ui-")
    try:
        plan = planned(home, Path(run) / "code.sock", dagster_port, mlflow_port)
        # One by one: if one cannot be started, those before it are in the list and are stopped.
        servers.extend(start(server.command, logs / server.log, server.environment, [lock]) for server in plan)
        for process, server in zip(servers, plan, strict=True):
            if server.address:
                wait_until_healthy(process, server.address + server.health, logs / server.log)
                click.echo(f"{server.name:8} {server.address}")
        dagster, mlflow = (f"http://127.0.0.1:{port}" for port in (dagster_port, mlflow_port))
        for name, address in links(home, dagster, mlflow).items():
            click.echo(f"  {name}: {address}")
        click.echo(f"Data home {home.root}; ECGs from {home.mirror or 'the original hosts'}. Ctrl-C stops both.")
        while all(server.poll() is None for server in servers):
            time.sleep(1)
        raise click.ClickException(f"a server ended; see {logs}")
    except KeyboardInterrupt:
        click.echo("\nStopping ...")
    finally:
        # Ignore further signals: a server that is left behind would keep its port.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        stop(servers)
        shutil.rmtree(run)


if __name__ == "__main__":
    main()

"""A real PostgreSQL on loopback, of a test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL

USER, PASSWORD = "ecg", "p@ss w:rd/%"
"""A password with all that an address would have to quote."""


@dataclass(frozen=True)
class Postgres:
    """binaries: where its programs are. account: that it runs as, since it refuses to be root."""

    binaries: Path
    folder: Path
    port: int
    account: str | None

    def run(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGPASSWORD": PASSWORD}
        command = [str(self.binaries / program), *arguments]
        subprocess.run(command, check=True, user=self.account, env=environment, cwd="/", stdout=subprocess.DEVNULL)

    def url(self, database: str) -> URL:
        """For SQLAlchemy."""
        return URL.create("postgresql+psycopg2", USER, PASSWORD, "127.0.0.1", self.port, database)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start")

    def stop(self, mode: str) -> None:
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-w", "-m", mode, "stop")

    def recreate(self) -> None:
        """Two empty databases."""
        for name in ("dagster", "mlflow"):
            self.run("dropdb", "--if-exists", "--force", "-U", USER, name)
            self.run("createdb", "-U", USER, name)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def postgres(port: int) -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(path).parent for path in [shutil.which("initdb")] if path
    ]
    if not found:
        pytest.skip("no PostgreSQL here: install Debian's package postgresql")
    account = None
    if os.geteuid() == 0:
        account = next((one.pw_name for one in pwd.getpwall() if one.pw_name in ("postgres", "nobody")), None)
        if account is None:
            pytest.skip("PostgreSQL does not run as root, and there is neither `postgres` nor `nobody` to run it as")
    with tempfile.TemporaryDirectory(prefix="ecg-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if account is not None:
            shutil.chown(folder, account)
            shutil.chown(folder / "password", account)
        server = Postgres(found[-1], folder, port, account)
        data = ["-D", f"{folder}/data", "-U", USER, "--auth", "scram-sha-256", "--pwfile", f"{folder}/password"]
        server.run("initdb", *data, "--no-sync", "--encoding", "UTF8", "--locale", "C")
        server.start()
        try:
            server.recreate()
            yield server
        finally:
            server.stop("immediate")

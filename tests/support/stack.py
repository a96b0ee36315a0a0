"""`make ui` as processes of this machine: started, asked, killed in part or whole, and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from pipelines.program import tied
from tests.support.kills import environment
from tests.support.mlflow_server import free_port
from tests.support.paths import ROOT

LOCATION = {"repositoryLocationName": "ecg-foundry", "repositoryName": "__repository__"}
SOON = 600.0  # seconds in which anything has to come about, on a busy machine

UI = """
import sys
from pathlib import Path
from orchestration import instance, ui
instance._FILE = Path(sys.argv.pop(1))
all_servers = ui.planned
ui.planned = lambda *arguments: [server for server in all_servers(*arguments) if server.name != "MLflow"]
ui.START_SECONDS = 600
ui.main()
"""
"""`make ui` without MLflow, which no harvest uses, on a machine that may be busy; its instance looks after runs more
often than usual."""


def quick_settings(folder: Path) -> Path:
    """Write a dagster.yaml with which a killed run is noticed in seconds, and one that never starts in a minute."""
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    settings["run_monitoring"] |= {
        "poll_interval_seconds": 2,
        "start_timeout_seconds": 60,
        "free_slots_after_run_end_seconds": 2,
    }
    file = folder / "dagster.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@dataclass
class Stack:
    """The servers of one data home. work: a folder beside it, for the log."""

    home: Path
    mirror: str
    work: Path
    port: int = field(default_factory=free_port)
    ui: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when the code location is loaded. Raises RuntimeError with its log if it is not."""
        command = [sys.executable, "-c", UI, str(quick_settings(self.work)), "--dagster-port", str(self.port)]
        settings = {"ECG_HOME": str(self.home), "ECG_MIRROR": self.mirror, "PYTHONWARNINGS": "ignore"}
        with self.log.open("ab") as stream:
            self.ui = subprocess.Popen(
                tied(command),
                stdout=stream,
                stderr=stream,
                env=environment() | settings,
                cwd=ROOT,
                start_new_session=True,
            )
        self.wait(self.answers, "the UI answers")

    @property
    def log(self) -> Path:
        return self.work / "ui.log"

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self.ui is not None and self.ui.poll() is None:
            self.ui.send_signal(signal.SIGINT)
            self.ui.wait(120)

    def has_ended(self) -> bool:
        return self.ui is None or self.ui.poll() is not None

    def wait(self, holds: Callable[[], bool], what: str, seconds: float = SOON) -> None:
        """Return when something holds. Raises RuntimeError if it does not in time, or if the servers end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.has_ended():
                raise RuntimeError(f"`make ui` ended: {self.last_words()}")
            with suppress(httpx.TransportError):  # whoever looks at a page loads it again
                if holds():
                    return
            time.sleep(0.2)
        raise RuntimeError(f"not within {seconds:.0f} s: {what}")

    def last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    # What is asked of it

    def answers(self) -> bool:
        query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
        try:
            return bool(self.graphql(query)["repositoriesOrError"].get("nodes"))
        except (httpx.HTTPError, ValueError):
            return False

    def graphql(self, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": variables}
        answer = httpx.post(f"http://127.0.0.1:{self.port}/graphql", json=body, timeout=60)
        answer.raise_for_status()
        result = answer.json()
        if "errors" in result:
            raise ValueError(json.dumps(result["errors"])[:500])
        return result["data"]

    def launch(self, job: str, partition: str) -> str:
        query = """mutation($run: ExecutionParams!) { launchRun(executionParams: $run) {
            __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
        tags = [{"key": "dagster/partition", "value": partition}]
        run = {
            "selector": {**LOCATION, "jobName": job},
            "runConfigData": {},
            "executionMetadata": {"tags": tags},
        }
        launched = self._answered(query, run=run)["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(f"launching {job}: {launched}")
        return launched["run"]["runId"]

    def _answered(self, query: str, **variables: Any) -> dict[str, Any]:
        """Ask until there is code to answer: if its process was killed, it is loaded again."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self.graphql(query, **variables)
                if answer["launchRun"]["__typename"] != "PipelineNotFoundError" or time.monotonic() > deadline:
                    return answer
            except httpx.HTTPStatusError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    def statuses(self, partition: str) -> list[str]:
        """Return the status of each run of a partition, the newest first."""
        query = (
            """query($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { status } } } }"""
        )
        of = {"tags": [{"key": "dagster/partition", "value": partition}]}
        return [run["status"] for run in self.graphql(query, filter=of)["runsOrError"]["results"]]

    def slots(self) -> list[str]:
        """Name the pools of which steps hold a place, or wait for one."""
        query = """{ instance { concurrencyLimits { concurrencyKey claimedSlots { stepKey } pendingSteps { stepKey }
            } } }"""
        limits = self.graphql(query)["instance"]["concurrencyLimits"]
        return [limit["concurrencyKey"] for limit in limits if limit["claimedSlots"] or limit["pendingSteps"]]

    # Its processes

    def processes(self) -> dict[int, str]:
        """Return the command line of each process that has this home in its environment."""
        mark = os.fsencode(f"ECG_HOME={self.home}")
        return {pid: command for pid, command, environ in _all_processes() if mark in environ.split(b"\0")}


def _all_processes() -> Iterator[tuple[int, str, bytes]]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environ = (folder / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile, or is somebody else's
        if command:  # else it has ended, and its parent has not asked how
            yield int(folder.name), command, environ

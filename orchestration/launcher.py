"""How the daemon learns that the process of a run is gone.

Dagster leaves this to the code server that started the run. Where both are killed at once, as by a loss of power or
with the container, the run would stay in progress for good, and all that wait for it would wait with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

from orchestration.code_server import SOCKET, answers

ASK_SECONDS = 10
CLOCK_SECONDS = 5.0  # by which two clocks of one machine may differ: the time of day, and that since the boot


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's launcher, for code servers on this machine; run monitoring can ask it whether a run still works."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        if self._server_has(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        noted = self._process_of(run.run_id)
        if noted is None or is_alive(*noted):  # it may outlive its server
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if SOCKET in os.environ and not answers(os.environ[SOCKET]):  # a retry would fail, and would be the last
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {noted[0]} is gone, and its code server with it")

    def _server_has(self, run_id: str) -> bool:
        """Whether the code server that started a run answers, and still has it."""
        client = self._get_grpc_client_for_termination(run_id)
        if client is None:
            return False
        try:
            answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id), timeout=ASK_SECONDS)
        except DagsterUserCodeUnreachableError:
            return False
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel

    def _process_of(self, run_id: str) -> tuple[int, float] | None:
        """Return the process that a run said it works in, and when it said so."""
        for entry in self._instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event: Any = entry.dagster_event
            if event.step_key is None and "pid" in event.engine_event_data.metadata:
                return int(event.engine_event_data.metadata["pid"].value), entry.timestamp
        return None


def is_alive(pid: int, noted: float) -> bool:
    """Whether the process that had this number at a time of day lives, and not another that got the number later."""
    try:
        os.kill(pid, 0)
        if not Path("/proc/stat").is_file():
            return True  # not Linux, where more cannot be known
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (ProcessLookupError, PermissionError, FileNotFoundError):
        return False  # gone, or somebody else's: a run's is this user's
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    started = int(boot.split()[1]) + int(numbers[18]) / os.sysconf("SC_CLK_TCK")
    return state != "Z" and started <= noted + CLOCK_SECONDS

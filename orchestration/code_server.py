"""The code server: whether it answers, and a watch that has it load the code again.

`dagster code-server start` answers for a process of its own in which the code is loaded. If that process is killed, for
example for want of memory, the server starts no other until somebody asks it to: the UI knows no job, and sensors and
schedules stand still.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

SOCKET = "ECG_CODE_SOCKET"
"""The variable with the path of the code server's socket, for `deploy/workspace.yaml`."""

LOCATION = "ecg-foundry"
"""The code location's name, as in `deploy/workspace.yaml`. The states of sensors and schedules hang on it."""

WATCH_SECONDS = 2.0
LOAD_SECONDS = 300

log = logging.getLogger(__name__)


def answers(socket: str) -> bool:
    """Whether a code server listens on a socket, and so has loaded the code."""
    try:
        DagsterGrpcClient(socket=socket).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


def watch(socket: str, ended: threading.Event) -> None:
    """Have the code server on a socket load the code again whenever the process with the code is gone, until `ended`.

    A server that is gone itself is the business of who started it.
    """
    client = DagsterGrpcClient(socket=socket)
    while not ended.wait(WATCH_SECONDS):
        if _lacks_its_code(client):
            log.warning("the process with the code is gone: the code server loads it again")
            # Once it has started the process, it fails to end the one that is gone.
            with suppress(DagsterUserCodeUnreachableError):
                client.reload_code(timeout=LOAD_SECONDS)


def _lacks_its_code(client: DagsterGrpcClient) -> bool:
    """Whether the server answers that it cannot reach its process; one that is slow, or absent, does not say so."""
    try:
        client.ping("")
    except DagsterUserCodeUnreachableError as error:
        # Dagster's server passes its own failure to reach the process on as an exception of unknown kind.
        return "gRPC Error code: UNKNOWN" in str(error)
    return False

"""Whether a code server answers."""

from __future__ import annotations

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

SOCKET = "ECG_CODE_SOCKET"
"""The variable with the path of the code server's socket, for `deploy/workspace.yaml`."""


def answers(socket: str) -> bool:
    """Whether a code server listens on a socket, and so has loaded the code."""
    try:
        DagsterGrpcClient(socket=socket).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True

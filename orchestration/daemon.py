"""Dagster's daemon, started once the code server answers, and a watch over the code server's process.

    python -m orchestration.daemon [options of `dagster-daemon run`]

A daemon that is there first gives up for good on runs that have to be started again after a restart.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from dagster._daemon.cli import main as run_daemon

from orchestration.code_server import SOCKET, answers, watch


def main() -> None:
    socket = os.environ[SOCKET]
    while not answers(socket):
        time.sleep(0.5)
    threading.Thread(target=watch, args=(socket, threading.Event()), name="code-server-watch", daemon=True).start()
    sys.argv[1:1] = ["run"]
    run_daemon()


if __name__ == "__main__":
    main()

"""Dagster's daemon, started once the code server answers.

    python -m orchestration.daemon [options of `dagster-daemon run`]

A daemon that is there first gives up for good on runs that have to be started again after a restart.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from orchestration.code_server import SOCKET, answers


def main() -> None:
    while not answers(os.environ[SOCKET]):
        time.sleep(0.5)
    daemon = str(Path(sys.executable).with_name("dagster-daemon"))
    os.execv(daemon, [daemon, "run", *sys.argv[1:]])


if __name__ == "__main__":
    main()

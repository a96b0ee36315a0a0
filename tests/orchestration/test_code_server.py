"""The watch over the code server, with a real server whose process of the code is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dagster._grpc.client import DagsterGrpcClient

from orchestration.code_server import answers, watch


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()  # each has the processes that it started
    found = [child for thread in threads for child in (thread / "children").read_text().split()]
    return [int(child) for child in found if ") Z " not in Path(f"/proc/{child}/stat").read_text()]


@pytest.mark.slow
def test_code_whose_process_was_killed_is_loaded_again(tmp_path):
    (tmp_path / "project.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    socket = str(tmp_path / "code.sock")
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "code-server",
        "start",
        "--python-file",
        "project.py",
    ]
    ended = threading.Event()
    with subprocess.Popen([*command, "--socket", socket], cwd=tmp_path) as server:
        watching = threading.Thread(target=watch, args=(socket, ended))
        try:
            wait(lambda: answers(socket))
            watching.start()
            for _ in range(2):
                before = DagsterGrpcClient(socket=socket).get_server_id()
                (loaded,) = children(server.pid)
                os.kill(loaded, signal.SIGKILL)
                wait(lambda: not answers(socket))
                wait(lambda: answers(socket))
                assert DagsterGrpcClient(socket=socket).get_server_id() != before
            assert len(children(server.pid)) == 1
        finally:
            ended.set()
            watching.join()
            for process in (server.pid, *children(server.pid)):  # told to end, it would wait for a minute
                os.kill(process, signal.SIGKILL)

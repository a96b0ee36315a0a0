"""The process that decodes: it starts again when a file ended it, is not shared with forks, and leaves no orphan."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.formats import process
from pipelines.formats.process import Decoder
from pipelines.formats.vendor.limits import MEMORY
from pipelines.formats.vendor.read import read_vendor
from pipelines.formats.vendor.recognize import Kind
from pipelines.records import DropReason, RecordError
from tests.support.vendor_files import EIGHT, Ecg, ishne


@pytest.fixture
def decoder():
    decoder = Decoder("pipelines.formats.vendor.worker", MEMORY)
    yield decoder
    decoder.close()


def ask(decoder: Decoder, path: Path):
    return decoder.ask(path, {"kind": Kind.ISHNE})


def pid_of(decoder: Decoder) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def wait_until(true, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_process_serves_many_files_and_is_replaced_when_it_died(decoder: Decoder, put):
    path = put("a.ecg", ishne(Ecg()))
    ask(decoder, path)
    first = pid_of(decoder)
    ask(decoder, path)
    assert pid_of(decoder) == first
    assert re.search(rf"Max address space +{MEMORY} ", Path(f"/proc/{first}/limits").read_text())
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: gone(first))
    header, samples = ask(decoder, path)
    assert header["leads"] == list(EIGHT)
    assert len(samples) == 4 * 8 * 5000
    assert pid_of(decoder) != first


def test_a_process_that_dies_over_a_file_gives_a_drop_that_says_so(decoder: Decoder, put):
    ask(decoder, put("a.ecg", ishne(Ecg())))
    pid = pid_of(decoder)
    os.kill(pid, signal.SIGSTOP)  # it waits in the file
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(RecordError, match=r"b.ecg: .*exit code -9") as caught:
        ask(decoder, put("b.ecg", ishne(Ecg())))
    assert caught.value.reason == DropReason.UNREADABLE_SIGNAL


def test_a_process_that_answers_nothing_is_given_up(decoder: Decoder, put, monkeypatch: pytest.MonkeyPatch):
    ask(decoder, put("a.ecg", ishne(Ecg())))
    pid = pid_of(decoder)
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(RecordError, match="more than"):
        ask(decoder, put("b.ecg", ishne(Ecg())))
    assert gone(pid)


def test_threads_ask_one_after_another(put):
    paths = [put(f"{rate}.ecg", ishne(Ecg(rate=rate))) for rate in (250, 500, 1000)]
    found: dict[str, float] = {}

    def read(path: Path) -> None:
        for _ in range(5):
            found[path.name] = read_vendor(path).rate

    threads = [threading.Thread(target=read, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"250.ecg": 250, "500.ecg": 500, "1000.ecg": 1000}


ASKS = """
import os, sys
from pathlib import Path
from pipelines.formats.vendor import process
from pipelines.formats.vendor.read import read_vendor
read_vendor(Path(sys.argv[1]))
first = process._DECODER._process.pid
print(first, flush=True)
child = os.fork()
if child == 0:
    rate = read_vendor(Path(sys.argv[1])).rate
    other = process._DECODER._process.pid
    process._DECODER.close()
    os._exit(0 if rate == 500 and other != first else 1)
_, status = os.waitpid(child, 0)
read_vendor(Path(sys.argv[1]))
same = process._DECODER._process.pid == first
print(status, same, flush=True)
sys.stdin.read()
"""


def test_a_fork_has_a_process_of_its_own_and_none_outlives_its_program(put):
    path = put("a.ecg", ishne(Ecg()))
    command = [sys.executable, "-c", ASKS, str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        assert program.stdout.readline().split() == [b"0", b"True"]
        program.kill()
    wait_until(lambda: gone(pid))


def test_nothing_of_the_working_folder_is_imported(decoder: Decoder, put, monkeypatch: pytest.MonkeyPatch):
    path = put("a.ecg", ishne(Ecg()))
    put("numpy.py", b"raise SystemExit(9)")
    monkeypatch.chdir(path.parent)
    header, _ = ask(decoder, Path("a.ecg"))
    assert header["rate"] == 500

"""Ask a process of its own to decode a file, so that no file can end this one or fill its memory.

One process serves many files, since it takes a second to start; it is started again when a file has ended it, and it
ends with this one, by the end of its standard input. What it answers is JSON and numbers, and is checked for its size.
`worker.py` is the other side.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pipelines.formats.limits import PATIENCE, SECONDS
from pipelines.records import DropReason, RecordError

READY = b"ready\n"
"""What the process writes when its libraries are loaded."""
_MOST_HEADER = 1 << 20
_PIPE = 1 << 20
# One thread of each library: more would reserve address space, and there is nothing for them to do.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class _EndedError(Exception):
    """The process ended, or answered nothing in time."""


class Decoder:
    """The process, started at the first question. One question at a time."""

    def __init__(self, worker: str, memory: int) -> None:
        """worker: the module that it runs. memory: the bytes that it may have, to which it limits itself."""
        self._worker = worker
        self._memory = memory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        atexit.register(self.close)

    def ask(self, path: Path, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return what the process answers to a question about a file.

        Raises RecordError if it refuses the file or ended over it, and OSError for a fault of the disk.
        """
        header, data = self._answer(path, {**question, "path": str(path.absolute())})
        if "errno" in header:
            raise OSError(header["errno"], header["detail"], str(path))
        if "reason" in header:
            raise RecordError(DropReason(header["reason"]), header["detail"])
        return header, data

    def _answer(self, path: Path, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            process = self._started()
            until = time.monotonic() + PATIENCE
            try:
                _write(process, json.dumps(question).encode() + b"\n")
                (length,) = struct.unpack(">I", _read(process, 4, until))
                header = json.loads(_read(process, _bounded(length, _MOST_HEADER), until))
                return header, _read(process, _bounded(header.get("bytes", 0), self._memory), until)
            except _EndedError:
                why = self._why(self._ended())
                raise RecordError(DropReason.UNREADABLE_SIGNAL, f"{path.name}: {why}: export it again") from None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._ended()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner != os.getpid():
            # This process is a fork of the one that started it, and must neither ask it nor keep its input open.
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.returncode = 0
            self._process = None
        if self._process is not None and self._process.poll() is not None:
            self._ended()
        if self._process is None:
            self._owner = os.getpid()
            # -P: a file in the working directory is not imported.
            command = [sys.executable, "-P", "-m", self._worker]
            environment = {**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0, pipesize=_PIPE
            )
            try:
                _read(self._process, len(READY), time.monotonic() + PATIENCE)
            except _EndedError:
                raise RuntimeError(f"the process {self._worker} does not start: {self._ended()}") from None
        return self._process

    def _ended(self) -> int | None:
        """End the process if it has not, and return its exit code (negative: a signal); None if there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        running = process.poll() is None
        if running:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        code = process.wait()
        return None if running else code

    def _why(self, code: int | None) -> str:
        if code == -signal.SIGPROF:
            return f"to read it takes more than {SECONDS:g} s of a processor"
        if code is None:
            return f"to read it takes more than {PATIENCE:g} s"
        return f"to read it ended the process, which may have {self._memory >> 20} MiB of memory (exit code {code})"


def _write(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(data)
    except BrokenPipeError:
        raise _EndedError from None


def _read(process: subprocess.Popen[bytes], count: int, until: float) -> bytes:
    """Read exactly `count` bytes of the process. Raises _EndedError if they do not come."""
    assert process.stdout is not None
    descriptor, parts = process.stdout.fileno(), bytearray()
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    while len(parts) < count:
        if not waiting.poll(max(0.0, 1000 * (until - time.monotonic()))):
            raise _EndedError
        part = os.read(descriptor, min(count - len(parts), _PIPE))
        if not part:
            process.wait()
            raise _EndedError
        parts += part
    return bytes(parts)


def _bounded(number: Any, most: int) -> int:
    if not isinstance(number, int) or not 0 <= number <= most:
        raise _EndedError
    return number

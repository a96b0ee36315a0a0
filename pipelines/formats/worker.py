"""The side of a process that decodes files: it reads questions from its standard input, a line of JSON each.

It answers each on its standard output with the length of a JSON header (4 bytes, big-endian), the header, and as many
bytes as the header's `bytes` says. A file can take no more memory than given and no more of a processor than SECONDS:
beyond the first, Python raises MemoryError or the process ends; beyond the second, the kernel ends it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from pipelines.formats.limits import SECONDS
from pipelines.formats.process import READY
from pipelines.records import DropReason, RecordError

Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], bytes]]
"""Returns header and bytes for a question. Raises RecordError if the file cannot be used."""
Fault = Callable[[dict[str, Any], Exception], str]
"""Says in words what a library raised over the file of a question."""


def serve(answer: Answer, fault: Fault, memory: int) -> None:
    """Answer questions until the standard input ends, which it does when the process that asks is gone.

    Libraries are to be loaded before.
    """
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # nothing that a library prints may come between the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to end
    allowed = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = memory if allowed == resource.RLIM_INFINITY else min(memory, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write(READY)
    answers.flush()
    os.dup2(nothing, 2)  # a library's texts of one file are nobody's concern
    for line in sys.stdin.buffer:
        question = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        header, data = _answered(answer, fault, question)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, {**header, "bytes": len(data)}, data)


def _answered(answer: Answer, fault: Fault, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the answer, or a header that says why there is none."""
    try:
        return answer(question)
    except RecordError as error:
        return {"reason": error.reason, "detail": error.detail}, b""
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            return {"errno": error.errno, "detail": error.strerror}, b""
        # Whatever else a library raises while it reads a file (pydicom: OSError, too) is a fault of that file.
        return {"reason": DropReason.UNREADABLE_SIGNAL, "detail": fault(question, error)}, b""


def _send(answers: BinaryIO, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    answers.write(struct.pack(">I", len(text)) + text)
    answers.write(data)
    answers.flush()

"""A registered model in a process of its own, where the code runs that it was registered with."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluate.own_code import CannotAnswer
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import ErrorCode

from pipelines.release import own_program

_MOST_SAID = 1 << 20  # bytes that the process writes beside its answers, until they are thrown away
_LAST = 4096  # bytes of what the process wrote that are looked at if it ends


class OwnProcess:
    """A model that answers from a process of its own, as `mlflow.pyfunc.PyFuncModel` does in this one.

    The process serves one request at a time until `close`. It ends with this one, however that ends.
    """

    def __init__(self, folder: Path, *, called: str, tracking: Tracking, device: str = "cpu") -> None:
        """Start the process and load the model in a folder there.

        called: what the model is called in messages

        Raises ChildProcessError if it cannot be loaded.
        """
        self._called, self._folder, self._device, self._store = called, folder, device, tracking.uri
        self._lock = threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = self._started()
        try:
            self._answer("loaded")
        except BaseException:
            self.close()
            raise

    def _started(self) -> subprocess.Popen[bytes]:
        # -I: no folder of this process or its environment comes before the model's own code. -B: no .pyc beside it.
        return subprocess.Popen(
            [sys.executable, "-IB", own_program.__file__, str(self._folder), self._device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=os.environ | {"MLFLOW_TRACKING_URI": self._store},
        )

    @cached_property
    def metadata(self) -> Model:
        """What MLflow knows of the model; none of its code is run."""
        return Model.load(str(self._folder))

    def predict(self, ecgs: Any, params: dict[str, Any] | None = None) -> Any:
        """Return what the model answers.

        Raises MlflowException if it refuses the request, and ChildProcessError if its code fails or ends the process;
        the next request then starts the process again.
        """
        header, array = self._asked({"params": params or {}}, ecgs)
        return array if array is not None else header["rows"]

    def tokens(self, ecgs: Any, params: dict[str, Any]) -> np.ndarray:
        """Return the tokens of the model's encoder, float16 (B, P, D), NaN of an ECG that its code refuses.

        Raises CannotAnswer if its code has none, and else as `predict` does.
        """
        header, array = self._asked({"params": params, "tokens": True}, ecgs)
        if "lacks" in header:
            raise CannotAnswer(f"{self._called} was registered with other code than this checkout's: {header['lacks']}")
        assert array is not None
        return array

    def _asked(self, request: dict[str, Any], ecgs: Any) -> tuple[dict[str, Any], np.ndarray | None]:
        """Send a request and return its answer. Raises MlflowException and ChildProcessError as `predict` does."""
        with self._lock:
            if self._process.poll() is not None and not self._said.closed:
                self._end()
                self._process = self._started()
                self._answer("loaded")
            if self._said.tell() > _MOST_SAID:  # the place is shared with the process, which goes on from it
                self._said.seek(0)
                self._said.truncate()
            assert self._process.stdin is not None
            try:
                own_program.send(self._process.stdin, request, np.asarray(ecgs))
            except BrokenPipeError:
                raise ChildProcessError(self._ending("answered")) from None
            header, array = self._answer("answered")
        if "refused" in header:
            raise MlflowException(header["refused"], ErrorCode.Value(header["code"]))
        return header, array

    def close(self) -> None:
        """End the process."""
        self._end()
        self._said.close()

    def _end(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # of a request that it did not take before it ended
                stream.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, done: str) -> tuple[dict[str, Any], np.ndarray | None]:
        """Read a message. Raises ChildProcessError if none comes, or if the model's code failed."""
        assert self._process.stdout is not None
        message = own_program.receive(self._process.stdout)
        if message is None:
            raise ChildProcessError(self._ending(done))
        if "failed" in message[0]:
            raise ChildProcessError(
                f"{self._called}, in a process of its own by the code that it was registered with, was not {done}: "
                f"{message[0]['failed']}"
            )
        return message

    def _ending(self, done: str) -> str:
        """Say that the process ended, with the last line that it wrote."""
        code = self._process.wait()
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST))
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return (
            f"{self._called} was not {done}: the process with the code that it was registered with ended with exit "
            f"code {code}{f' ({lines[-1][:500]})' if lines else ''}"
        )

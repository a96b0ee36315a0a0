"""A program that loads a registered model and answers for it until its standard input ends. Run by its path.

    python -I own_program.py MODEL DEVICE

It imports nothing of this package, so that the model's own code runs. A message is a line of JSON, and an array in
NumPy's format behind it if the line counts bytes. Nothing is pickled. The first message, without an array, says that
the model is loaded; each request, parameters and ECGs, has one answer: what the model answers, or, if the request asks
for them, the tokens of its encoder.
"""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

import mlflow.pyfunc
import numpy as np
import torch
from mlflow.exceptions import MlflowException


def send(stream: IO[bytes], header: dict[str, Any], array: np.ndarray | None = None) -> None:
    """Write a message."""
    body = io.BytesIO()
    if array is not None:
        np.save(body, array, allow_pickle=False)
    line = json.dumps({**header, "bytes": len(body.getbuffer())}, default=_plain)
    stream.write(line.encode() + b"\n")
    stream.write(body.getbuffer())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], np.ndarray | None] | None:
    """Read a message; None if the stream ended."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    header = json.loads(line)
    count = header.pop("bytes")
    body = stream.read(count)
    if len(body) < count:
        return None
    return header, np.load(io.BytesIO(body), allow_pickle=False) if count else None


def _plain(value: Any) -> Any:
    """Return what JSON has no form of as lists and numbers."""
    return value.tolist()


def main(source: str, device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the other process, and that ends this one's input
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb") as answers:
        # What the model's code prints, or would read, is none of the messages.
        os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        waiting: queue.SimpleQueue[tuple[dict[str, Any], Any]] = queue.SimpleQueue()
        threading.Thread(target=_collect, args=(requests, waiting), daemon=True).start()
        config = None if device == "cpu" else {"device": device}
        try:
            model = mlflow.pyfunc.load_model(source, model_config=config)
        except Exception as error:
            send(answers, {"failed": _sentence(error)})
            return
        send(answers, {})
        while True:
            request, ecgs = waiting.get()
            ask = _tokens if request.get("tokens") else _predicted
            _answer(answers, lambda ask=ask, ecgs=ecgs, params=request["params"]: ask(model, ecgs, params))


def _collect(requests: IO[bytes], waiting: queue.SimpleQueue) -> None:
    """Queue requests, and end this process with the one that asks, whatever is computed at that time."""
    while (message := receive(requests)) is not None:
        waiting.put(message)
    os._exit(0)


class _Lacking(Exception):
    """The model's code has no such thing."""


def _predicted(model: Any, ecgs: np.ndarray, params: dict[str, Any]) -> Any:
    return model.predict(ecgs, params=params)


def _tokens(model: Any, ecgs: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    """Return the tokens of the model's encoder, float16 (B, P, D), NaN of an ECG that its code refuses."""
    own = model.unwrap_python_model()
    encoder, prepare = getattr(own, "encoder", None), getattr(own, "prepare", None)
    if not isinstance(encoder, torch.nn.Module):
        raise _Lacking("it has no encoder whose tokens can be read")
    if prepare is None:
        return _overheard(model, encoder, ecgs, params).half().cpu().numpy()
    x_BLT, _ = prepare(ecgs, **params)
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        # An encoder whose windows are shorter than ten seconds has a function for the tokens of all of them.
        token_BPD = getattr(encoder, "tokens", encoder)(torch.from_numpy(x_BLT).to(device))
    return token_BPD.half().cpu().numpy()


def _overheard(model: Any, encoder: torch.nn.Module, ecgs: np.ndarray, params: dict[str, Any]) -> torch.Tensor:
    """Return the tokens, (B, P, D), that an encoder gives while the model answers: code without `prepare` has no other
    way to them.
    """
    parts: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, tokens: Any) -> None:
        parts.append(tokens)

    hook = encoder.register_forward_hook(keep)
    try:
        model.predict(ecgs, params=params)
    finally:
        hook.remove()
    if sum(map(len, parts)) != len(ecgs):
        raise _Lacking("it encodes other windows than one of each ECG, so its tokens cannot be read")
    return torch.cat(parts)


def _answer(answers: IO[bytes], ask: Callable[[], Any]) -> None:
    try:
        predicted = ask()
    except _Lacking as error:
        send(answers, {"lacks": str(error)})
    except MlflowException as error:
        send(answers, {"refused": error.message, "code": error.error_code})
    except Exception as error:
        send(answers, {"failed": _sentence(error)})
    else:
        is_array = isinstance(predicted, np.ndarray)
        send(answers, {} if is_array else {"rows": predicted}, predicted if is_array else None)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:500]


if __name__ == "__main__":
    main(*sys.argv[1:])

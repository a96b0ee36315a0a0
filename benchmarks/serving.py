"""Latency of a registered encoder over HTTP with 1, 8 and 64 records a request, beside that of a call in this process.

    python -m benchmarks.serving [--recipe small] [--requests 20] --json FILE

A random encoder of a recipe's size is registered in a temporary store and served by `mlflow models serve` on loopback.
Records are 12 leads of 10 s at 500 Hz. `parsing` is the time of reading the request's JSON alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ecg_model.encoder_file import random_encoder, save_encoder
from ecg_model.serving.embed import embed
from pipelines.encoders.names import ENCODER_FILE
from pipelines.pretrain.recipes import recipe_named
from pipelines.release.model import Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import release_packaged
from pipelines.tracking import Tracking

RATE, SAMPLES, LEADS = 500.0, 5000, 12
SIZES = (1, 8, 64)
START_SECONDS = 120  # to wait for the server


@contextmanager
def served(model: str, tracking: Tracking, log: Path) -> Iterator[str]:
    """Yield the address of `mlflow models serve` on a model, in a separate process. Raises RuntimeError if it fails."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        model,
        "-p",
        str(port),
        "--env-manager",
        "local",
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts uvicorn by its name
    environment = {**os.environ, "PATH": path, "MLFLOW_TRACKING_URI": tracking.uri}
    with log.open("wb") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, start_new_session=True)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    try:
        while True:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"mlflow models serve did not start:\n{log.read_text()}")
            try:
                if httpx.get(f"{address}/ping", timeout=1).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield address
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def figures(address: str, encoder: Any, records: int, requests: int) -> dict[str, Any]:
    """Return latency and records a second of requests in turn, and the times of the model and of parsing alone."""
    ecgs = np.random.default_rng(records).normal(0, 0.3, (records, LEADS, SAMPLES)).round(3)
    body = json.dumps({"inputs": ecgs.tolist(), "params": {"sampling_rate": RATE}}).encode()
    seconds: list[float] = []
    with httpx.Client(timeout=300) as client:
        for number in range(requests + 2):
            began = time.perf_counter()
            answer = client.post(f"{address}/invocations", content=body, headers={"Content-Type": "application/json"})
            answer.raise_for_status()
            if number >= 2:  # the first ones warm the server
                seconds.append(time.perf_counter() - began)
    x_BLT = ecgs.astype(np.float32)
    model = timed(lambda: embed(encoder, x_BLT, sampling_rate=RATE), requests)
    parsing = timed(lambda: np.array(json.loads(body)["inputs"]), requests)
    return {
        "records": records,
        "request_mib": round(len(body) / 2**20, 2),
        "p50_ms": round(1000 * float(np.median(seconds)), 1),
        "p95_ms": round(1000 * float(np.quantile(seconds, 0.95)), 1),
        "records_per_second": round(records / float(np.median(seconds)), 1),
        "model_ms": round(1000 * model, 1),
        "parsing_ms": round(1000 * parsing, 1),
    }


def timed(work: Any, times: int) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--recipe", default="small", help="recipe whose encoder is served, with random weights (default: small)"
    )
    parser.add_argument("--requests", type=int, default=20, help="requests of each size (default: 20)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    encoder = random_encoder(recipe_named(options.recipe).encoder, 0).eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_encoder(folder / ENCODER_FILE, encoder)
        tracking = Tracking(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "artifacts")
        release = release_packaged(
            packaged_encoder(folder / ENCODER_FILE),
            Scores(),
            provenance={},
            recipe={},
            git_commit="",
            tracking=tracking,
        )
        with served(release.model_uri, tracking, folder / "log") as address:
            rows = [figures(address, encoder, records, options.requests) for records in SIZES]
    text = json.dumps({"recipe": options.recipe, "requests": options.requests, "sizes": rows}, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text)


if __name__ == "__main__":
    main()

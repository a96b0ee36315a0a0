"""How fast a registered encoder answers over HTTP: 1, 8 and 64 records a request, beside the same call in this process.

    python -m benchmarks.serving [--recipe small] [--requests 20] --json FILE

A random encoder of a recipe's size is registered in a store of its own and put behind `mlflow models serve` on
loopback. Records are 12 leads of 10 s at 500 Hz. `parsing` is the time that reading the request's JSON takes by itself.
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

from ecg_model.encoder import random_encoder, save_encoder
from ecg_model.serving.embed import embed
from pipelines.encoders.names import ENCODER_FILE
from pipelines.pretrain.recipes import recipe_named
from pipelines.release.model import Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import release_packaged
from pipelines.tracking import Tracking

RATE, SAMPLES, LEADS = 500.0, 5000, 12
SIZES = (1, 8, 64)
START_SECONDS = 120


@contextmanager
def served(model: str, tracking: Tracking, log: Path) -> Iterator[str]:
    """The address of `mlflow models serve` on a model, in a process of its own."""
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
    """Of requests in turn: latency, records a second, and where the time goes."""
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
    """The median of its seconds."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="small", help="whose encoder's size (default: small)")
    parser.add_argument("--requests", type=int, default=20, help="of each size (default: 20)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    encoder = random_encoder(recipe_named(given.recipe).jepa.encoder, 0).eval()
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
            rows = [figures(address, encoder, records, given.requests) for records in SIZES]
    found = {"recipe": given.recipe, "requests": given.requests, "sizes": rows}
    print(json.dumps(found, indent=1))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

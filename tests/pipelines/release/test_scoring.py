"""A model over HTTP: MLflow's protocol, and the limits of a request."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import random_encoder, save_encoder
from ecg_model.serving.embed import embed
from ecg_model.serving.reader import Reader
from ecg_model.serving.request import answered
from pipelines.home import Home
from pipelines.release.model import Scores
from pipelines.release.packaging import example_ecg, packaged_encoder
from pipelines.release.registry import release_packaged
from pipelines.release.scoring import scoring_app
from pipelines.release.scoring_request import BODY_MAX, CONTAINERS_MAX, parsed
from pipelines.tracking import Tracking
from tests.support.mlflow_server import free_port

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow.pyfunc import PyFuncModel
from mlflow.types import ParamSchema, ParamSpec

ENCODER = random_encoder(EncoderConfig(dim=32, depth=1, heads=2), 0).eval()
ACCEPTED = ("sampling_rate", "leads", "on_bad")
JSON = {"Content-Type": "application/json"}


class Model:
    """As much of a loaded model as a server needs."""

    metadata = SimpleNamespace(
        get_params_schema=lambda: ParamSchema(
            [
                ParamSpec("sampling_rate", "double", 0.0),
                ParamSpec("leads", "string", "standard"),
                ParamSpec("on_bad", "string", "nan"),
            ]
        )
    )

    def predict(self, ecgs: np.ndarray, params: dict[str, Any]) -> np.ndarray:
        return answered(Reader(encoder=ENCODER), ecgs, params)[0]


FLAT = np.zeros((12, 1000)).tolist()


def post(body: Any, headers: dict[str, str] = JSON) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(scoring_app(cast(PyFuncModel, Model())))
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.post("/invocations", content=body, headers=headers)

    return asyncio.run(send())


def request(**changes: Any) -> dict[str, Any]:
    return {"inputs": example_ecg().tolist(), "params": {"sampling_rate": 100.0}} | changes


@pytest.mark.parametrize(
    "form",
    [
        lambda x: {"inputs": x},
        lambda x: {"instances": x},
        lambda x: {"dataframe_split": {"columns": ["ecg"], "data": [[record] for record in x]}},
        lambda x: {"dataframe_records": [{"ecg": record} for record in x]},
    ],
    ids=["inputs", "instances", "split", "records"],
)
def test_each_form_of_mlflows_protocol_is_answered(form: Callable[[list], dict]) -> None:
    x = example_ecg()
    answer = post(json.dumps(form(x.tolist()) | {"params": {"sampling_rate": 100, "leads": "12"}}))
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], embed(ENCODER, x, sampling_rate=100), atol=1e-6)


def test_a_record_without_numbers_is_null_in_strict_json() -> None:
    gap = example_ecg()[0].tolist()
    gap[6][300] = None
    answer = post(json.dumps(request(inputs=[gap, *example_ecg().tolist(), FLAT])))
    assert answer.status_code == 200
    first, second, third = json.loads(answer.text, parse_constant=pytest.fail)["predictions"]
    np.testing.assert_allclose(second, embed(ENCODER, example_ecg(), sampling_rate=100)[0], atol=1e-5)
    assert first == third == [None] * len(second)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"9" * 5000, "cannot be read as JSON"),
        (b"[1]", "no JSON object"),
        (b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested too deep"),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "more than 20,000: send fewer records"),
        (b'{"inputs": [' + b"{}," * CONTAINERS_MAX + b"{}]}", "more than 20,000: send fewer records"),
        ({}, "the body holds nothing: give one of inputs"),
        (request(instances=[]), "give one of inputs"),
        (request(sampling_rate=500), "the body holds 'inputs', 'params', 'sampling_rate'"),
        (request(params=[1]), "params is no JSON object"),
        (
            request(params={"samplng_rate": 100}),
            "parameter 'samplng_rate' is unknown: use sampling_rate, leads, on_bad",
        ),
        (request(params={"\ud800": 1}), "parameter '\\\\ud800' is unknown"),
        (request(params={}), "sampling_rate 0"),
        *((request(params={"sampling_rate": rate}), "sampling_rate") for rate in (None, "x", True, [1], {}, 10**400)),
        *(
            (request(params={"sampling_rate": 100, "leads": leads}), "leads")
            for leads in (None, 5, ["I"], "x" * 2000, "", "I;II")
        ),
        *((request(params={"sampling_rate": 100, "on_bad": value}), "on_bad") for value in (None, 5, ["nan"], "drop")),
        (request(params={"sampling_rate": 100, "on_bad": "refuse"}, inputs=[FLAT]), "record 0: flat lead: I, II, V1"),
        *((request(inputs=value), "inputs: give a list of records") for value in ("x", None, {"a": 1}, 5, [1], [[1]])),
        (request(inputs=[[[0.1, "0.1"]]]), "inputs: give a list of records"),
        (request(inputs=[[[0.1, True]]]), "inputs: give a list of records"),
        (request(inputs=[[[[0.1]]]]), "inputs: give a list of records"),
        (request(inputs=[["x" * 20_000, [0.1]]]), "inputs: give a list of records"),
        (request(inputs=[[[0.1, 10**400]]]), "a number that is too large"),
        (request(inputs=[[[0.1, 0.2], [0.1]]]), "unequal leads or lengths"),
        (request(inputs=[]), "ecgs of shape (0,)"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, "give one column"),
        ({"dataframe_split": 5}, "give one column"),
        ({"dataframe_records": [{"a": 1, "b": 2}]}, "give one column"),
    ],
)
def test_a_bad_request_is_one_short_sentence(body: Any, message: str) -> None:
    answer = post(body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == 400
    assert set(answer.json()) == {"error_code", "message"}
    assert message in answer.text
    assert len(answer.text) < 500
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "kind", ["", "text/csv", "application/vnd.apache.parquet", "text/plain", "application/octet-stream"]
)
def test_only_json_is_read(kind: str) -> None:
    assert post(b"PAR1", {"Content-Type": kind}).status_code == 415


def test_a_large_body_is_refused_before_it_is_read() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1_000_000
            yield b" " * 1_000_000

    assert post(chunks()).status_code == 413
    assert sent < BODY_MAX + 2_000_001
    assert post(b"", {**JSON, "Content-Length": str(BODY_MAX + 1)}).status_code == 413


def test_missing_samples_and_whole_numbers_are_numbers() -> None:
    ecgs, params = parsed(b'{"inputs": [[[1, null]]]}', ACCEPTED)
    np.testing.assert_array_equal(ecgs, [[[1.0, np.nan]]])
    assert params == {}


@pytest.mark.slow
def test_the_command_serves_a_version_until_it_is_stopped(home: Home, tmp_path: Path) -> None:
    save_encoder(tmp_path / "encoder.safetensors", ENCODER)
    packaged = packaged_encoder(tmp_path / "encoder.safetensors")
    about = {"provenance": {}, "recipe": {}, "git_commit": "g", "tracking": Tracking.of(home)}
    release_packaged(packaged, Scores(), **about)
    port = free_port()
    program = [sys.executable, "-c", "from pipelines.cli import main; main()"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [*program, "serve", "models:/ecg-encoder/1", "--port", str(port)],
            stdout=log,
            stderr=log,
            env={**os.environ, "ECG_HOME": str(home.root)},
        )
    try:
        while True:
            assert server.poll() is None, (tmp_path / "log").read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}/ping").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.2)
        address = f"http://127.0.0.1:{port}/invocations"
        answer = httpx.post(address, json=request(), timeout=60)
        expected = embed(ENCODER, example_ecg(), sampling_rate=100)
        np.testing.assert_allclose(answer.json()["predictions"], expected, atol=1e-5)
        assert httpx.post(address, json=request(params={"sampling_rate": None})).status_code == 400
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    assert "Traceback" not in (tmp_path / "log").read_text()

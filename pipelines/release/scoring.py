"""A registered model over HTTP, in the protocol of `mlflow models serve`, with limits that MLflow's server lacks.

MLflow's server reads bodies of any size, in csv and parquet too, which no ECG fits in, and answers an error of its own
with a traceback. Here a request is JSON of at most `BODY_MAX` bytes, and a refusal is one sentence.
"""

from __future__ import annotations

import asyncio
import json
from io import StringIO

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pipelines.formatting import format_bytes
from pipelines.release.pulled import Pulled
from pipelines.release.scoring_request import BODY_MAX, parsed

# isort: split
# `pipelines.release` silences MLflow before it is imported.
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import predictions_to_json
from mlflow.version import VERSION

BODY_SECONDS = 60
"""The longest time that a client may take to send a body."""
CONNECTIONS = 32
"""Connections at a time; a further one is answered with 503. Each may hold a body that waits."""
PARALLEL = 2
"""Requests that are computed at a time: one reads or writes JSON while torch uses the cores for another."""


def serve(model: Pulled, host: str, port: int) -> None:
    """Serve a model until SIGINT or SIGTERM."""
    uvicorn.run(scoring_app(model), host=host, port=port, limit_concurrency=CONNECTIONS, log_level="warning")


def scoring_app(model: Pulled) -> Starlette:
    """Return the web application of a model: POST /invocations, GET /ping, /health and /version."""
    schema = model.metadata.get_params_schema()
    accepted = [] if schema is None else [param.name for param in schema.params]
    computing = asyncio.Semaphore(PARALLEL)

    def answer(body: bytes) -> Response:
        # Errors end here: one that left the thread would keep its frames, and with them the request's data.
        try:
            ecgs, params = parsed(body, accepted)
            predicted = model.predict(ecgs, params=params)
        except ValueError as error:
            return _refused(400, str(error))
        except MlflowException as error:
            return _refused(error.get_http_status_code(), error.message)
        except ChildProcessError as error:
            return _refused(500, str(error))
        text = StringIO()
        predictions_to_json(predicted, text)
        return Response(_strict(text.getvalue()), media_type="application/json")

    async def invocations(request: Request) -> Response:
        body = await _body(request)
        async with computing:
            return await run_in_threadpool(answer, body)

    def ping(request: Request) -> Response:
        return Response("\n", media_type="application/json")

    def version(request: Request) -> Response:
        return Response(VERSION, media_type="application/json")

    return Starlette(
        routes=[
            Route("/invocations", invocations, methods=["POST"]),
            Route("/ping", ping),
            Route("/health", ping),
            Route("/version", version),
        ],
        exception_handlers={
            HTTPException: _http_error,
            ClientDisconnect: lambda request, error: _refused(400, "the client went away"),
        },
    )


def _strict(answer: str) -> str:
    """Return a JSON text with null for NaN, which Python writes and most other readers refuse."""
    return json.dumps(json.loads(answer, parse_constant=lambda name: None)) if "NaN" in answer else answer


async def _body(request: Request) -> bytes:
    """Return a request's body. Raises HTTPException if it is no JSON, too large, or too slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON, with Content-Type application/json")
    too_large = HTTPException(413, f"a body beyond {format_bytes(BODY_MAX)}: send fewer records a request")
    if int(request.headers.get("content-length", 0)) > BODY_MAX:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_MAX:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS} s") from None
    return bytes(body)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _refused(error.status_code, error.detail)


def _refused(status: int, why: str) -> Response:
    code = "INVALID_PARAMETER_VALUE" if status == 400 else "BAD_REQUEST"
    return JSONResponse({"error_code": code, "message": why}, status)

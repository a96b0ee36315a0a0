"""The registered model as its users meet it: through MLflow, in another environment, and over HTTP forms."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder_file import load_encoder, random_encoder, save_encoder
from ecg_model.leads import LEADS_12
from ecg_model.serving.classify import CalibratedHead
from ecg_model.serving.embed import embed
from ecg_model.signal import prepare
from pipelines.finding import Finding
from pipelines.hashing import sha256_of_file
from pipelines.release.aliases import promote
from pipelines.release.gate import GateVerdict
from pipelines.release.model import CLASSIFIER_NAME, Scores
from pipelines.release.packaging import example_ecg, packaged_classifier, packaged_encoder
from pipelines.release.pulled import pulled_model
from pipelines.release.registry import record, release_packaged
from pipelines.tracking import Tracking
from tests.support.paths import ROOT

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.pyfunc
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server

PASSED = GateVerdict(against=None, rules={"not_worse": Finding.passed("the first")})


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_encoder(path, random_encoder(EncoderConfig(dim=48, depth=1, heads=2), 0))
    return path


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, encoder_file: Path, new_store: Callable[[Path], Tracking]
) -> Tracking:
    tracking = new_store(tmp_path_factory.mktemp("mlflow"))
    released = release_packaged(
        packaged_encoder(encoder_file), Scores(), provenance={}, recipe={}, git_commit="g", tracking=tracking
    )
    promote(record(released, PASSED, tracking=tracking), tracking=tracking)
    return tracking


@pytest.fixture(scope="module")
def model(store: Tracking) -> PyFuncModel:
    return loaded("models:/ecg-encoder@champion", store)


@pytest.fixture(scope="module")
def classifier(store: Tracking, encoder_file: Path, tmp_path_factory: pytest.TempPathFactory) -> PyFuncModel:
    head = tmp_path_factory.mktemp("head") / "head.safetensors"
    weight_CD = np.random.default_rng(0).normal(0, 1, (2, 48))
    calibrated = CalibratedHead(
        labels=("NORM", "MI"), weight_CD=weight_CD, bias_C=np.zeros(2), slope_C=np.ones(2), intercept_C=np.zeros(2)
    )
    head.write_bytes(calibrated.to_bytes())
    about = {"provenance": {}, "recipe": {}, "git_commit": "g", "registered_name": CLASSIFIER_NAME, "tracking": store}
    released = release_packaged(packaged_classifier(encoder_file, head), Scores(), **about)
    promote(record(released, PASSED, tracking=store), tracking=store)
    return loaded("models:/ecg-classifier@champion", store)


def loaded(uri: str, store: Tracking) -> PyFuncModel:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", store.uri)
        return mlflow.pyfunc.load_model(uri)


def test_the_pulled_model_embeds_raw_ecgs(model: PyFuncModel, encoder_file: Path) -> None:
    x = np.concatenate([example_ecg(), 0.5 * example_ecg()])
    expected = embed(load_encoder(encoder_file), x, sampling_rate=100.0)
    params = {"sampling_rate": 100.0, "leads": "12"}
    for kind in (np.float32, np.float64):
        got = model.predict(x.astype(kind), params=params)
        assert (got.shape, got.dtype) == ((2, 48), np.float32)
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_rows_may_be_named(model: PyFuncModel) -> None:
    x = example_ecg()
    named = {"sampling_rate": 100, "leads": ",".join(reversed(LEADS_12))}
    np.testing.assert_array_equal(
        model.predict(x[:, ::-1], params=named), model.predict(x, params={"sampling_rate": 100})
    )


FLAT = np.concatenate([example_ecg(), example_ecg()])
FLAT[1, 6] = 0.25


@pytest.mark.parametrize(
    ("x", "params", "message"),
    [
        (example_ecg(), None, "sampling_rate 0"),
        (example_ecg()[0], {"sampling_rate": 100.0}, "x\\[None\\]"),
        (example_ecg()[:, :3], {"sampling_rate": 100.0}, "3 rows"),
        (example_ecg(), {"sampling_rate": "fast"}, "sampling_rate"),
        (example_ecg(), {"sampling_rate": None}, "sampling_rate None: give the samples a second"),
        (example_ecg(), {"sampling_rate": float("nan")}, "sampling_rate nan: give the samples a second"),
        (example_ecg(), {"sampling_rate": 100.0, "leads": None}, "leads None: give standard, 12, 8, or"),
        (example_ecg(), {"sampling_rate": 100.0, "leads": "I," * 100_000}, "in at most 1000 letters"),
        (example_ecg(), {"sampling_rate": 100.0, "leads": ""}, "leads '': give standard, 12, 8, or"),
        (example_ecg(), {"sampling_rate": 100.0, "on_bad": "drop"}, "on_bad 'drop': give nan or refuse"),
        (example_ecg(), {"sampling_rate": 100.0, "on_bad": None}, "on_bad None: give nan or refuse"),
        (example_ecg(), {"sampling_rate": 100.0, "reasons": "yes"}, "reasons"),
        ([[[0.1, 10**400]]], {"sampling_rate": 100.0}, "too large"),
        (FLAT, {"sampling_rate": 100.0, "on_bad": "refuse"}, "^[A-Z_: ]*record 1: flat lead: V1 is constant$"),
        (
            np.repeat(FLAT, 2, axis=0),
            {"sampling_rate": 100.0, "on_bad": "refuse"},
            "record 2: flat lead: V1 is constant \\(and 1 more records\\)",
        ),
    ],
)
def test_a_bad_request_is_the_callers_and_says_so(
    model: PyFuncModel, x: np.ndarray, params: dict | None, message: str
) -> None:
    with pytest.raises(MlflowException, match=message) as raised:
        model.predict(x, params=params)
    assert raised.value.get_http_status_code() == 400
    assert len(raised.value.message) < 500


def test_a_bad_record_is_nan_and_its_reason_can_be_asked_for(model: PyFuncModel) -> None:
    params = {"sampling_rate": 100.0}
    embedding = model.predict(FLAT, params=params)
    assert np.isnan(embedding).all(axis=1).tolist() == [False, True]
    answer = model.predict(FLAT, params=params | {"reasons": True})
    np.testing.assert_array_equal(answer["embeddings"], embedding)
    assert answer["reasons"] == [None, "flat lead: V1 is constant"]
    np.testing.assert_array_equal(embedding[:1], model.predict(FLAT[:1], params=params | {"on_bad": "refuse"}))


def test_a_classifier_gives_a_bad_record_a_reason_beside_its_labels(classifier: PyFuncModel) -> None:
    good, bad = classifier.predict(FLAT, params={"sampling_rate": 100.0})
    assert list(good) == ["NORM", "MI"]
    assert 0 < good["NORM"] < 1
    assert (math.isnan(bad.pop("NORM")), math.isnan(bad.pop("MI"))) == (True, True)
    assert bad == {"reason": "flat lead: V1 is constant"}
    with pytest.raises(MlflowException, match="record 1: flat lead: V1 is constant"):
        classifier.predict(FLAT, params={"sampling_rate": 100.0, "on_bad": "refuse"})


def test_the_network_is_there_for_pytorch_with_what_it_takes(
    model: PyFuncModel, classifier: PyFuncModel, encoder_file: Path
) -> None:
    pulled = model.unwrap_python_model()
    x, reasons = pulled.prepare(FLAT, sampling_rate=100.0)
    assert (x.shape, x.dtype, reasons) == ((2, 8, 2500), np.float32, [None, "flat lead: V1 is constant"])
    assert np.isnan(x).all(axis=(1, 2)).tolist() == [False, True]
    assert isinstance(pulled.encoder, torch.nn.Module)
    tokens = pulled.encoder(torch.from_numpy(x[:1]))
    assert (tokens.shape, tokens.requires_grad) == ((1, 400, 48), True)
    embedding = model.predict(FLAT[:1], params={"sampling_rate": 100.0})
    np.testing.assert_allclose(tokens.detach().mean(dim=1), embedding, atol=1e-6)
    np.testing.assert_array_equal(x[:1], prepare(FLAT[:1], leads=LEADS_12, rate=100.0))
    short, why = pulled.prepare(FLAT[:1, :, :500], sampling_rate=100.0)
    assert np.isnan(short).all()
    assert why == ["too short: 5.00 s were recorded; give at least 10 s"]
    with pytest.raises(ValueError, match="3 rows: give 12 leads"):
        pulled.prepare(FLAT[:, :3], sampling_rate=100.0)
    assert isinstance(classifier.unwrap_python_model().encoder, torch.nn.Module)


def test_a_masked_sample_is_missing(classifier: PyFuncModel) -> None:
    x = np.ma.masked_array(example_ecg(), mask=False)
    x[0, 6, 300] = np.ma.masked
    (row,) = classifier.predict(x, params={"sampling_rate": 100.0})
    assert math.isnan(row["NORM"])
    assert row["reason"].startswith("missing samples: ")


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_the_documents_run(
    store: Tracking,
    classifier: PyFuncModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    assert len(examples) == 2
    code = examples[number]
    exec(code, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^# (.*)$", code, re.MULTILINE)


def stored_encoder(store: Tracking) -> Path:
    uri = store.client().get_model_version_download_uri("ecg-encoder", "1")
    return Path(uri.removeprefix("file://"), "artifacts", "encoder.safetensors")


def test_a_model_whose_weights_are_not_those_released_does_not_load(
    store: Tracking, encoder_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "encoder.safetensors"
    save_encoder(other, random_encoder(EncoderConfig(dim=48, depth=1, heads=2), 1))
    stored = stored_encoder(store)
    before = stored.read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    stored.write_bytes(other.read_bytes())
    try:
        with pytest.raises(ValueError, match="of this model has sha256") as refused:
            mlflow.pyfunc.load_model("models:/ecg-encoder@champion")
        with (
            pytest.raises(ValueError, match="in the store has sha256") as not_pulled,
            pulled_model("models:/ecg-encoder@champion", tracking=store),
        ):
            pass
    finally:
        stored.write_bytes(before)
        mlflow.set_tracking_uri(None)  # pyright: ignore[reportArgumentType]  # unsets it
    for error in (refused, not_pulled):
        assert sha256_of_file(encoder_file) in str(error.value)
        assert sha256_of_file(other) in str(error.value)


def test_the_device_is_chosen_where_the_model_is_loaded(store: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    with pytest.raises(RuntimeError, match="nowhere"):
        mlflow.pyfunc.load_model("models:/ecg-encoder@champion", model_config={"device": "nowhere"})


def test_the_example_and_the_signature_are_there_to_read(model: PyFuncModel) -> None:
    assert model.metadata.signature.params.to_dict() == [
        {"name": "sampling_rate", "default": 0.0, "shape": None, "type": "double"},
        {"name": "leads", "default": "standard", "shape": None, "type": "string"},
        {"name": "on_bad", "default": "nan", "shape": None, "type": "string"},
        {"name": "reasons", "default": False, "shape": None, "type": "boolean"},
    ]
    folder = Path((model.metadata.artifact_path or "").removeprefix("file://"))
    example = json.loads((folder / "serving_input_example.json").read_text())
    np.testing.assert_allclose(example["inputs"], example_ecg())
    assert example["params"] == {"sampling_rate": 100.0}


def invoke(model: PyFuncModel, body: dict) -> httpx.Response:
    """A request to MLflow's own scoring server, without a socket."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(scoring_server.init(model))
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.post("/invocations", json=body)

    return asyncio.run(post())


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
def test_json_over_http_gives_the_same(model: PyFuncModel, form: Callable[[list], dict]) -> None:
    x, params = np.concatenate([example_ecg(), 0.5 * example_ecg()]), {"sampling_rate": 100.0}
    answer = invoke(model, form(x.tolist()) | {"params": params})
    assert answer.status_code == 200
    np.testing.assert_allclose(answer.json()["predictions"], model.predict(x, params=params), atol=1e-6)
    refused = invoke(model, form((x * 1000).tolist()) | {"params": params | {"on_bad": "refuse"}})
    assert refused.status_code == 400
    assert "divide microvolt by 1000" in refused.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dataframe_split": {"columns": ["I", "II"], "data": [[0.1, 0.2]]}}, "a table of 2 columns: give one"),
        ({"inputs": [[[0.1, 0.2]], [[0.1]]]}, "inhomogeneous"),
        ({"dataframe_split": {"columns": ["ecg"], "data": [[[[0.1, 0.2]]], [[[0.1]]]]}}, "records of unequal leads"),
        ({"inputs": "ECG"}, "give (records, leads, samples)"),
        ({"inputs": []}, "give (records, leads, samples)"),
    ],
)
def test_what_is_no_batch_is_refused_over_http(model: PyFuncModel, body: dict, message: str) -> None:
    refused = invoke(model, body | {"params": {"sampling_rate": 100.0}})
    assert refused.status_code == 400
    assert message in refused.text


SNIPPET = """
import importlib.util, json, sys
import numpy as np
import torch
import mlflow.pyfunc
model = mlflow.pyfunc.load_model("models:/ecg-encoder@champion")
np.save("embedding.npy", model.predict(np.load("ecgs.npy"), params={"sampling_rate": 100.0}))
x, reasons = model.unwrap_python_model().prepare(np.load("ecgs.npy"), sampling_rate=100.0)
np.save("from_torch.npy", model.unwrap_python_model().encoder.embed(torch.from_numpy(x)).detach().numpy())
import ecg_model
foreign = [name for name in ("pipelines", "assets", "dagster", "zarr", "wfdb") if importlib.util.find_spec(name)]
print(json.dumps({"foreign": foreign, "ecg_model": ecg_model.__file__, "prefix": sys.prefix}))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_loads_and_embeds_in_an_environment_of_five_packages(
    store: Tracking, encoder_file: Path, tmp_path: Path
) -> None:
    venv, work = tmp_path / "venv", tmp_path / "empty"
    work.mkdir()
    x = example_ecg()
    np.save(work / "ecgs.npy", x)
    lists = [(ROOT / "locks" / name).read_text() for name in ("torch-pypi.txt", "run.txt")]
    pinned = re.findall(r"^[a-z0-9][^ ]*==[^ ]+", "\n".join(lists), re.MULTILINE)
    (tmp_path / "constraints.txt").write_text("\n".join(pinned))
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(tmp_path / "constraints.txt")]
    subprocess.run([*install, "mlflow", "torch", "numpy", "scipy", "safetensors"], check=True)

    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV", "VIRTUAL"))}
    environment |= {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    ran = subprocess.run(
        [python, "-c", SNIPPET], cwd=work, env=environment, check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "warning" not in ran.stderr.lower(), ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    assert report["foreign"] == []
    assert Path(report["prefix"]) == venv
    assert not Path(report["ecg_model"]).is_relative_to(ROOT), "the code came with the model"
    expected = embed(load_encoder(encoder_file), x, sampling_rate=100.0)
    np.testing.assert_allclose(np.load(work / "embedding.npy"), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(work / "from_torch.npy"), expected, atol=1e-5)

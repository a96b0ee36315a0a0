"""A version whose code is not this checkout's: it answers by its own, and never by another's that is loaded."""

from __future__ import annotations

import ast
import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

import ecg_model
from ecg_model.encoder_file import load_encoder
from ecg_model.serving.embed import embed
from pipelines.evaluate.features import (
    FeatureConfig,
    Tokens,
    materialize_features,
    materialize_tokens,
    read_features,
    read_signals,
)
from pipelines.evaluate.own_code import CannotAnswer, OwnCodeSource
from pipelines.formats.shard import LEADS
from pipelines.harmonize.shards import shards_of
from pipelines.home import HOSTS, Home
from pipelines.release.model import Release
from pipelines.release.own_code import other_code
from pipelines.release.own_process import OwnProcess
from pipelines.release.own_source import version_source
from pipelines.release.packaging import EXAMPLE_RATE, example_ecg
from pipelines.release.pulled import Pulled, pulled_model
from pipelines.release.registry import model_folder
from pipelines.release.resolve import named_encoders
from pipelines.release.scoring import scoring_app
from pipelines.release.steps import warm_start
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.pyfunc
from mlflow.exceptions import MlflowException

from tests.support.paths import ROOT
from tests.support.releases import edit_code, put, scored

RATE = {"sampling_rate": EXAMPLE_RATE}
ASKED = "    names = lead_names(leads)"
"""A line of serving/embed.py that runs for each request."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, new_store: Callable[[Path], Tracking]) -> Tracking:
    return new_store(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture(scope="module")
def same(store: Tracking, encoders: list[Path]) -> Release:
    """A version with this checkout's code."""
    return put(store, "same", encoders[0], scored(0.8))


@pytest.fixture(scope="module")
def doubled(store: Tracking, encoders: list[Path]) -> Release:
    """A version of the same weights whose code doubles the signal."""
    release = put(store, "doubled", encoders[0], scored(0.8))
    edit_code(release, store, "signal.py", "return resample(reach_LT, rate)", "return 2 * resample(reach_LT, rate)")
    return release


@pytest.fixture(autouse=True)
def elsewhere() -> Iterator[None]:
    """MLflow's store and the path of imports are as they were."""
    path, before = [*sys.path], mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    yield
    mlflow.set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  # None unsets it
    sys.path[:] = path


def expected(encoder: Path, factor: float) -> np.ndarray:
    return embed(load_encoder(encoder), factor * example_ecg(), sampling_rate=EXAMPLE_RATE)


def requested(model: Pulled) -> list[list[float]]:
    """What a server with this model answers to the example."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(scoring_app(model))
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            return await client.post("/invocations", json={"inputs": example_ecg().tolist(), "params": RATE})

    return asyncio.run(post()).json()["predictions"]


def test_code_is_this_checkouts_only_to_the_byte(same: Release, doubled: Release, store: Tracking, tmp_path: Path):
    assert other_code(model_folder(same, tracking=store)) is None
    digests = {other_code(model_folder(doubled, tracking=store))}
    copy = model_folder(same, tracking=store, into=tmp_path / "copy")
    (copy / "code" / "ecg_model" / "__pycache__").mkdir()
    (copy / "code" / "ecg_model" / "__pycache__" / "leads.pyc").write_bytes(b"of a load")
    assert other_code(copy) is None
    for file in ("code/ecg_model/leads.py", "encoder_model.py", "code/ecg_model/new.py"):
        copy = model_folder(same, tracking=store, into=tmp_path / file)
        with (copy / file).open("a") as stream:
            stream.write("# a comment\n")
        digests.add(other_code(copy))
    assert None not in digests
    assert len(digests) == 4


def test_two_versions_that_are_loaded_in_one_process_answer_each_by_its_own_code(
    same: Release, doubled: Release, store: Tracking, encoders: list[Path]
) -> None:
    mlflow.set_tracking_uri(store.uri)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ecg_model"}
    models = [mlflow.pyfunc.load_model(release.model_uri) for release in (doubled, same, doubled)]
    for model, factor in zip(models, (2, 1, 2), strict=True):
        np.testing.assert_allclose(model.predict(example_ecg(), RATE), expected(encoders[0], factor), atol=1e-5)
    after = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ecg_model"}
    assert after == before, "this process keeps the code that it had"


def test_a_models_code_imports_nothing_later() -> None:
    """What it imported when it is asked would be another version's."""
    for file in sorted(Path(next(iter(ecg_model.__path__))).rglob("*.py")):
        functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
        inside = [node for function in functions for node in ast.walk(function)]
        assert not [node for node in inside if isinstance(node, ast.Import | ast.ImportFrom)], file


@pytest.mark.slow
def test_a_version_with_other_code_answers_by_that_in_a_process_that_ends(
    same: Release, doubled: Release, store: Tracking, encoders: list[Path]
) -> None:
    with ExitStack() as both:
        first, second = (both.enter_context(pulled_model(r.model_uri, tracking=store)) for r in (same, doubled))
        assert isinstance(second, OwnProcess)
        assert not isinstance(first, OwnProcess)
        for ecgs in (example_ecg(), np.repeat(example_ecg(), 300, axis=0)):
            np.testing.assert_allclose(second.predict(ecgs, RATE)[:1], expected(encoders[0], 2), atol=1e-5)
            np.testing.assert_allclose(first.predict(ecgs, RATE)[:1], expected(encoders[0], 1), atol=1e-5)
        assert second.metadata.get_params_schema() == first.metadata.get_params_schema()
        for params in ({}, {**RATE, "leads": "I,II"}):
            refusals = []
            for model in (first, second):
                with pytest.raises(MlflowException) as refused:
                    model.predict(example_ecg(), params)
                refusals.append((refused.value.message, refused.value.get_http_status_code()))
            assert refusals[0] == refusals[1]
        answers = [requested(model) for model in (first, second)]
        second._process.kill()
        second._process.wait()
        np.testing.assert_allclose(second.predict(example_ecg(), RATE), expected(encoders[0], 2), atol=1e-5)
        process = second._process
    for answer, factor in zip(answers, (1, 2), strict=True):
        np.testing.assert_allclose(answer, expected(encoders[0], factor), atol=1e-5)
    assert process.returncode is not None
    with pytest.raises(ValueError, match="closed file"):
        second.predict(example_ecg(), RATE)


PARENT = """
import sys
from pathlib import Path
from pipelines.release.own_process import OwnProcess
from pipelines.release.own_source import version_source
from pipelines.tracking import Tracking
tracking = Tracking(uri=sys.argv[2], artifact_root=Path(sys.argv[1]))
process = OwnProcess(Path(sys.argv[1]), called="it", tracking=tracking)
print(process._process.pid, flush=True)
process.predict(__import__("numpy").zeros((1, 12, 1000)), {"sampling_rate": 100.0})
"""


@pytest.mark.slow
def test_the_process_ends_with_the_one_that_started_it_even_amid_a_request(
    store: Tracking, encoders: list[Path]
) -> None:
    release = put(store, "sleeper", encoders[0], scored(0.8))
    edit_code(release, store, "serving/embed.py", ASKED, "    import time; time.sleep(600)")
    folder = model_folder(release, tracking=store)
    command = [sys.executable, "-c", PARENT, str(folder), store.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
    for _ in range(600):
        if not Path(f"/proc/{child}").exists() or "(zombie)" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)
    pytest.fail("it still runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("STANDARD = ", "STANDARD = = ", "was not loaded: MlflowException: .*invalid syntax"),
        (ASKED, "    raise KeyError('gone')", "was not answered: KeyError: 'gone'"),
        (ASKED, "    import os; os.write(1, b'bye'); os._exit(3)", "ended with exit code 3 .*bye"),
    ],
    ids=["not-loaded", "fails", "ends"],
)
def test_code_that_fails_is_one_sentence(
    store: Tracking, encoders: list[Path], name: str, old: str, new: str, message: str
) -> None:
    release = put(store, name, encoders[0], scored(0.8))
    edit_code(release, store, "serving/embed.py", old, new)
    with (
        pytest.raises(ChildProcessError, match=message) as failed,
        pulled_model(release.model_uri, tracking=store) as model,
    ):
        model.predict(example_ecg(), RATE)
    assert str(failed.value).startswith(release.model_uri)
    assert "\n" not in str(failed.value)


@pytest.mark.slow
def test_a_version_is_evaluated_by_its_own_code(
    same: Release, doubled: Release, store: Tracking, encoders: list[Path], tmp_path: Path, ptbxl_home: Path
) -> None:
    """Its features are of its own code, and never taken for those of the same weights by this checkout's."""
    shutil.copytree(ptbxl_home / "home", tmp_path / "home", symlinks=True)
    workspace = Home(tmp_path / "home", HOSTS).workspace()
    with named_encoders(doubled.model_uri, same.model_uri, workspace, store) as ((_, own), (_, here)):
        assert isinstance(own, OwnCodeSource)
        assert (own.file, own.name) == (here.digest, f"encoder-{own.digest[:12]}")
        assert len({own.digest, here.digest, own.name, here.name}) == 4
        own_ND, here_ND = (read_features(materialize_features(workspace, s, "ptbxl")) for s in (own, here))
        own_NPD, here_NPD = (Tokens(materialize_tokens(workspace, s, "ptbxl"))[np.arange(70)] for s in (own, here))
        for reads in (own.extractor, own.tokenizer):
            with pytest.raises(ValueError, match="registered with other code than this checkout's: it embeds 8 leads"):
                reads(FeatureConfig(leads=("I",)))
        with pytest.raises(ValueError, match=r"other code than this checkout's: .* use a frozen head, or use a"):
            own.loaded()
    x_NLT = read_signals(shards_of(workspace, "ptbxl"))[:70] * np.float32(1e-3)
    encoder = load_encoder(encoders[0])
    for feature_ND, factor in ((own_ND, 2), (here_ND, 1)):
        by_hand = embed(encoder, factor * x_NLT, sampling_rate=250.0, leads=",".join(LEADS))
        np.testing.assert_allclose(feature_ND[:70], by_hand, atol=1e-4)
    for token_NPD, feature_ND in ((own_NPD, own_ND), (here_NPD, here_ND)):
        assert token_NPD.shape == (70, 400, 32)
        np.testing.assert_allclose(token_NPD.astype(np.float32).mean(axis=1), feature_ND[:70], atol=2e-3)


@pytest.mark.slow
def test_tokens_are_read_of_earlier_code_too_and_code_without_an_encoder_says_that_it_has_none(
    store: Tracking, encoders: list[Path], tmp_path: Path
) -> None:
    x_NLT = np.random.default_rng(0).normal(0, 0.2, (70, 8, 2500)).astype(np.float32)
    changes = (("def prepare(", "def _prepare("), ("self.encoder", "self.network"))
    for number, change in enumerate(changes):
        release = put(store, f"earlier-{number}", encoders[0], scored(0.8))
        program = model_folder(release, tracking=store) / "encoder_model.py"
        program.write_text(program.read_text().replace(*change))
        with ExitStack() as running:
            own = version_source(release, tmp_path / str(number), tracking=store, running=running)
            read = own.tokenizer(FeatureConfig())
            if number == 0:
                token_NPD = read(torch.from_numpy(x_NLT)).float().numpy()
                by_hand = embed(load_encoder(encoders[0]), x_NLT, sampling_rate=250.0, leads=",".join(LEADS))
                np.testing.assert_allclose(token_NPD.mean(axis=1), by_hand, atol=2e-3)
                continue
            with pytest.raises(CannotAnswer, match=r"models:/earlier-1/1 was registered with other code .* no encoder"):
                read(torch.from_numpy(x_NLT))


def test_a_warm_start_says_that_it_takes_the_weights_alone(
    same: Release, doubled: Release, store: Tracking, caplog: pytest.LogCaptureFixture
) -> None:
    for release, said in ((same, []), (doubled, [doubled.model_uri])):
        caplog.clear()
        with warm_start(release.model_uri, store) as (change, file):
            assert change == {"warm_start": release.weights["encoder"]}
            assert file is not None
        assert [record.getMessage().split()[0] for record in caplog.records] == said

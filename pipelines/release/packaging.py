"""A model as MLflow stores and serves it, and the check that a pulled version gives what its files give."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np

from pipelines.encoders.names import ENCODER_FILE
from pipelines.finding import Finding
from pipelines.release.gate import SERVING_TOLERANCE
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.artifacts
import mlflow.pyfunc
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

import ecg_model
from ecg_model.encoder_file import load_encoder
from ecg_model.serving.classify import CalibratedHead, classify
from ecg_model.serving.embed import STANDARD, embed
from ecg_model.serving.released_file import digest_key
from ecg_model.serving.request import NAN, REASON
from pipelines.release.model import Packaged, Release

REQUIREMENTS = ("mlflow", "torch", "numpy", "scipy", "safetensors")

_PACKAGE = Path(next(iter(ecg_model.__path__)))
_PULL_ONCE = _PACKAGE / "serving" / "pull_once.py"
EXAMPLE_RATE = 100.0
_PULL_SECONDS = 900
_PARAMS = (
    ParamSpec("sampling_rate", "double", 0.0),  # there is no safe default: 0 means "not given" and is refused
    ParamSpec("leads", "string", STANDARD),
    ParamSpec("on_bad", "string", NAN),
)


def packaged_encoder(encoder: Path) -> Packaged:
    """Package an encoder file of `save_encoder`. Raises ValueError if it is not called as released files are."""
    if encoder.name != ENCODER_FILE:
        raise ValueError(
            f"encoder {encoder}: the released file is called {ENCODER_FILE}; give the file of `save_encoder`"
        )
    dim = load_encoder(encoder).config.dim
    return Packaged(
        files={"encoder": encoder},
        code="encoder_model.py",
        params=(*_PARAMS, ParamSpec("reasons", "boolean", default=False)),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, dim))]),
        output=f"(records, {dim}) float32 embeddings, NaN for a record that is not fit",
        description="Raw 12-lead ECGs in millivolt -> embeddings",
    )


def packaged_classifier(encoder: Path, head: Path) -> Packaged:
    """Package an encoder with a file of `CalibratedHead`, of any kind. Raises ValueError if they do not fit."""
    packaged = packaged_encoder(encoder)
    calibrated = CalibratedHead.load(head)
    try:
        calibrated.reader(load_encoder(encoder))
    except ValueError as error:
        raise ValueError(f"{head}: {error}") from error
    labels = ", ".join(calibrated.labels) + (", which sum to 1" if calibrated.exclusive else "")
    return Packaged(
        files={**packaged.files, "head": head},
        code="classifier_model.py",
        params=_PARAMS,
        outputs=Schema(
            [
                *(ColSpec("double", label) for label in calibrated.labels),
                ColSpec("string", REASON, required=False),  # of a record that is not classified
            ]
        ),
        output=f"for each record a calibrated probability of {labels}, or NaN and `{REASON}`",
        description="Raw 12-lead ECGs in millivolt -> calibrated probabilities of diagnoses. Not a medical device.",
    )


def expected_of(packaged: Packaged) -> np.ndarray:
    """Compute what the files give for the example ECG: the embedding, or the classifier's probabilities."""
    encoder, ecg = load_encoder(packaged.files["encoder"]), example_ecg()
    if "head" not in packaged.files:
        return embed(encoder, ecg, sampling_rate=EXAMPLE_RATE)
    return classify(encoder, CalibratedHead.load(packaged.files["head"]), ecg, sampling_rate=EXAMPLE_RATE)


def serves(release: Release, packaged: Packaged, *, tracking: Tracking) -> Finding:
    """Check that the version, pulled in a separate process, gives for the example ECG what its files give here.

    Raises RuntimeError if it could not be pulled and run, and TimeoutError if that took too long: neither says
    anything about the version.
    """
    expected = expected_of(packaged)
    with tempfile.TemporaryDirectory() as folder:
        ecgs, answers = Path(folder) / "ecgs.npy", Path(folder) / "answers.npy"
        np.save(ecgs, example_ecg(), allow_pickle=False)
        command = [sys.executable, "-IB", str(_PULL_ONCE), release.model_uri, tracking.uri, str(EXAMPLE_RATE)]
        command += [str(ecgs), str(answers)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PULL_SECONDS)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{release.model_uri} was not pulled and run within {_PULL_SECONDS} s") from None
        if ran.returncode != 0:
            last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
            raise RuntimeError(f"{release.model_uri} could not be pulled and run: {last}")
        answer = np.load(answers, allow_pickle=False)
    if answer.shape != expected.shape or not np.isfinite(answer).all():
        return Finding.failed(f"{release.model_uri} gives {answer.shape} or numbers that are not finite")
    error = float(np.abs(answer - expected).max())
    return Finding(error <= SERVING_TOLERANCE, f"pulled, it differs by {error:.1e} at most from its files")


def example_ecg() -> np.ndarray:
    """Return float32 (1, 12, 1000), millivolt at 100 Hz: a sinus rhythm, rounded to a microvolt, to show the input.

    P, QRS and T are Gaussian waves on a wandering baseline, since a line that stands still between beats was never
    recorded; the R wave grows from V1 to V5. It is an example, not a measurement.
    """
    t_T = np.arange(1000) / EXAMPLE_RATE
    phase_T = (t_T + 0.3) % 0.85
    # (time s, width s, amplitude of lead I, of lead II, of V1..V6)
    waves = (
        (0.20, 0.025, 0.08, 0.12, 0.05, 0.06, 0.06, 0.06, 0.06, 0.06),
        (0.36, 0.010, 0.60, 0.90, 0.20, 0.40, 0.80, 1.20, 1.30, 1.00),
        (0.39, 0.010, -0.10, -0.15, -0.90, -1.20, -0.80, -0.40, -0.20, -0.10),
        (0.60, 0.050, 0.20, 0.30, -0.05, 0.30, 0.40, 0.40, 0.35, 0.25),
    )
    eight_LT = np.outer(np.linspace(0.02, 0.05, 8), np.sin(2 * np.pi * 0.3 * t_T + 0.5))
    for centre, width, *amplitudes in waves:
        eight_LT += np.outer(amplitudes, np.exp(-0.5 * ((phase_T - centre) / width) ** 2))
    lead_i, lead_ii = eight_LT[:2]
    # I, II, III, aVR, aVL, aVF by Einthoven and Goldberger.
    limb = (lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) / 2, lead_i - lead_ii / 2, lead_ii - lead_i / 2)
    return np.concatenate([limb, eight_LT[2:]])[None].round(3).astype(np.float32)


def log_model(packaged: Packaged) -> ModelInfo:
    """Log the model in the active MLflow run."""
    signature = ModelSignature(
        # No input schema: MLflow's check would refuse float64, which wfdb reads, and records in a table. The model
        # itself checks its input, with clearer messages.
        outputs=packaged.outputs,
        params=ParamSchema([*packaged.params]),
    )
    with without_bytecode():
        return mlflow.pyfunc.log_model(
            name="encoder",
            python_model=str(_PACKAGE / "serving" / packaged.code),
            artifacts={name: str(path) for name, path in packaged.files.items()},
            code_paths=[str(_PACKAGE)],
            pip_requirements=[f"{package}=={installed(package).partition('+')[0]}" for package in REQUIREMENTS],
            signature=signature,
            # What `load_context` is given; `device` may be overridden by who loads it.
            model_config={"device": "cpu"} | {digest_key(name): digest for name, digest in packaged.digests().items()},
            input_example=(example_ecg(), {"sampling_rate": EXAMPLE_RATE}),
            metadata={
                "input": "(records, leads, samples) of numbers in millivolt; 12 leads I..V6 or 8 (I, II, V1..V6)",
                "output": packaged.output,
            },
        )


@contextmanager
def without_bytecode() -> Iterator[None]:
    """Write no .pyc files while the body runs: MLflow imports a model's code from the folder where it is stored."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before

"""A model and its scores -> a version of a registered model, and its aliases, which a verdict of the gate moves.

    challenger   the version released last, until the gate has let it pass
    champion     what users pull: models:/ecg-encoder@champion
    previous     the champion before it, which has other weights

A model that no gate judges, such as the author's released encoder, has versions without aliases.
A version is what is served: its files, and the code that runs them (`versions.RELEASE`). Releasing the same again
finds the version that is there, and brings its scores up to date. What made it, how it scored, what the gate said and
each move are its tags.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import versions
from pipelines.cache import Workspace, digest_of
from pipelines.encoders.names import OURS
from pipelines.harmonize.checks import Finding
from pipelines.release.gate import SERVING_TOLERANCE, Verdict
from pipelines.release.retraining import ECGS, kind_of
from pipelines.tracking import Tracking, flat

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.artifacts
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

import ecg_model
from ecg_model.encoder import load_encoder
from ecg_model.serving.classify import CalibratedHead, classify
from ecg_model.serving.embed import STANDARD, embed

log = logging.getLogger(__name__)

REGISTERED_NAME = OURS.model
CLASSIFIER_NAME = "ecg-classifier"
CHALLENGER, CHAMPION, PREVIOUS = "challenger", "champion", "previous"
WEIGHTS, HEAD = "encoder.safetensors", "head.safetensors"
FILES = {"encoder": WEIGHTS, "head": HEAD}
REQUIREMENTS = ("mlflow", "torch", "numpy", "scipy", "safetensors")

_PACKAGE = Path(next(iter(ecg_model.__path__)))
_PULL_ONCE = _PACKAGE / "serving" / "pull_once.py"
_EXAMPLE_RATE = 100.0
_PULL_SECONDS = 900
_MOVED = "moved "
_MOVING = "moving"
_BACK = "rolled back from version"
_REPLACED = "replaced as champion"
_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How an encoder did. `validation` is of the split that the gate looks at: None where it was not scored.

    task: whose probe the gate compares, by name; empty for a model that no gate judges.
    validation: macro AUC of the gate's probe on its validation fold, 0 to 1. data_digest: of the ECGs, labels and
    protocol it was taken on. metrics: whatever else is worth showing.
    """

    validation: float | None = None
    data_digest: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    task: str = ""

    def __post_init__(self) -> None:
        if self.validation is not None and not 0.0 <= self.validation <= 1.0:
            raise ValueError(f"validation {self.validation}: a macro AUC lies between 0 and 1; None for not scored")
        if (self.validation is None) != (self.data_digest is None):
            raise ValueError(
                f"validation {self.validation} with data_digest {self.data_digest}: "
                "give both, or neither where the encoder was not scored"
            )
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name!r} is {value}: leave out what could not be computed")


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """What is registered: its artifacts by name, the file of `ecg_model.serving` that runs them, and what people and
    MLflow are told of it."""

    files: Mapping[str, Path]
    code: str
    outputs: Schema
    output: str
    description: str

    def digests(self) -> dict[str, str]:
        return {name: _sha256(path) for name, path in self.files.items()}


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of the registered model. created: by this call. rescored: it was there before, with other scores."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]
    created: bool = False
    rescored: bool = False

    @property
    def model_uri(self) -> str:
        return f"models:/{self.name}/{self.version}"

    @property
    def scores(self) -> Scores:
        return Scores(**json.loads(self.tags["scores"]))

    @property
    def weights(self) -> dict[str, str]:
        """The digests of its files, by name as in `Packaged`; two versions with the same differ in their code alone."""
        return {name: self.tags[f"{name}_digest"] for name in FILES if f"{name}_digest" in self.tags}

    @property
    def simulated(self) -> bool:
        """Whether it was trained on ECGs that a program drew; not so where it does not say, as of before."""
        return self.tags.get(ECGS) == kind_of(simulated=True)

    @property
    def verdict(self) -> Verdict | None:
        """What the gate said last; None where it was not asked."""
        rules = self.tags.get("rules")
        return None if rules is None else Verdict.from_dict(json.loads(rules))

    @property
    def moves(self) -> dict[str, str]:
        """When the version became champion or was replaced, each with why; the times in UTC, in order."""
        return {key.removeprefix(_MOVED): value for key, value in sorted(self.tags.items()) if key.startswith(_MOVED)}


def packaged_encoder(encoder: Path) -> Packaged:
    """encoder: a file of `save_encoder`, called as it is released."""
    if encoder.name != WEIGHTS:
        raise ValueError(f"encoder {encoder}: the released file is called {WEIGHTS}; give the file of `save_encoder`")
    dim = load_encoder(encoder).config.dim
    return Packaged(
        files={"encoder": encoder},
        code="encoder_model.py",
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, dim))]),
        output=f"(records, {dim}) float32 embeddings",
        description="Raw 12-lead ECGs in millivolt -> embeddings (ECG-JEPA)",
    )


def packaged_classifier(encoder: Path, head: Path) -> Packaged:
    """The encoder with a file of `CalibratedHead`. Raises ValueError where the two do not fit."""
    packaged = packaged_encoder(encoder)
    calibrated, dim = CalibratedHead.load(head), load_encoder(encoder).config.dim
    if calibrated.weight_CD.shape[1] != dim:
        raise ValueError(f"{head} is for embeddings of {calibrated.weight_CD.shape[1]}, the encoder's have {dim}")
    return Packaged(
        files={**packaged.files, "head": head},
        code="classifier_model.py",
        outputs=Schema([ColSpec("double", label) for label in calibrated.labels]),
        output=f"for each record a calibrated probability of {', '.join(calibrated.labels)}",
        description="Raw 12-lead ECGs in millivolt -> calibrated probabilities of diagnoses. Not a medical device.",
    )


def release_packaged(
    packaged: Packaged,
    scores: Scores,
    *,
    provenance: Mapping[str, str],
    recipe: Mapping[str, Any],
    git_commit: str,
    tracking: Tracking,
    registered_name: str = REGISTERED_NAME,
    alias: str | None = CHALLENGER,
    artifacts: Sequence[Path] = (),
) -> Release:
    """Log a model with its scores and register it as a new version; or find it, and give it these scores.

    provenance: tags that say what it was made from. recipe: the settings it was trained with, JSON values. alias: what
    a version is called that no gate has judged; None for a model without one. artifacts: files to lie beside it in the
    run (a report, pictures, metrics). The run and the version are complete before the alias moves. Of two processes
    that release the same at once, the second finds what the first registered.
    """
    digests = packaged.digests()
    served = _served(digests)
    scored = {
        "validation": "not scored" if scores.validation is None else f"{scores.validation:.4f}",
        "scores": json.dumps(asdict(scores), sort_keys=True),
    }
    client = tracking.client()
    with _alone(registered_name, tracking):
        _ensure_registered(client, registered_name, packaged.description)
        _end_move(registered_name, tracking)
        found = _find(client, registered_name, served)
        created = rescored = False
        if found is None:
            tags = {
                **provenance,
                **scored,
                "release": served,
                **{f"{name}_digest": digest for name, digest in digests.items()},
                "recipe_digest": digest_of(dict(recipe)),
                "git_commit": git_commit,
            }
            found = _register(client, registered_name, packaged, scores, flat(recipe), tags, artifacts, tracking)
            created = True
            log.info("%s version %s released (%s)", registered_name, found.version, scored["validation"])
        elif found.tags["scores"] != scored["scores"]:
            found = _renew(client, found, scores, scored, artifacts, tracking)
            rescored = True
            log.info("%s version %s has new scores (%s)", registered_name, found.version, scored["validation"])
        else:
            log.info("%s version %s holds this and these scores already", registered_name, found.version)
        if alias is not None and "verdict" not in found.tags:
            client.set_registered_model_alias(registered_name, alias, found.version)
        return _release(found, created=created, rescored=rescored)


def find_release(packaged: Packaged, *, registered_name: str = REGISTERED_NAME, tracking: Tracking) -> Release | None:
    """The version that serves these files by the code of now; None where it was not released."""
    found = _find(tracking.client(), registered_name, _served(packaged.digests()))
    return None if found is None else _release(found)


def expected_of(packaged: Packaged) -> np.ndarray:
    """What the files say of the example ECG, computed here: what a served version has to say, too."""
    encoder, ecg = load_encoder(packaged.files["encoder"]), example_ecg()
    if "head" not in packaged.files:
        return embed(encoder, ecg, sampling_rate=_EXAMPLE_RATE)
    return classify(encoder, CalibratedHead.load(packaged.files["head"]), ecg, sampling_rate=_EXAMPLE_RATE)


def serves(release: Release, packaged: Packaged, *, tracking: Tracking) -> Finding:
    """Whether the version, pulled in a process of its own, says of the example ECG what its files say here.

    Raises RuntimeError where it could not be pulled and run, and TimeoutError where that took too long: neither is
    an answer.
    """
    expected = expected_of(packaged)
    with tempfile.TemporaryDirectory() as folder:
        ecgs, answers = Path(folder) / "ecgs.npy", Path(folder) / "answers.npy"
        np.save(ecgs, example_ecg(), allow_pickle=False)
        command = [sys.executable, "-I", str(_PULL_ONCE), release.model_uri, tracking.uri, str(_EXAMPLE_RATE)]
        command += [str(ecgs), str(answers)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PULL_SECONDS)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{release.model_uri} was not pulled and run within {_PULL_SECONDS} s") from None
        if ran.returncode != 0:
            last = (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]
            raise RuntimeError(f"{release.model_uri} could not be pulled and run: {last}")
        found = np.load(answers, allow_pickle=False)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Finding(False, f"{release.model_uri} gives {found.shape} or numbers that are not finite")
    error = float(np.abs(found - expected).max())
    return Finding(error <= SERVING_TOLERANCE, f"pulled, it differs by {error:.1e} at most from its files")


def record(release: Release, verdict: Verdict, *, tracking: Tracking) -> Release:
    """Write the verdict on the version: tags for programs, its description for people."""
    client = tracking.client()
    name, version = release.name, str(release.version)
    client.update_model_version(name, version, description=verdict.page())
    client.set_model_version_tag(name, version, "rules", json.dumps(verdict.to_dict(), sort_keys=True))
    client.set_model_version_tag(name, version, "verdict", verdict.reason)
    log.info("%s version %s %s", name, version, verdict.reason)
    return _release(client.get_model_version(name, version))


def promote(release: Release, *, tracking: Tracking) -> Release:
    """Make a release that passed the gate the champion; what holds it then.

    Nothing moves where it holds it already. Killed on the way, the next call ends what this one began. Raises
    ValueError for a release that the gate has not judged, did not pass, or judged against another champion than the
    one there is, and for one that was champion and was replaced (`former`), which is a person's to undo.
    """
    with _alone(release.name, tracking):
        _end_move(release.name, tracking)
        verdict = release.verdict
        champion = find_alias(CHAMPION, name=release.name, tracking=tracking)
        if champion is not None and champion.version == release.version:
            return champion
        if verdict is None or not verdict.promote:
            raise ValueError(
                f"{release.model_uri} has not passed the gate: {release.tags.get('verdict', 'not judged')}"
            )
        before = former(release, champion, tracking=tracking)
        if before is not None:
            why = list(before.moves.values())[-1]
            raise ValueError(
                f"{before.model_uri} was champion before ({why}): `ecg rollback {release.version}` goes back to it, "
                "not the gate"
            )
        held = None if champion is None else champion.version
        if held != verdict.against:
            raise ValueError(
                f"{release.model_uri} was judged against version {verdict.against}, and version {held} is champion "
                "now: judge it again"
            )
        return _crown(release, champion, verdict.reason, tracking)


def former(release: Release, champion: Release | None, *, tracking: Tracking) -> Release | None:
    """The version with a release's weights that was champion and was replaced; None where there is none.

    Under a champion with the same weights that is the release itself or none: newer code may take that one's place.
    Elsewhere newer code is no way round a person who went back.
    """
    if release.moves:
        return release
    if champion is not None and champion.weights == release.weights:
        return None
    known = versions_of(name=release.name, tracking=tracking)
    return next((one for one in known if one.moves and one.weights == release.weights), None)


def rollback(*, to: int | None = None, why: str, name: str = REGISTERED_NAME, tracking: Tracking) -> Release:
    """Make an earlier version the champion again: `previous`, or version `to`. What was champion becomes `previous`,
    unless the two have the same weights.

    Killed on the way, the next call ends what this one began. Raises ValueError where there is no such version, or
    where it never was champion, nor its weights.
    """
    with _alone(name, tracking):
        ended = _end_move(name, tracking)
        if ended is not None and to in (None, ended.version) and _BACK in list(ended.moves.values())[-1]:
            return ended
        champion = find_alias(CHAMPION, name=name, tracking=tracking)
        if champion is None and to is None:
            raise ValueError(f"{name} has no champion at {tracking.uri}: name the version to go back to")
        if to is None:
            target = find_alias(PREVIOUS, name=name, tracking=tracking)
            if target is None:
                raise ValueError(f"{name} has no previous champion: name a version to go back to")
        else:
            known = {one.version: one for one in versions_of(name=name, tracking=tracking)}
            if to not in known:
                raise ValueError(f"version {to} of {name}: use one of {', '.join(map(str, sorted(known)))}")
            target = known[to]
        if champion is not None and target.version == champion.version:
            raise ValueError(f"version {target.version} of {name} is the champion already")
        if former(target, champion, tracking=tracking) is None:
            raise ValueError(f"version {target.version} of {name} never was champion: the gate decides on it")
        left = "none" if champion is None else champion.version
        return _crown(target, champion, f"{_BACK} {left}: {why}", tracking)


def versions_of(*, name: str = REGISTERED_NAME, tracking: Tracking) -> list[Release]:
    """All versions of a registered model, the newest first; none where there is no such model."""
    found = tracking.client().search_model_versions(f"name = '{name}'")
    return sorted(map(_release, found), key=lambda one: -one.version)


def aliases_of(*, name: str = REGISTERED_NAME, tracking: Tracking) -> dict[str, int]:
    """The versions that a model's aliases point to; none where there is no such model."""
    held = {alias: find_alias(alias, name=name, tracking=tracking) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    return {alias: one.version for alias, one in held.items() if one is not None}


def _alone(name: str, tracking: Tracking) -> AbstractContextManager[None]:
    """Hold a model: of a home's processes one at a time registers its versions and moves its aliases. Who has a server
    and no home is not held up, nor waited for."""
    if tracking.artifact_root is None:
        return nullcontext()
    return Workspace(tracking.artifact_root.parent).locked(name)


def _crown(release: Release, champion: Release | None, reason: str, tracking: Tracking) -> Release:
    """Move the aliases, and write the move on both versions: first what is to be done, so that it is done whole."""
    move = {
        "to": release.version,
        "from": None if champion is None else champion.version,
        "reason": reason,
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
    }
    begun = json.dumps(move)
    tracking.client().set_registered_model_tag(release.name, _MOVING, begun)
    moved = _move(release.name, begun, tracking)
    log.info("%s version %s is champion: %s", release.name, release.version, reason)
    return moved


def _end_move(name: str, tracking: Tracking) -> Release | None:
    """Do what is left of a move that was begun; the new champion, or None where none was."""
    begun = _begun(name, tracking)
    return _move(name, begun, tracking) if begun else None


def _begun(name: str, tracking: Tracking) -> str | None:
    model = _registered(tracking.client(), name)
    return None if model is None else model.tags.get(_MOVING)


def _move(name: str, begun: str, tracking: Tracking) -> Release:
    """The new champion. Raises RuntimeError where somebody of another home ended the move meanwhile, or began one."""
    client = tracking.client()
    move = json.loads(begun)
    version, before, tag = str(move["to"]), move["from"], f"{_MOVED}{move['at']}"
    if before is not None:
        replaced = f"{_REPLACED} by version {version}: {move['reason']}"
        client.set_model_version_tag(name, str(before), tag, replaced)
    client.set_model_version_tag(name, version, tag, f"champion: {move['reason']}")
    moved = _release(client.get_model_version(name, version))
    if _begun(name, tracking) != begun:
        raise RuntimeError(f"somebody else moved the aliases of {name} meanwhile: look with `ecg models`")
    if before is not None and _release(client.get_model_version(name, str(before))).weights != moved.weights:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    client.set_registered_model_alias(name, CHAMPION, version)
    _drop_challenger(client, name, move["to"])
    client.delete_registered_model_tag(name, _MOVING)
    return moved


def find_alias(alias: str, *, name: str = REGISTERED_NAME, tracking: Tracking) -> Release | None:
    """The version that an alias points to; None where there is no such model or alias."""
    client = tracking.client()
    found = _registered(client, name)
    version = None if found is None else found.aliases.get(alias)
    return None if version is None else _release(client.get_model_version(name, str(version)))


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def files_of(release: Release, folder: Path, *, tracking: Tracking) -> dict[str, Path]:
    """Fetch a version's files into `folder`, by name as in `Packaged`, to score it on other data."""
    return {name: _fetch(release.name, release.version, FILES[name], folder, tracking) for name in release.weights}


def registered_encoder(model: str, folder: Path, *, tracking: Tracking) -> Path:
    """Fetch the encoder file of a registered version into `folder`, to start a training from it.

    model: `models:/<name>@<alias>` or `models:/<name>/<version>`. Raises ValueError where it is neither, or not there.
    """
    named = _MODEL.fullmatch(model)
    if named is None:
        raise ValueError(
            f"{model!r} names no registered encoder: use models:/{REGISTERED_NAME}@{CHAMPION} or "
            f"models:/{REGISTERED_NAME}/1"
        )
    name, alias, version = named["name"], named["alias"], named["version"]
    client = tracking.client()
    try:
        if alias is not None:
            found = client.get_model_version_by_alias(name, alias)
        else:
            found = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"{model} is not registered at {tracking.uri}: release an encoder first") from error
    return _fetch(name, int(found.version), WEIGHTS, folder, tracking)


def _fetch(name: str, version: int, file: str, folder: Path, tracking: Tracking) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stored = tracking.client().get_model_version_download_uri(name, str(version))
    fetched = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{stored}/artifacts/{file}", dst_path=str(folder), tracking_uri=tracking.uri
    )
    return Path(fetched)


def example_ecg() -> np.ndarray:
    """(1, 12, 1000) float32 millivolt at 100 Hz: a drawn sinus rhythm, rounded to a microvolt, to show the input.

    P, QRS and T are Gaussian waves; the chest leads' R grows from V1 to V5. It is an example, not a measurement.
    """
    t_T = np.arange(1000) / _EXAMPLE_RATE
    phase_T = (t_T + 0.3) % 0.85
    # (time s, width s, amplitude of lead I, of lead II, of V1..V6)
    waves = (
        (0.20, 0.025, 0.08, 0.12, 0.05, 0.06, 0.06, 0.06, 0.06, 0.06),
        (0.36, 0.010, 0.60, 0.90, 0.20, 0.40, 0.80, 1.20, 1.30, 1.00),
        (0.39, 0.010, -0.10, -0.15, -0.90, -1.20, -0.80, -0.40, -0.20, -0.10),
        (0.60, 0.050, 0.20, 0.30, -0.05, 0.30, 0.40, 0.40, 0.35, 0.25),
    )
    eight_LT = np.zeros((8, len(t_T)))
    for centre, width, *amplitudes in waves:
        eight_LT += np.outer(amplitudes, np.exp(-0.5 * ((phase_T - centre) / width) ** 2))
    one, two = eight_LT[:2]
    limb = (one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    return np.concatenate([limb, eight_LT[2:]])[None].round(3).astype(np.float32)


def _register(
    client: MlflowClient,
    name: str,
    packaged: Packaged,
    scores: Scores,
    params: dict[str, str],
    tags: Mapping[str, str],
    artifacts: Sequence[Path],
    tracking: Tracking,
) -> ModelVersion:
    """A finished run with the model in it, then the version with all its tags at once."""
    run_tags = {key: value for key, value in tags.items() if key != "scores"}  # a run has them as metrics
    experiment = tracking.experiment_id(client)
    with _using(tracking):
        with mlflow.start_run(experiment_id=experiment, run_name=f"release {name}", tags=run_tags) as run:
            mlflow.log_params(params)
            for path in artifacts:
                mlflow.log_artifact(str(path))
            model = _log_model(packaged)
            mlflow.log_metrics(_metrics(scores), model_id=model.model_id)
        return client.create_model_version(
            name, source=model.model_uri, run_id=run.info.run_id, tags=dict(tags), model_id=model.model_id
        )


def _renew(
    client: MlflowClient,
    found: ModelVersion,
    scores: Scores,
    scored: Mapping[str, str],
    artifacts: Sequence[Path],
    tracking: Tracking,
) -> ModelVersion:
    """Other scores for a version and its run; last the tag that holds them all, so that what was cut short is done
    again."""
    run_id = found.run_id
    assert run_id is not None
    for path in artifacts:
        client.log_artifact(run_id, str(path))
    with _using(tracking):
        mlflow.log_metrics(_metrics(scores), run_id=run_id, model_id=found.model_id)
    for tag, value in scored.items():
        if tag != "scores":
            client.set_tag(run_id, tag, value)
        client.set_model_version_tag(found.name, found.version, tag, value)
    return client.get_model_version(found.name, found.version)


def _metrics(scores: Scores) -> dict[str, float]:
    return dict(scores.metrics) | ({} if scores.validation is None else {"validation": scores.validation})


def _log_model(packaged: Packaged) -> ModelInfo:
    signature = ModelSignature(
        # No schema of inputs: MLflow's check would refuse float64, which wfdb reads, and records in a table; the model
        # itself refuses in words.
        outputs=packaged.outputs,
        # No rate is a safe guess: the default stands for "not given" and is refused.
        params=ParamSchema([ParamSpec("sampling_rate", "double", 0.0), ParamSpec("leads", "string", STANDARD)]),
    )
    return mlflow.pyfunc.log_model(
        name="encoder",
        python_model=str(_PACKAGE / "serving" / packaged.code),
        artifacts={name: str(path) for name, path in packaged.files.items()},
        code_paths=[str(_PACKAGE)],
        pip_requirements=[f"{package}=={installed(package).partition('+')[0]}" for package in REQUIREMENTS],
        signature=signature,
        input_example=(example_ecg(), {"sampling_rate": _EXAMPLE_RATE}),
        metadata={
            "input": "(records, leads, samples) of numbers in millivolt; 12 leads I..V6 or 8 (I, II, V1..V6)",
            "output": packaged.output,
        },
    )


@contextmanager
def _using(tracking: Tracking) -> Iterator[None]:
    """Point MLflow's process-wide settings at a store while the body works: its model functions know no other way."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(tracking.uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # pyright: ignore[reportArgumentType]  # None unsets it


def _ensure_registered(client: MlflowClient, name: str, description: str) -> None:
    try:
        client.create_registered_model(name, description=description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _served(digests: Mapping[str, str]) -> str:
    return digest_of({**digests, "code": versions.RELEASE})


def _find(client: MlflowClient, name: str, served: str) -> ModelVersion | None:
    found = client.search_model_versions(f"name = '{name}' and tags.release = '{served}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _release(version: ModelVersion, *, created: bool = False, rescored: bool = False) -> Release:
    return Release(
        name=version.name,
        version=int(version.version),
        run_id=version.run_id or "",
        tags=dict(version.tags),
        created=created,
        rescored=rescored,
    )


def _drop_challenger(client: MlflowClient, name: str, version: int) -> None:
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(CHALLENGER, "")) == str(version):
        client.delete_registered_model_alias(name, CHALLENGER)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

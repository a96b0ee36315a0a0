"""Register a model with its scores as a version, or find the version that serves the same files.

A version is what is served: its files, and the code that runs them (`versions.RELEASE`). Releasing the same again
finds the existing version and updates its scores. What made it, its recipe, how it scored, what the gate said and each
move are its tags. A model that no gate judges, such as the author's released encoder, has versions without aliases.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines import versions
from pipelines.addresses import shown
from pipelines.hashing import digest_of, sha256_of_file
from pipelines.release.gate import GateVerdict
from pipelines.tracking import Tracking, flat

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import mlflow.artifacts
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines.release.aliases import finish_move, locked_model
from pipelines.release.model import FILES, REGISTERED_NAME, Packaged, Release, Scores, as_release
from pipelines.release.origin import UsedData
from pipelines.release.packaging import log_model
from pipelines.release.pages import describe_model, describe_version, link_model, log_data
from pipelines.release.tags import ANSWER, CHALLENGER, CHAMPION, NOT_SCORED, RECIPE, REPORT
from pipelines.release.version_recipe import recipe_tag

log = logging.getLogger(__name__)

_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


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
    data: Sequence[UsedData] = (),
) -> Release:
    """Log a model with its scores and register it as a new version, or find its version and give that these scores.

    provenance: tags that say what it was made from
    recipe: the settings it was trained with, JSON values
    alias: the alias of a version that no gate has judged yet; None for a model without one
    artifacts: files to store beside the model in its run (a report, pictures, metrics)
    data: ECGs that it was trained and scored on, which MLflow shows as the run's datasets

    The run and the version are complete before the alias moves. If two processes release the same at once, the second
    finds what the first registered.
    """
    digests = packaged.digests()
    served = _served(digests)
    scored = {
        "validation": NOT_SCORED if scores.validation is None else f"{scores.validation:.4f}",
        "scores": json.dumps(asdict(scores), sort_keys=True),
    }
    told = {**provenance, ANSWER: packaged.output, **_report_among(artifacts)}
    client = tracking.client()
    with locked_model(registered_name, tracking):
        _ensure_registered(client, registered_name, packaged.description)
        finish_move(registered_name, tracking)
        version = _find(client, registered_name, served)
        created = rescored = False
        if version is None:
            tags = {**told, **scored, **_contents(served, digests, recipe), "git_commit": git_commit}
            version = _register(client, registered_name, packaged, scores, flat(recipe), tags, artifacts, tracking)
            created = True
            log.info("%s version %s released (%s)", registered_name, version.version, scored["validation"])
        elif version.tags["scores"] != scored["scores"]:
            version = _rescore(client, version, scores, scored, told, artifacts, tracking)
            rescored = True
            log.info("%s version %s has new scores (%s)", registered_name, version.version, scored["validation"])
        else:
            log.info("%s version %s has these files and scores already", registered_name, version.version)
        if alias is not None and "verdict" not in version.tags:
            client.set_registered_model_alias(registered_name, alias, version.version)
        release = as_release(version, created=created, rescored=rescored)
        if created or rescored or not version.description:  # none if an earlier call was killed
            link_model(client, version)
            log_data(client, release, data)
            describe_version(release, tracking=tracking)
        describe_model(registered_name, tracking=tracking, summary=packaged.description)
        tracking.flush()
        return release


def _report_among(artifacts: Sequence[Path]) -> dict[str, str]:
    """Return the tag that names the report among the files of a run, or nothing."""
    return next(({REPORT: path.name} for path in artifacts if path.suffix == ".html"), {})


def _contents(served: str, digests: Mapping[str, str], recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags that say what a version serves and how that was trained."""
    return {
        "release": served,
        **{f"{name}_digest": digest for name, digest in digests.items()},
        "recipe_digest": digest_of(dict(recipe)),
        **recipe_tag(recipe),
    }


def find_release(packaged: Packaged, *, registered_name: str = REGISTERED_NAME, tracking: Tracking) -> Release | None:
    """Return the version that serves these files with today's code, or None if they were not released."""
    version = _find(tracking.client(), registered_name, _served(packaged.digests()))
    return None if version is None else as_release(version)


def record(release: Release, verdict: GateVerdict, *, tracking: Tracking) -> Release:
    """Write the verdict on the version: tags for programs, the description for people."""
    client = tracking.client()
    name, version = release.name, str(release.version)
    client.set_model_version_tag(name, version, "rules", json.dumps(verdict.to_dict(), sort_keys=True))
    judged = as_release(client.get_model_version(name, version))
    describe_version(judged, tracking=tracking)
    client.set_model_version_tag(name, version, "verdict", verdict.reason)
    describe_model(name, tracking=tracking)
    tracking.flush()
    log.info("%s version %s %s", name, version, verdict.reason)
    return as_release(client.get_model_version(name, version))


def files_of(release: Release, folder: Path, *, tracking: Tracking) -> dict[str, Path]:
    """Fetch a version's files into `folder`; their paths by name, as in `Packaged`."""
    model = f"{release.name} version {release.version}"
    return {
        name: _fetch(release.name, release.version, name, folder, tracking, digest=digest, model=model)
        for name, digest in release.weights.items()
    }


def names_version(model: str) -> bool:
    """Return whether a text has the form of a registered version's name."""
    return _MODEL.fullmatch(model) is not None


def version_named(model: str, *, tracking: Tracking) -> Release:
    """Return a registered version.

    model: `models:/<name>@<alias>` or `models:/<name>/<version>`. Raises ValueError for any other text, and if there is
    no such version.
    """
    named = _MODEL.fullmatch(model)
    if named is None:
        raise ValueError(
            f"model {shown(model)} names no registered encoder: use models:/{REGISTERED_NAME}@{CHAMPION} or "
            f"models:/{REGISTERED_NAME}/1"
        )
    name, alias, version = named["name"], named["alias"], named["version"]
    client = tracking.client()
    try:
        if alias is not None:
            registered = client.get_model_version_by_alias(name, alias)
        else:
            registered = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ValueError(f"{model} is not registered at {tracking.uri}: release an encoder first") from error
    return as_release(registered)


def model_folder(release: Release, *, tracking: Tracking, into: Path | None = None) -> Path:
    """Fetch a version's whole model, as MLflow loads it; a store on this machine is used where it lies.

    into: the folder that it is copied to wherever its store is

    Raises ValueError if one of its files is not the one that was released.
    """
    stored = tracking.client().get_model_version_download_uri(release.name, str(release.version))
    folder = _downloaded(stored, release.model_uri, tracking, into)
    for name, digest in release.weights.items():
        _require_released(folder / "artifacts" / FILES[name], digest, release.model_uri)
    return folder


def _fetch(
    name: str, version: int, kind: str, folder: Path, tracking: Tracking, *, digest: str | None, model: str
) -> Path:
    """Fetch a file of a version and compare it with what was released.

    kind: the file's name as in `Packaged`
    digest: its sha256 on the version; None if the version does not tell
    model: what the version is called in messages

    Raises ValueError if the store holds another file than was released.
    """
    file = FILES[kind]
    folder.mkdir(parents=True, exist_ok=True)
    stored = tracking.client().get_model_version_download_uri(name, str(version))
    fetched = _downloaded(f"{stored}/artifacts/{file}", model, tracking, folder)
    if digest is not None:
        _require_released(fetched, digest, model)
    return fetched


def _downloaded(artifact: str, model: str, tracking: Tracking, folder: Path | None = None) -> Path:
    """Fetch a file or folder from the store into `folder`; without one, it is used where it lies, or a copy is made.

    Raises ValueError, naming what was looked for, if it is not there.
    """
    into = None if folder is None else str(folder)
    try:
        return Path(
            mlflow.artifacts.download_artifacts(artifact_uri=artifact, dst_path=into, tracking_uri=tracking.uri)
        )
    except (MlflowException, OSError) as error:
        gone = isinstance(error, FileNotFoundError) or (
            isinstance(error, MlflowException) and error.error_code == "RESOURCE_DOES_NOT_EXIST"
        )
        if not gone:
            raise
        raise ValueError(
            f"{model}: {artifact} is not there, as {tracking.uri} has it: restore it from a backup; if the data home "
            "was moved or copied, put its folder mlflow/artifacts in its new place too, then "
            "`ECG_HOME=NEW-PLACE ecg models` finds them there"
        ) from error


def _require_released(fetched: Path, digest: str, model: str) -> None:
    """Raise ValueError if a file's sha256 is not `digest`; model is what the version is called in the message."""
    present = sha256_of_file(fetched)
    if present != digest:
        raise ValueError(
            f"{model}: {fetched.name} in the store has sha256 {present}, and {digest} was released: restore the "
            "artifacts from a backup, or release the encoder again"
        )


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
    """Log the model in a run, end the run, then create the version with all its tags at once.

    params: the recipe, flat
    artifacts: files to store beside the model
    """
    # A run has the scores as metrics and the recipe as parameters.
    run_tags = {key: value for key, value in tags.items() if key not in ("scores", RECIPE)}
    experiment = tracking.experiment_id(client)
    with _using(tracking):
        with mlflow.start_run(experiment_id=experiment, run_name=f"release {name}", tags=run_tags) as run:
            mlflow.log_params(params)
            for path in artifacts:
                mlflow.log_artifact(str(path))
            model = log_model(packaged)
            mlflow.log_metrics(_metrics(scores), model_id=model.model_id)
        tracking.flush(run.info.run_id, model.model_id)  # before the version, which vouches for them
        return client.create_model_version(
            name, source=model.model_uri, run_id=run.info.run_id, tags=dict(tags), model_id=model.model_id
        )


def _rescore(
    client: MlflowClient,
    version: ModelVersion,
    scores: Scores,
    scored: Mapping[str, str],
    told: Mapping[str, str],
    artifacts: Sequence[Path],
    tracking: Tracking,
) -> ModelVersion:
    """Write other scores on a version and its run.

    The tag `scores` is written last: `release_packaged` compares it, so that a call that was killed is repeated.

    scored: the tags of the scores
    told: tags that it gets if it lacks them, as a version of an earlier commit does
    artifacts: files to store beside the model
    """
    run_id = version.run_id
    assert run_id is not None
    for path in artifacts:
        client.log_artifact(run_id, str(path))
    tracking.flush(run_id)
    with _using(tracking):
        mlflow.log_metrics(_metrics(scores), run_id=run_id, model_id=version.model_id)
    for tag, value in {**{tag: value for tag, value in told.items() if tag not in version.tags}, **scored}.items():
        if tag != "scores":
            client.set_tag(run_id, tag, value)
        client.set_model_version_tag(version.name, version.version, tag, value)
    return client.get_model_version(version.name, version.version)


def _metrics(scores: Scores) -> dict[str, float]:
    return dict(scores.metrics) | ({} if scores.validation is None else {"validation": scores.validation})


@contextmanager
def _using(tracking: Tracking) -> Iterator[None]:
    """Point MLflow's process-wide settings at a store while the body runs; its model functions take no store."""
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
    """Return the digest of what a version serves: its files and the code that runs them."""
    return digest_of({**digests, "code": versions.RELEASE})


def _find(client: MlflowClient, name: str, served: str) -> ModelVersion | None:
    """Return the first version with this digest of what it serves, or None."""
    matching = client.search_model_versions(f"name = '{name}' and tags.release = '{served}'")
    return min(matching, key=lambda version: int(version.version), default=None)

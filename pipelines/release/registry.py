"""Register a model with its scores as a version, or find the version that serves the same files.

A version is what is served: its files, and the code that runs them (`versions.RELEASE`). Releasing the same again
finds the version that is there and updates its scores. What made it, how it scored, what the gate said and each move
are its tags. A model that no gate judges, such as the author's released encoder, has versions without aliases.
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
from pipelines.encoders.names import ENCODER_FILE
from pipelines.hashing import digest_of
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
from pipelines.release.packaging import log_model
from pipelines.release.tags import CHALLENGER, CHAMPION

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
    with locked_model(registered_name, tracking):
        _ensure_registered(client, registered_name, packaged.description)
        finish_move(registered_name, tracking)
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
        return as_release(found, created=created, rescored=rescored)


def find_release(packaged: Packaged, *, registered_name: str = REGISTERED_NAME, tracking: Tracking) -> Release | None:
    """The version that serves these files by the code of now; None where it was not released."""
    found = _find(tracking.client(), registered_name, _served(packaged.digests()))
    return None if found is None else as_release(found)


def record(release: Release, verdict: GateVerdict, *, tracking: Tracking) -> Release:
    """Write the verdict on the version: tags for programs, its description for people."""
    client = tracking.client()
    name, version = release.name, str(release.version)
    client.update_model_version(name, version, description=verdict.page())
    client.set_model_version_tag(name, version, "rules", json.dumps(verdict.to_dict(), sort_keys=True))
    client.set_model_version_tag(name, version, "verdict", verdict.reason)
    log.info("%s version %s %s", name, version, verdict.reason)
    return as_release(client.get_model_version(name, version))


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
    return _fetch(name, int(found.version), ENCODER_FILE, folder, tracking)


def _fetch(name: str, version: int, file: str, folder: Path, tracking: Tracking) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    stored = tracking.client().get_model_version_download_uri(name, str(version))
    fetched = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{stored}/artifacts/{file}", dst_path=str(folder), tracking_uri=tracking.uri
    )
    return Path(fetched)


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
            model = log_model(packaged)
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

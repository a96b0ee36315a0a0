"""Write MLflow's pages of a model, its versions and its runs, and the links between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from pipelines.release.card import Place, model_page, run_note, training_note, version_page
from pipelines.release.model import Release, as_release
from pipelines.release.origin import TRAINING, UsedData, as_inputs
from pipelines.release.tags import CHAMPION, TRAINING_RUN
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS, MLFLOW_RUN_NOTE

REGISTERED = "registered "
"""Prefix of the tags of a training's run that name versions with its encoder, before the model's name."""

DESCRIBED = "described"
"""The tag of a registered model with the digests of what was written here, before and now: a person's text is kept."""


def describe_version(release: Release, *, tracking: Tracking) -> None:
    """Write the descriptions of a version and of its run, and name the version on the training's run."""
    client = tracking.client()
    place = _place(client, release)
    client.update_model_version(release.name, str(release.version), description=version_page(release, place))
    client.set_tag(release.run_id, MLFLOW_RUN_NOTE, run_note(release, place))
    if place.training_experiment is not None:
        training = release.tags[TRAINING_RUN]
        client.set_tag(training, f"{REGISTERED}{release.name}", str(release.version))
        tags = client.get_run(training).data.tags
        versions = {tag.removeprefix(REGISTERED): tags[tag] for tag in sorted(tags) if tag.startswith(REGISTERED)}
        client.set_tag(training, MLFLOW_RUN_NOTE, training_note(versions))


def describe_model(name: str, *, tracking: Tracking, summary: str | None = None) -> None:
    """Write the description of a registered model, about its champion or else its newest version.

    A description that a person wrote is kept.

    summary: what the model does, in one line; None keeps the line that is there
    """
    client = tracking.client()
    model = client.get_registered_model(name)
    there = model.description or ""
    written = model.tags.get(DESCRIBED)
    # An earlier commit wrote the summary alone, and no tag.
    if "\n" in there if written is None else _digest(there) not in written.split():
        return
    champion = model.aliases.get(CHAMPION)
    versions = [str(champion)] if champion is not None else _newest(client, name)
    if not versions:
        return
    shown = as_release(client.get_model_version(name, versions[0]))
    if not shown.run_id or "scores" not in shown.tags:
        return  # somebody registered it by hand
    line = summary or (there.splitlines() or [name])[0]
    page = model_page(line, shown, _place(client, shown), champion=champion is not None)
    if page != there:
        # Both, so that it is known as ours whenever this is killed.
        client.set_registered_model_tag(name, DESCRIBED, f"{_digest(there)} {_digest(page)}")
        client.update_registered_model(name, description=page)


def link_model(client: MlflowClient, version: ModelVersion) -> None:
    """Name a version on its logged model, as MLflow's server does: its column *Registered models* reads it there."""
    # A database does not keep the id apart.
    model_id = version.model_id or (version.source or "").removeprefix("models:/")
    if not model_id.startswith("m-"):
        return
    named = json.loads(client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    if not any((one["name"], str(one["version"])) == (version.name, str(version.version)) for one in named):
        named.append({"name": version.name, "version": str(version.version)})
        client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(named)})


def log_data(client: MlflowClient, release: Release, data: Sequence[UsedData]) -> None:
    """Log datasets as inputs of a version's run, and those of the training on the training's run, too."""
    if not data:
        return
    commit = release.tags.get("git_commit", "")
    client.log_inputs(release.run_id, as_inputs(data, commit))
    training = release.tags.get(TRAINING_RUN)
    if training is not None and _place(client, release).training_experiment is not None:
        client.log_inputs(training, as_inputs([one for one in data if one.context == TRAINING], commit))


def _newest(client: MlflowClient, name: str) -> list[str]:
    versions = client.search_model_versions(f"name = '{name}'")
    return sorted((str(version.version) for version in versions), key=int, reverse=True)[:1]


def _place(client: MlflowClient, release: Release) -> Place:
    experiment = client.get_run(release.run_id).info.experiment_id
    training = release.tags.get(TRAINING_RUN)
    if training is None:
        return Place(experiment=experiment)
    try:
        found = client.get_run(training)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Place(experiment=experiment)  # somebody deleted it
    return Place(experiment=experiment, training_experiment=found.info.experiment_id)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]

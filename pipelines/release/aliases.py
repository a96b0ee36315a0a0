"""The aliases of a registered model, and moving them.

    challenger   the version released last, until the gate has let it pass
    champion     what users pull: models:/ecg-encoder@champion
    previous     the champion before it, which has other weights

A move is written on the model before it is made, so that the next call completes one that was killed.
"""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

from pipelines.cache import Workspace
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from pipelines.release.model import MOVED, REGISTERED_NAME, Release, as_release
from pipelines.release.tags import CHALLENGER, CHAMPION, PREVIOUS

log = logging.getLogger(__name__)


_MOVING = "moving"
_BACK = "rolled back from version"
_REPLACED = "replaced as champion"


def promote(release: Release, *, tracking: Tracking) -> Release:
    """Make a release that passed the gate the champion; what holds it then.

    Nothing moves where it holds it already. Killed on the way, the next call ends what this one began. Raises
    ValueError for a release that the gate has not judged, did not pass, or judged against another champion than the
    one there is, and for one that was champion and was replaced (`former_champion`), which is a person's to undo.
    """
    with locked_model(release.name, tracking):
        finish_move(release.name, tracking)
        verdict = release.verdict
        champion = find_alias(CHAMPION, name=release.name, tracking=tracking)
        if champion is not None and champion.version == release.version:
            return champion
        if verdict is None or not verdict.promote:
            raise ValueError(
                f"{release.model_uri} has not passed the gate: {release.tags.get('verdict', 'not judged')}"
            )
        before = former_champion(release, champion, tracking=tracking)
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
        return _set_champion(release, champion, verdict.reason, tracking)


def former_champion(release: Release, champion: Release | None, *, tracking: Tracking) -> Release | None:
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
    with locked_model(name, tracking):
        ended = finish_move(name, tracking)
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
        if former_champion(target, champion, tracking=tracking) is None:
            raise ValueError(f"version {target.version} of {name} never was champion: the gate decides on it")
        left = "none" if champion is None else champion.version
        return _set_champion(target, champion, f"{_BACK} {left}: {why}", tracking)


def versions_of(*, name: str = REGISTERED_NAME, tracking: Tracking) -> list[Release]:
    """All versions of a registered model, the newest first; none where there is no such model."""
    found = tracking.client().search_model_versions(f"name = '{name}'")
    return sorted(map(as_release, found), key=lambda one: -one.version)


def aliases_of(*, name: str = REGISTERED_NAME, tracking: Tracking) -> dict[str, int]:
    """The versions that a model's aliases point to; none where there is no such model."""
    held = {alias: find_alias(alias, name=name, tracking=tracking) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    return {alias: one.version for alias, one in held.items() if one is not None}


def locked_model(name: str, tracking: Tracking) -> AbstractContextManager[None]:
    """Hold a model: of a home's processes one at a time registers its versions and moves its aliases. Who has a server
    and no home is not held up, nor waited for."""
    if tracking.artifact_root is None:
        return nullcontext()
    return Workspace(tracking.artifact_root.parent).locked(name)


def _set_champion(release: Release, champion: Release | None, reason: str, tracking: Tracking) -> Release:
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


def finish_move(name: str, tracking: Tracking) -> Release | None:
    """Do what is left of a move that was begun; the new champion, or None where none was."""
    begun = _pending_move(name, tracking)
    return _move(name, begun, tracking) if begun else None


def _pending_move(name: str, tracking: Tracking) -> str | None:
    model = _registered(tracking.client(), name)
    return None if model is None else model.tags.get(_MOVING)


def _move(name: str, begun: str, tracking: Tracking) -> Release:
    """The new champion. Raises RuntimeError where somebody of another home ended the move meanwhile, or began one."""
    client = tracking.client()
    move = json.loads(begun)
    version, before, tag = str(move["to"]), move["from"], f"{MOVED}{move['at']}"
    if before is not None:
        replaced = f"{_REPLACED} by version {version}: {move['reason']}"
        client.set_model_version_tag(name, str(before), tag, replaced)
    client.set_model_version_tag(name, version, tag, f"champion: {move['reason']}")
    moved = as_release(client.get_model_version(name, version))
    if _pending_move(name, tracking) != begun:
        raise RuntimeError(f"somebody else moved the aliases of {name} meanwhile: look with `ecg models`")
    if before is not None and as_release(client.get_model_version(name, str(before))).weights != moved.weights:
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
    return None if version is None else as_release(client.get_model_version(name, str(version)))


def _registered(client: MlflowClient, name: str) -> RegisteredModel | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _drop_challenger(client: MlflowClient, name: str, version: int) -> None:
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(CHALLENGER, "")) == str(version):
        client.delete_registered_model_alias(name, CHALLENGER)

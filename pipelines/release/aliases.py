"""The aliases of a registered model, and moving them.

    challenger   the version released last, until the gate has let it pass
    champion     what users pull: models:/ecg-encoder@champion
    previous     the champion before it, which has other weights

A move is written on the model before it is made, so that the next call completes a move that was killed.
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

from pipelines.release.model import BY_HAND, MOVED, REGISTERED_NAME, Release, as_release
from pipelines.release.pages import describe_model, describe_version
from pipelines.release.tags import CHALLENGER, CHAMPION, PREVIOUS

log = logging.getLogger(__name__)


_MOVING = "moving"
_BACK = "rolled back from version"
_REPLACED = "replaced as champion"
_LONGEST_WHY = 1000  # characters, of the 5,000 that a tag of MLflow takes

OVERRULED = ("not_worse", "no_label_lost", "not_collapsed", "not_below_baselines")
"""Rules of the gate that a person may overrule."""


def promote(release: Release, *, tracking: Tracking) -> Release:
    """Make a release that passed the gate the champion, and return the champion.

    Nothing moves if it is the champion already. If this call is killed, the next one completes its move. Raises
    ValueError if the gate has not judged the release, refused it, or judged it against another champion than today's,
    and if it was champion and was replaced (`former_champion`), which only a person undoes.
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
        replaced = former_champion(release, champion, tracking=tracking)
        if replaced is not None:
            why = list(replaced.moves.values())[-1]
            raise ValueError(
                f"{replaced.model_uri} was champion before ({why}): `ecg rollback {release.version}` goes back to it, "
                "not the gate"
            )
        current = None if champion is None else champion.version
        if current != verdict.against:
            raise ValueError(
                f"{release.model_uri} was judged against version {verdict.against}, and version {current} is champion "
                "now: judge it again"
            )
        return _set_champion(release, champion, verdict.reason, tracking)


def promote_by_hand(
    *, version: int | None = None, why: str, by: str, name: str = REGISTERED_NAME, tracking: Tracking
) -> Release:
    """Make a judged version that the gate kept as challenger the champion, by a person's decision.

    The move that is written on both versions says who decided and why. A person overrules what the gate says of scores
    and trainings (OVERRULED), and not that a version answers wrongly. If this call is killed, the next one completes
    its move.

    version: None is the challenger
    by: who decides

    Raises ValueError if there is no such version, or it cannot become champion in this way.
    """
    if not 0 < len(why.strip()) <= _LONGEST_WHY:
        raise ValueError(f"why: give the reason in 1 to {_LONGEST_WHY:,} characters; it is written on the version")
    with locked_model(name, tracking):
        finish_move(name, tracking)
        release = _version(version, name, tracking)
        champion = find_alias(CHAMPION, name=name, tracking=tracking)
        if champion is not None and champion.version == release.version:
            return champion
        if release.verdict is None:
            raise ValueError(f"{release.model_uri} was not judged: the gate has to see first that it is served right")
        if former_champion(release, champion, tracking=tracking) is not None:
            raise ValueError(
                f"{release.model_uri} was champion before: `ecg rollback {release.version} --name {name}` goes back"
            )
        broken = [rule for rule, seen in release.verdict.rules.items() if not seen.holds and rule not in OVERRULED]
        if broken:
            seen = "; ".join(f"{rule}: {release.verdict.rules[rule].seen}" for rule in broken)
            raise ValueError(f"{release.model_uri} is not made champion by hand either: {seen}")
        promoted = _set_champion(release, champion, f"{BY_HAND} by {by}: {why.strip()}", tracking)
        describe_version(promoted, tracking=tracking)
        return promoted


def _version(version: int | None, name: str, tracking: Tracking) -> Release:
    """Return a version, or the challenger. Raises ValueError if there is none."""
    if version is None:
        challenger = find_alias(CHALLENGER, name=name, tracking=tracking)
        if challenger is None:
            raise ValueError(f"{name} has no challenger at {tracking.uri}: name a version, as in `ecg promote 1`")
        return challenger
    versions = {one.version: one for one in versions_of(name=name, tracking=tracking)}
    if not versions:
        raise ValueError(f"{name} has no version at {tracking.uri}: `ecg models` lists what there is")
    if version not in versions:
        raise ValueError(f"version {version} of {name}: use one of {', '.join(map(str, sorted(versions)))}")
    return versions[version]


def former_champion(release: Release, champion: Release | None, *, tracking: Tracking) -> Release | None:
    """Return the replaced champion that has a release's weights, or None.

    If today's champion has the same weights, that can only be the release itself: newer code may replace older code.
    Otherwise a version with newer code counts, too: it must not undo a person's rollback.
    """
    if release.moves:
        return release
    if champion is not None and champion.weights == release.weights:
        return None
    versions = versions_of(name=release.name, tracking=tracking)
    return next((version for version in versions if version.moves and version.weights == release.weights), None)


def rollback(*, to: int | None = None, why: str, name: str = REGISTERED_NAME, tracking: Tracking) -> Release:
    """Make an earlier version the champion again: `previous`, or version `to`.

    The champion becomes `previous`, unless the two have the same weights. If this call is killed, the next one
    completes its move. Raises ValueError if there is no such version, and if neither it nor another version with its
    weights was ever champion.
    """
    with locked_model(name, tracking):
        completed = finish_move(name, tracking)
        if completed is not None and to in (None, completed.version) and _BACK in list(completed.moves.values())[-1]:
            return completed
        champion = find_alias(CHAMPION, name=name, tracking=tracking)
        if champion is None and to is None:
            raise ValueError(f"{name} has no champion at {tracking.uri}: name the version to go back to")
        if to is None:
            target = find_alias(PREVIOUS, name=name, tracking=tracking)
            if target is None:
                raise ValueError(f"{name} has no previous champion: name a version to go back to")
        else:
            target = _version(to, name, tracking)
        if champion is not None and target.version == champion.version:
            raise ValueError(f"version {target.version} of {name} is the champion already")
        if former_champion(target, champion, tracking=tracking) is None:
            raise ValueError(
                f"version {target.version} of {name} was never champion: the gate decides on it, or `ecg promote "
                f"{target.version} --name {name}`"
            )
        left = "none" if champion is None else champion.version
        return _set_champion(target, champion, f"{_BACK} {left}: {why}", tracking)


def versions_of(*, name: str = REGISTERED_NAME, tracking: Tracking) -> list[Release]:
    """Return all versions of a registered model, the newest first; none if there is no such model."""
    versions = tracking.client().search_model_versions(f"name = '{name}'")
    return sorted(map(as_release, versions), key=lambda release: -release.version)


def aliases_of(*, name: str = REGISTERED_NAME, tracking: Tracking) -> dict[str, int]:
    """Return the versions that a model's aliases point to; none if there is no such model."""
    releases = {alias: find_alias(alias, name=name, tracking=tracking) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
    return {alias: release.version for alias, release in releases.items() if release is not None}


def registered_names(tracking: Tracking) -> list[str]:
    """Return the names of the registered models that have a version, in order."""
    models = tracking.client().search_registered_models(max_results=1000)
    return sorted(model.name for model in models if model.latest_versions)


def locked_model(name: str, tracking: Tracking) -> AbstractContextManager[None]:
    """Lock a model: one process of a home at a time registers its versions and moves its aliases.

    A caller with a server and no home takes no lock.
    """
    if tracking.artifact_root is None:
        return nullcontext()
    return Workspace(tracking.artifact_root.parent).locked(name)


def _set_champion(release: Release, champion: Release | None, reason: str, tracking: Tracking) -> Release:
    """Move the aliases, and write the move on both versions.

    What is to be done is written on the model first, so that a killed move can be completed.
    """
    move = {
        "to": release.version,
        "from": None if champion is None else champion.version,
        "reason": reason,
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
    }
    pending = json.dumps(move)
    tracking.client().set_registered_model_tag(release.name, _MOVING, pending)
    moved = _move(release.name, pending, tracking)
    log.info("%s version %s is champion: %s", release.name, release.version, reason)
    return moved


def finish_move(name: str, tracking: Tracking) -> Release | None:
    """Complete a pending move and return the new champion, or None if no move is pending."""
    pending = _pending_move(name, tracking)
    return _move(name, pending, tracking) if pending else None


def _pending_move(name: str, tracking: Tracking) -> str | None:
    model = _registered(tracking.client(), name)
    return None if model is None else model.tags.get(_MOVING)


def _move(name: str, pending: str, tracking: Tracking) -> Release:
    """Carry out a pending move, JSON, and return the new champion.

    Raises RuntimeError if a process of another home completed the move meanwhile, or began another.
    """
    client = tracking.client()
    move = json.loads(pending)
    version, before, tag = str(move["to"]), move["from"], f"{MOVED}{move['at']}"
    if before is not None:
        replaced = f"{_REPLACED} by version {version}: {move['reason']}"
        client.set_model_version_tag(name, str(before), tag, replaced)
    client.set_model_version_tag(name, version, tag, f"champion: {move['reason']}")
    moved = as_release(client.get_model_version(name, version))
    if _pending_move(name, tracking) != pending:
        raise RuntimeError(f"another process moved the aliases of {name} meanwhile: look with `ecg models`")
    if before is not None and as_release(client.get_model_version(name, str(before))).weights != moved.weights:
        client.set_registered_model_alias(name, PREVIOUS, str(before))
    client.set_registered_model_alias(name, CHAMPION, version)
    _drop_challenger(client, name, move["to"])
    client.delete_registered_model_tag(name, _MOVING)
    describe_model(name, tracking=tracking)
    tracking.flush()
    return moved


def find_alias(alias: str, *, name: str = REGISTERED_NAME, tracking: Tracking) -> Release | None:
    """Return the version that an alias points to, or None if there is no such model or alias."""
    client = tracking.client()
    model = _registered(client, name)
    version = None if model is None else model.aliases.get(alias)
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

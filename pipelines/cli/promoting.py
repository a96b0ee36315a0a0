"""The versions of the encoder, which of them is pulled, and going back to an earlier one."""

from __future__ import annotations

from pipelines.cli.store import store_of
from pipelines.home import Home
from pipelines.release.aliases import aliases_of, find_alias, rollback, versions_of
from pipelines.release.model import CLASSIFIER_NAME, REGISTERED_NAME, Release
from pipelines.release.tags import CHAMPION
from pipelines.tracking import Tracking


def versions(home: Home, name: str) -> list[tuple[str, str, str, str, str]]:
    """A row a version, the newest first: version, aliases, validation score, verdict, and its moves.

    Raises ValueError where the model has none.
    """
    tracking = store_of(home)
    aliases = aliases_of(name=name, tracking=tracking)
    found = [
        (
            str(one.version),
            ", ".join(alias for alias, version in aliases.items() if version == one.version),
            one.tags.get("validation", ""),
            one.tags.get("verdict", "not judged"),
            "; ".join(f"{when}: {what}" for when, what in one.moves.items()),
        )
        for one in versions_of(name=name, tracking=tracking)
    ]
    if not found:
        raise ValueError(f"{name} has no version at {tracking.uri}: release one first, as `make demo` does")
    return found


def go_back(home: Home, name: str, version: int | None, why: str) -> list[str]:
    """`rollback` in the home's store; what is pulled now, and how the model beside it stands to that, in sentences."""
    tracking = store_of(home)
    now = rollback(to=version, why=why, name=name, tracking=tracking)
    told = (
        f"models:/{name}@champion is version {now.version} in {home.tracking_uri}; loaded models keep what they loaded "
        "until restarted"
    )
    return [told, *_beside(now, tracking)]


def _beside(now: Release, tracking: Tracking) -> list[str]:
    """Of an encoder, the classifier that is served; of a classifier, the encoder: nobody moves one with the other."""
    other = {REGISTERED_NAME: CLASSIFIER_NAME, CLASSIFIER_NAME: REGISTERED_NAME}.get(now.name)
    held = None if other is None else find_alias(CHAMPION, name=other, tracking=tracking)
    if other is None or held is None:
        return []
    encoder = now.weights["encoder"]
    told = f"models:/{other}@champion is version {held.version}, with"
    if held.weights["encoder"] == encoder:
        return [f"{told} the same encoder"]
    known = versions_of(name=other, tracking=tracking)
    fitting = next((one.version for one in known if one.moves and one.weights["encoder"] == encoder), None)
    if fitting is None:
        return [f"{told} another encoder, and no version of {other} with this one ever was champion"]
    return [f'{told} another encoder: `ecg rollback {fitting} --name {other} --why "..."` goes back to this one']

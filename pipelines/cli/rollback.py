"""`ecg rollback`: go back to an earlier champion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.home import Home
    from pipelines.release.model import Release
    from pipelines.tracking import Tracking


@click.command("rollback")
@click.argument("version", required=False, type=int)
@click.option("--why", required=True, help="The reason, written on both versions.")
@click.option("--name", default="ecg-encoder", show_default=True, help="The registered model.")
def command(version: int | None, why: str, name: str) -> None:
    """Make the previous champion, or VERSION, champion again. What is champion now becomes the previous one.

    VERSION must have been champion before (it has moves in `ecg models`); on any other version the gate decides, or
    `ecg promote`. The gate does not undo a rollback: a version that was champion becomes champion again by this command
    alone.
    The classifier and its encoder are two models; the output says whether the champions of both still match.

    \b
    ecg rollback --why "V5 amplitudes wrong since Monday"
    ecg rollback 3 --why "the last one before the new corpus"
    """
    from pipelines.home import Home

    for line in roll_back(Home.default(), name, version, why):
        click.echo(line)


def roll_back(home: Home, name: str, version: int | None, why: str) -> list[str]:
    """Roll back in the home's store. Returns sentences: what is pulled now, and whether the other model matches."""
    from pipelines.cli.store import existing_store
    from pipelines.release.aliases import rollback

    tracking = existing_store(home)
    champion = rollback(to=version, why=why, name=name, tracking=tracking)
    return moved(champion, home, tracking)


def moved(champion: Release, home: Home, tracking: Tracking) -> list[str]:
    """Return sentences: what is pulled after a move, and whether the other model's champion matches it."""
    text = (
        f"models:/{champion.name}@champion is version {champion.version} in {home.tracking_uri}; loaded models keep "
        "what they loaded until restarted"
    )
    return [text, *_other_model(champion, tracking)]


def _other_model(champion: Release, tracking: Tracking) -> list[str]:
    """Say whether the other model's champion has the same encoder. Returns no line if it has no champion.

    The other model is the classifier of an encoder, or the encoder of a classifier. Neither moves with the other.
    """
    from pipelines.release.aliases import find_alias, versions_of
    from pipelines.release.model import CLASSIFIER_NAME, REGISTERED_NAME
    from pipelines.release.tags import CHAMPION

    other = {REGISTERED_NAME: CLASSIFIER_NAME, CLASSIFIER_NAME: REGISTERED_NAME}.get(champion.name)
    current = None if other is None else find_alias(CHAMPION, name=other, tracking=tracking)
    if other is None or current is None:
        return []
    encoder = champion.weights["encoder"]
    text = f"models:/{other}@champion is version {current.version}, with"
    if current.weights["encoder"] == encoder:
        return [f"{text} the same encoder"]
    known = versions_of(name=other, tracking=tracking)
    matching = next((one.version for one in known if one.moves and one.weights["encoder"] == encoder), None)
    if matching is None:
        return [f"{text} another encoder, and no version of {other} with this one ever was champion"]
    return [f'{text} another encoder: `ecg rollback {matching} --name {other} --why "..."` goes back to this one']

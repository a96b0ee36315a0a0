"""`ecg models`: the released versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.release.gate import GateVerdict
    from pipelines.tracking import Tracking


@click.command("models")
@click.option("--name", default="ecg-encoder", show_default=True, help="The registered model.")
def command(name: str) -> None:
    """List the released versions: aliases, scores, the gate's verdict, and when each became and ceased to be champion.

    validation is the macro AUC by a version's own linear probe, and by each other probe that the gate compared it by;
    labels says over how many of the task's labels it is.

    \b
    ecg models
    ecg models --name ecg-encoder-reference
    """
    from pipelines.cli.console import print_table, stdout
    from pipelines.cli.store import existing_store
    from pipelines.formatting import format_text
    from pipelines.home import Home
    from pipelines.release.aliases import registered_names
    from pipelines.release.tags import CHAMPION, NOT_SCORED

    tracking = existing_store(Home.default())
    rows = version_rows(tracking, name)
    print_table(("version", "alias", "validation", "labels", "recipe", "verdict", "moves"), rows)
    if others := [other for other in registered_names(tracking) if other != name]:
        stdout().print(f"\nother models here, by --name: {', '.join(map(format_text, others))}")
    stdout().print("\nvalidation: AUC by a version's own probes; a verdict is on the labels that both versions have")
    for version, alias, validation, *_ in rows:
        if CHAMPION in alias and validation == NOT_SCORED:
            stdout().print(
                f"version {version}, the champion, was never scored: harmonize labelled ECGs of its task, then "
                "materialize the probes and the release again"
            )


def version_rows(tracking: Tracking, name: str) -> list[tuple[str, str, str, str, str, str, str]]:
    """Return a row per version, the newest first.

    It has the version, its aliases, validation score, labels, recipe, verdict, and its moves.

    Raises ValueError if the model has no version.
    """
    from pipelines.release.aliases import aliases_of, registered_names, versions_of
    from pipelines.release.card import validation_labels
    from pipelines.release.tags import NOT_SCORED, RECIPE

    aliases = aliases_of(name=name, tracking=tracking)
    rows = [
        (
            str(release.version),
            ", ".join(alias for alias, version in aliases.items() if version == release.version),
            _by_probe(release.tags.get("validation", NOT_SCORED), release.verdict),
            validation_labels(release) or "",
            json.loads(release.tags.get(RECIPE, "{}")).get("name", ""),
            release.tags.get("verdict", "not judged"),
            "; ".join(f"{when}: {what}" for when, what in release.moves.items()),
        )
        for release in versions_of(name=name, tracking=tracking)
    ]
    if not rows:
        others = registered_names(tracking)
        there = f", or name one that is there: {', '.join(others)}" if others else ""
        raise ValueError(f"{name} has no version at {tracking.uri}: release one first, as `make demo` does{there}")
    return rows


def _by_probe(validation: str, verdict: GateVerdict | None) -> str:
    """Return a version's score, or `0.8120 linear, 0.8400 attention_pool` if the gate compared it by more probes."""
    scores = {row.probe: row.challenger for row in (verdict.probes if verdict else ()) if row.weight is not None}
    if set(scores) <= {"linear"}:
        return validation
    others = (f"{score:.4f} {probe}" for probe, score in scores.items() if score is not None and probe != "linear")
    return ", ".join([f"{validation} linear", *others])

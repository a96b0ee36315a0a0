"""`ecg upstream`: whether the hosts still have what was downloaded."""

from __future__ import annotations

import json
import sys

import click


@click.command("upstream")
@click.argument("source", required=False)
@click.option(
    "--take",
    is_flag=True,
    help="Use the new lists: partitions that changed are fetched again when they are materialized again.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def command(source: str | None, take: bool, as_json: bool) -> None:
    """Ask the hosts, or that of one SOURCE, whether they still have what was downloaded. Only lists are fetched.

    Exit code 1 if something changed and the new list is not in use, if something is gone, or if a host could not be
    asked.

    \b
    ecg upstream
    ecg upstream chapman --take
    """
    from pipelines.home import Home
    from pipelines.maintenance.upstream import ask

    answers = ask(Home.default(), source, take=take)
    if as_json:
        click.echo(json.dumps([answer.to_dict() for answer in answers], indent=1))
    else:
        for answer in answers:
            click.echo(f"{answer.source}: {answer.in_words()}")
        if not answers:
            click.echo("nothing is downloaded yet")
    if not all(answer.settled for answer in answers):
        sys.exit(1)

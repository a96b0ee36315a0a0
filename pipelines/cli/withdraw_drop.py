"""`ecg withdraw-drop`: remove a drop of own ECGs from the data home."""

from __future__ import annotations

import click


@click.command("withdraw-drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def command(name: str, yes: bool) -> None:
    """Remove the drop NAME from the data home: its copy, and what was harmonized from it.

    The next corpus is built without it. The original folder of the drop is not touched, and models that were trained
    on it stay as they are.

    \b
    ecg withdraw-drop ward-7_2026-05
    """
    from pipelines.home import Home
    from pipelines.incoming.bucket import place_of
    from pipelines.incoming.withdraw import withdraw_drop

    home = Home.default()
    if not yes:
        click.confirm(f"Remove our copy of drop {name} and what was harmonized from it?", abort=True)
    withdraw_drop(home, name)
    click.echo(f"drop {name} is withdrawn: materialize the corpus again to train without it")
    place = place_of(home.incoming)
    if name in place.names():
        click.echo(f"{place}/{name} is still there: remove it, or it may be taken again", err=True)

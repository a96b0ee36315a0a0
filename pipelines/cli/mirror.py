"""`ecg mirror`: where raw files come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.home import Home


@click.command("mirror")
@click.argument("place", required=False)
def command(place: str | None) -> None:
    """Show where ECGs come from, or set it: PLACE is a folder, a base URL, or `hosts` for the original addresses.

    The setting also applies to the UI and to later commands. A folder contains physionet.org/ or zenodo.org/ as
    `wget -r` writes them.

    \b
    ecg mirror
    ecg mirror /data/ecg-mirror
    ecg mirror hosts
    ecg mirror var/mirrors/simulated
    """
    from pipelines.home import Home

    home = Home.default()
    if place is not None:
        home.set_mirror(place)
    click.echo(f"ECGs come from {mirror_in_words(home)}; products are in {home.workspace().root}")


def mirror_in_words(home: Home) -> str:
    """Describe where the home's raw files come from."""
    return "the original hosts" if home.mirror is None else f"the mirror {home.mirror}"

"""`ecg mirror`: where raw files come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.home import Home


@click.command("mirror")
@click.argument("place", required=False)
def command(place: str | None) -> None:
    """Show where ECGs come from, or set it: PLACE is a folder, a base URL, or `hosts` for the original addresses.

    The setting also applies to the UI and to later commands. A folder contains physionet.org/ or zenodo.org/ as
    `wget -r` writes them, PhysioNet's zips unpacked, or an `aws s3 sync` of its bucket. What is not at the paths of
    `wget -r` is listed, and so is what cannot be used as it is.

    \b
    ecg mirror
    ecg mirror /data/ecg-mirror
    ecg mirror hosts
    ecg mirror var/mirrors/simulated
    """
    from pipelines.formatting import format_name
    from pipelines.home import Home

    home = Home.default()
    if place is not None:
        home.set_mirror(place)
    click.echo(format_name(f"ECGs come from {mirror_in_words(home)}; products are in {home.workspace().root}"))
    for line in _layout(home):
        click.echo(f"  {format_name(line)}")


def _layout(home: Home) -> list[str]:
    """Say what a folder mirror has elsewhere than at its `wget -r` paths, near them, or for no source at all."""
    from pipelines.download.layout import Layout
    from pipelines.download.unread import unread_records
    from pipelines.sources import SOURCES

    if home.mirror is None or not Path(home.mirror).is_dir():
        return []
    layouts = [Layout(source, Path(home.mirror)) for source in SOURCES.values()]
    lines: list[str] = []
    try:
        for layout in layouts:
            place = layout.place()
            elsewhere = None if place.base == layout.folder else str(place.files)
            text = elsewhere if place.files.is_dir() else layout.near()
            lines += [f"{layout.source.name}: {text}"] if text else []
        unread = unread_records(Path(home.mirror))
    except ValueError as error:  # a source in several places
        return [*lines, str(error)]
    return [*lines, *(f"no source reads {place}: {count:,} records" for place, count in unread.items())]


def mirror_in_words(home: Home) -> str:
    """Describe where the home's raw files come from."""
    return "the original hosts" if home.mirror is None else f"the mirror {home.mirror}"

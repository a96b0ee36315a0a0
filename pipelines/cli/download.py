"""`ecg download`: raw files of a source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.home import Home
    from pipelines.sources.base import Source


@click.command("download")
@click.argument("source")
@click.argument("partitions", metavar="[PARTITION]...", nargs=-1)
@click.option(
    "--connections", default=16, show_default=True, type=click.IntRange(1, 64), help="Parallel connections to one host."
)
def command(source: str, partitions: tuple[str, ...], connections: int) -> None:
    """Download a SOURCE, or some of its PARTITIONs, and verify the files; what is already here is not fetched again.

    This is what `raw/SOURCE` does in the UI, which then has nothing left to fetch. Raw files that were deleted after
    harmonization are fetched again.

    \b
    ecg download ludb
    ecg download chapman 01 02 --connections 8
    """
    from pipelines.cli.console import downloading
    from pipelines.download.step import RawFacts, download_to_home
    from pipelines.formatting import format_bytes
    from pipelines.home import Home

    home = Home.default()
    chosen, keys = requested_partitions(home, source, partitions)
    for partition in keys:
        with downloading(f"{source} {partition}") as progress:
            product = download_to_home(home, chosen, partition, connections=connections, progress=progress)
        facts, state = RawFacts.of(product), "here already" if product.cached else "downloaded"
        click.echo(f"{source} {partition}: {facts.files:,} files, {format_bytes(facts.bytes)}, {state}")


def requested_partitions(home: Home, name: str, partitions: Sequence[str]) -> tuple[Source, list[str]]:
    """Return the source and its named partitions, or all that the mirror has if none is named.

    Raises ValueError if there is no such source or partition, or if the mirror has no partition of it.
    """
    from pipelines.download.mirror import Mirror, absence, list_source
    from pipelines.sources import SOURCES

    if name not in SOURCES:
        raise ValueError(f"source {name!r}: use one of {', '.join(SOURCES)}")
    source, mirror = SOURCES[name], Mirror.parse(home.mirror)
    unknown = [partition for partition in partitions if partition not in source.partitions]
    if unknown:  # before the first is downloaded
        raise ValueError(f"partition {unknown[0]!r} of {name}: use one of {', '.join(source.partitions)}")
    keys = list(partitions) or source.available(list_source(source, mirror, raw_root=home.raw_root))
    if not keys:
        raise ValueError(absence(source, mirror))
    return source, keys

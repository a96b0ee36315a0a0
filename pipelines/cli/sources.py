"""`ecg sources`: the data sets, what of them is in the data home, and the records that were left out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import astuple, fields
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli.source_state import SourceState
    from pipelines.home import Home
    from pipelines.incoming import OwnData
    from pipelines.sources.base import Source


@click.command("sources")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, with citations and partitions.")
@click.option(
    "--dropped",
    is_flag=True,
    help="Print, as csv, each record that harmonization dropped or the corpus left out, with reason and detail.",
)
def command(name: str | None, as_json: bool, dropped: bool) -> None:
    """List the data sets, and what of them is in the data home; or show all about the one called NAME.

    NAME is a source of the list, or `incoming` for own ECGs.

    \b
    ecg sources
    ecg sources chapman
    ecg sources chapman --dropped > dropped.csv
    ecg sources --json | jq '.[] | {name, kept}'
    """
    from pipelines.cli.source_state import sources_here
    from pipelines.home import Home

    home = Home.default()
    if as_json and dropped:
        raise click.UsageError("--json and --dropped print two different things: give one of them")
    if name is not None:
        _require_source(name)
    if dropped:
        _print_dropped(home, name)
        return
    states = sources_here(home, name)
    if as_json:
        click.echo(json.dumps([state.to_dict() for state in states], indent=1))
    elif name is None:
        _print_sources(home, states)
    else:
        _print_details(home, states[0])


def _require_source(name: str) -> None:
    """Raise ValueError if there is no source of that name."""
    from pipelines.incoming import INCOMING
    from pipelines.sources import SOURCES

    names = [*SOURCES, INCOMING.name]
    if name not in names:
        raise ValueError(f"source {name!r}: use one of {', '.join(names)}")


def _print_sources(home: Home, states: list[SourceState]) -> None:
    from rich.table import Table

    from pipelines.cli.console import stdout
    from pipelines.cli.mirror import mirror_in_words

    table = Table("source", "data set", "role", "licence", "downloaded", "harmonized", "ECGs kept", box=None)
    for column in table.columns[4:]:
        column.justify = "right"
    for state in states:
        source, total = state.source, len(state.partitions)
        table.add_row(
            source.name,
            f"{source.title} {source.version}",
            source.role.value,
            state.licence,
            f"{len(state.downloaded)} of {total}",
            f"{len(state.harmonized)} of {total}",
            f"{state.kept:,} of {state.entered:,}" if state.harmonized else "-",
        )
    console = stdout()
    console.print(table)
    console.print(f"\nPartitions and ECGs in {home.workspace().root}, from {mirror_in_words(home)}.")
    if parts := [state.part for state in states if state.part is not None]:
        console.print("The mirror has a part of these; choose the partitions that it has:")
        for part in parts:
            console.print(f"  {part}")
    console.print("\nCite what you use (all about one: ecg sources NAME):")
    for names, citation in _citations(state.source for state in states).items():
        console.print(f"  {names}: {citation}", soft_wrap=True)


def _citations(sources: Iterable[Source | OwnData]) -> dict[str, str]:
    """Return the citations by the names of the sources that they are of."""
    from pipelines.sources.base import Source

    names: dict[str, list[str]] = {}
    for source in sources:
        if isinstance(source, Source):
            names.setdefault(source.citation, []).append(source.name)
    return {", ".join(of): citation for citation, of in names.items()}


def _print_details(home: Home, state: SourceState) -> None:
    from pipelines.cli.console import print_table
    from pipelines.cli.source_details import PARTITION_COLUMNS, partition_rows, source_lines
    from pipelines.formatting import format_name

    for title, text in source_lines(home, state):
        click.echo(f"{title:<14}{format_name(text)}")
    if rows := partition_rows(state):
        click.echo()
        print_table(PARTITION_COLUMNS, rows)


def _print_dropped(home: Home, name: str | None) -> None:
    """Print the records that were left out as csv, record by record; names from outside are escaped."""
    from pipelines.corpus.left_out import LeftOut, left_out
    from pipelines.formatting import format_name

    def line(cells: Iterable[str]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(map(format_name, cells))
        return text.getvalue()

    click.echo(line(column.name for column in fields(LeftOut)))
    for record in left_out(home.workspace(), name):
        click.echo(line(astuple(record)))

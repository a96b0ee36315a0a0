"""`ecg check-drop`: a drop of own ECGs, judged before it is taken."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command("check-drop")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, with every record dropped.")
def command(folder: Path, as_json: bool) -> None:
    """Check DIR, a drop of own ECGs: what would be read, what would be dropped, and why.

    Nothing is written. Exit code 1 if no record would be kept, if a file is of no format that is read, or if something
    in DIR or its name is refused. docs/own-data.md describes how to write a drop.

    \b
    ecg check-drop incoming/ward-7
    ecg check-drop incoming/ward-7 --json | jq '.dropped[] | .reason'
    """
    from pipelines.cli.console import counting, print_table
    from pipelines.formatting import format_name
    from pipelines.incoming.check import check_drop

    with counting("reading") as on_count:
        report = check_drop(folder, on_count)
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=1))
    else:
        headers = ("kind", "where", "records", "kept", "Hz", "leads", "seconds", "units", "mV peak to peak")
        print_table(headers, report.rows())
        click.echo("\n" + "\n".join(format_name(line) for line in report.lines()))
        click.echo(f"{report.kept:,} of {report.records:,} records would be kept")
    if not report.sound:
        sys.exit(1)

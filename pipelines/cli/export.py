"""`ecg export`: harmonized ECGs as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("export")
@click.argument("selection")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(("numpy", "wfdb")),
    default="numpy",
    show_default=True,
    help="signals.npy with records.csv, or WFDB records with RECORDS.",
)
def command(selection: str, out: Path, form: Literal["numpy", "wfdb"]) -> None:
    """Write harmonized ECGs into the new folder OUT, to the microvolt.

    SELECTION is ecgs/SOURCE, ecgs/SOURCE/PARTITION, corpus/train or corpus/validation.

    \b
    ecg export ecgs/ludb ludb --format wfdb
    ecg export corpus/train train
    """
    from pipelines.cli.console import counting
    from pipelines.corpus.export import export, select
    from pipelines.home import Home

    selected = select(Home.default().workspace(), selection)
    with counting("exporting") as on_count:
        count = export(selected, out, form, on_records=on_count)
    click.echo(f"{count:,} ECGs in {out}")

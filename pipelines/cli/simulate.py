"""`ecg simulate`: a mirror of all sources with simulated ECGs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "chapman": (20,),
        "code15": (20,),
        "ptbxl": (40,),
        "cpsc2018": (9, 9),
        "georgia": (10,),
        "ludb": 5,
    },
    "demo": {},
}
"""Fields of `MirrorSizes` by the size's name; `demo` is its defaults."""


@click.command("simulate")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="The same seed and size give the same bytes.")
@click.option(
    "--size", type=click.Choice(tuple(SIZES)), default="demo", show_default=True, help="How many ECGs are written."
)
def command(folder: Path, seed: int, size: str) -> None:
    """Write a mirror of all sources into DIR, in their native layouts, filled with simulated ECGs.

    \b
    ecg simulate /tmp/mirror --size small
    make demo MIRROR=/tmp/mirror
    """
    from pipelines.cli.console import progress
    from pipelines.simulate import MirrorSizes, write_mirror

    with progress() as bar:
        tasks: dict[str, Any] = {}

        def on_written(source: str, written: int, total: int) -> None:
            if source not in tasks:
                tasks[source] = bar.add_task(source, total=total)
            bar.update(tasks[source], completed=written)

        summary = write_mirror(folder, seed=seed, sizes=MirrorSizes(**SIZES[size]), progress=on_written)
    counts = ", ".join(f"{name} {count:,}" for name, count in summary.records.items())
    click.echo(
        f"{sum(summary.records.values()):,} simulated ECGs in {summary.path} ({summary.bytes / 1e6:.0f} MB): {counts}"
    )

"""`ecg verify`: hash downloaded files again."""

from __future__ import annotations

import json

import click


@click.command("verify")
@click.argument("source", required=False)
@click.option("--repair", is_flag=True, help="Fetch what is missing or damaged, and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def command(source: str | None, repair: bool, as_json: bool) -> None:
    """Hash all downloaded files again, or those of one SOURCE, and list what is missing or damaged.

    Own ECGs are the SOURCE `incoming`: the copies of the drops are hashed, and --repair copies from the drop again.

    Exit code 1 if a file is missing or damaged. The UI then fetches those files when raw/SOURCE is materialized, as
    --repair does at once. Files of a folder mirror are yours: they are listed, and not changed.

    \b
    ecg verify
    ecg verify chapman --repair
    ecg verify --json | jq '.[] | select(.sound | not)'
    """
    from pipelines.cli.console import counting, downloading
    from pipelines.formatting import format_bytes
    from pipelines.home import Home
    from pipelines.maintenance.verify import faults_in_words, remedies
    from pipelines.maintenance.verify import repair as repair_files
    from pipelines.maintenance.verify import verify as verify_files

    home = Home.default()
    with counting("hashing") as on_count:
        partitions = verify_files(home, source, on_count)
    if as_json:
        click.echo(json.dumps([partition.to_dict() for partition in partitions], indent=1))
    else:
        for partition in partitions:
            state = "sound"
            if not partition.sound:
                state = f"{len(partition.missing)} missing, {len(partition.damaged)} damaged"
            text = f"{partition.files:,} files, {format_bytes(partition.bytes)}, {state}"
            if partition.let_go:
                text = "deleted after harmonization"
            click.echo(f"{partition.source.name} {partition.partition}: {text}")
            for path in partition.missing:
                click.echo(f"  missing {path}")
            for path in partition.damaged:
                click.echo(f"  damaged {path}")
    faulty = [partition for partition in partitions if not partition.sound]
    if not faulty:
        return
    if not repair:
        raise click.ClickException(f"{faults_in_words(partitions)}: {remedies(faulty)}")
    for partition in faulty:
        with downloading(f"{partition.source.name} {partition.partition}") as on_progress:
            repair_files(home, partition, on_progress)
    click.echo(f"{faults_in_words(partitions)}; they were fetched again", err=True)

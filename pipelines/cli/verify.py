"""`ecg verify`: hash downloaded files, or the products, again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.home import Home
    from pipelines.maintenance.verify import Verified


@click.command("verify")
@click.argument("source", required=False)
@click.option("--repair", is_flag=True, help="Fetch what is missing or damaged, and nothing else.")
@click.option("--products", is_flag=True, help="Read what was made of them instead: all of it, or the product SOURCE.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def command(source: str | None, repair: bool, products: bool, as_json: bool) -> None:
    """Hash all downloaded files again, or those of one SOURCE, and list what is missing or damaged.

    Own ECGs are the SOURCE `incoming`: the copies of the drops are hashed, and --repair copies from the drop again.

    Exit code 1 if a file is missing or damaged. The UI then fetches those files when raw/SOURCE is materialized, as
    --repair does at once. Files of a folder mirror are yours: they are listed, and not changed.

    With --products, the products are read (shards, corpus, encoder, probes, reports), or those of one name and below
    it. Exit code 1 if one has other bytes than it was written with: it counts as finished no more, and is built again
    when it is materialized.

    \b
    ecg verify
    ecg verify chapman --repair
    ecg verify --products
    ecg verify ecgs/chapman --products
    ecg verify --json | jq '.[] | select(.sound | not)'
    """
    from pipelines.cli.console import counting, downloading
    from pipelines.home import Home
    from pipelines.maintenance.verify import faults_in_words, remedies
    from pipelines.maintenance.verify import repair as repair_files
    from pipelines.maintenance.verify import verify as verify_files

    home = Home.default()
    if products:
        if repair:
            raise click.UsageError("--repair fetches downloaded files: a product is built again by materializing it")
        _verify_products(home, source, as_json=as_json)
        return
    with counting("hashing") as on_count:
        partitions = verify_files(home, source, on_count)
    if as_json:
        click.echo(json.dumps([partition.to_dict() for partition in partitions], indent=1))
    else:
        for partition in partitions:
            _print_partition(partition)
    faulty = [partition for partition in partitions if not partition.sound]
    if not faulty:
        return
    if not repair:
        raise click.ClickException(f"{faults_in_words(partitions)}: {remedies(faulty)}")
    for partition in faulty:
        with downloading(f"{partition.source.name} {partition.partition}") as on_progress:
            repair_files(home, partition, on_progress)
    click.echo(f"{faults_in_words(partitions)}; they were fetched again", err=True)


def _print_partition(partition: Verified) -> None:
    from pipelines.formatting import format_bytes, format_name

    state = "sound"
    if not partition.sound:
        state = f"{len(partition.missing)} missing, {len(partition.damaged)} damaged"
    text = f"{partition.files:,} files, {format_bytes(partition.bytes)}, {state}"
    if partition.let_go:
        text = "deleted after harmonization"
    click.echo(f"{partition.source.name} {partition.partition}: {text}")
    for path in partition.missing:
        click.echo(f"  missing {format_name(path)}")
    for path in partition.damaged:
        click.echo(f"  damaged {format_name(path)}")


def _verify_products(home: Home, name: str | None, *, as_json: bool) -> None:
    """Read products and print a table of them. Raises ClickException if one is damaged."""
    from rich.markup import escape

    from pipelines.cli.console import counting, print_table
    from pipelines.formatting import format_bytes
    from pipelines.maintenance.products import verify_products

    with counting("reading") as on_count:
        checked = verify_products(home, name, on_count)
    if as_json:
        click.echo(json.dumps([product.to_dict() for product in checked], indent=1))
    else:
        rows = [
            (
                product.product,
                product.path.name,
                "yes" if product.current else None,
                f"{product.files:,}",
                format_bytes(product.bytes),
                "sound" if product.damage is None else escape(f"damaged: {product.damage}"),
            )
            for product in checked
        ]
        print_table(("product", "build", "current", "files", "size", "state"), rows)
    damaged = sum(not product.sound for product in checked)
    if damaged:
        raise click.ClickException(
            f"{damaged:,} of {len(checked):,} products are damaged: materialize them again, or remove those that are "
            "not current by `ecg gc --delete`"
        )

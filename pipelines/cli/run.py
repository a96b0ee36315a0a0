"""`ecg run`: the steps from raw files to a released model, without the UI."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli.road import Made, Run

ALL = "all"
NAMES = ("download", "harmonize", "corpus", "pretrain", "evaluate", "release")
"""The keys of `road.STEPS`, which is not imported for the help."""

CHECK_FAILED = 3
"""Exit code if a check failed, or the gate refused the version."""


@click.command("run")
@click.argument("steps", metavar="STEP...", nargs=-1, required=True, type=click.Choice([*NAMES, ALL]))
@click.option(
    "--partition",
    "partitions",
    metavar="SOURCE/PART",
    multiple=True,
    help="Download and harmonize this, such as chapman/01, incoming/ward-7 or all of ludb; may be given several times. "
    "Default: all that the mirror has (of the original hosts: what was downloaded before) and complete drops.",
)
@click.option(
    "--recipe",
    default="",
    metavar="NAME",
    help="How to pretrain: demo, small, small_cpc, small_s4, paper_block, paper_random or paper_cpc. Default: "
    "ECG_RETRAIN_RECIPE, else the champion's, else that of the last training, else demo.",
)
@click.option(
    "--set",
    "assignments",
    metavar="FIELD=VALUE",
    multiple=True,
    help="Change a field of the recipe (epochs=3), or a setting of a step (corpus.validation_share=0.1); may be given "
    "several times.",
)
def command(steps: tuple[str, ...], partitions: tuple[str, ...], recipe: str, assignments: tuple[str, ...]) -> None:
    """Do the steps of the pipeline, as the UI does them; a finished one is found, not done again.

    \b
    download    fetch and verify raw files; copy complete drops of own ECGs
    harmonize   bring their records into one form
    corpus      select what is pretrained on, and split it by patient
    pretrain    train the encoder
    evaluate    probe it, and write the report
    release     register it, put it before the gate, move the alias
    all         all of these

    They are done in this order. What one leaves is what the UI finds, and the other way round.

    \b
    Exit code: 0 done, or all was found; 1 refused, for a reason that is printed; 2 the command was not understood;
    3 a check failed, or the gate refused the version; 128 + signal: stopped, and the same command goes on from there.

    \b
    ecg run all --recipe small
    ecg run download harmonize --partition ludb --partition chapman/01
    ecg run corpus pretrain --recipe small --set epochs=5 --set corpus.sources=chapman
    ecg run evaluate release
    """
    from pipelines.cli.changes import read_changes
    from pipelines.cli.console import counting, downloading
    from pipelines.cli.launch import signals_told
    from pipelines.cli.road import Run
    from pipelines.home import Home

    chosen = [name for name in NAMES if name in steps or ALL in steps]
    if partitions and not {"download", "harmonize"} & set(chosen):
        raise click.UsageError("--partition is of the steps download and harmonize: name one of them, too")
    if recipe and "pretrain" not in chosen:
        raise click.UsageError("--recipe is of the step pretrain: name it, too")
    run = Run(
        home=Home.default(),
        named=partitions,
        recipe=recipe,
        changes=read_changes(assignments, chosen, recipe),
        downloading=downloading,
        counting=lambda title: counting(title, transient=True),
        note=lambda text: click.echo(f"  {text}", err=True),
    )
    with signals_told():
        _run(run, chosen)


def _run(run: Run, chosen: Sequence[str]) -> None:
    """Do the steps in order. Exits with CHECK_FAILED after a step of which a check failed.

    Raises ClickException after a step of which something was refused.
    """
    from pipelines.cli.road import STEPS, Refused, refuse_training
    from pipelines.formatting import format_name, format_text

    if "pretrain" in chosen[1:]:
        refuse_training(run)
    for name in chosen:
        click.echo(name)
        refused: list[str] = []
        failed: list[str] = []
        began = time.monotonic()
        for result in STEPS[name].run(run):
            if isinstance(result, Refused):
                refused.append(result.name)
                click.echo(f"  {format_name(result.name)}: refused: {format_text(result.why)}", err=True)
                continue
            _print(result, time.monotonic() - began, each_check=name not in ("download", "harmonize"))
            failed += [check for check, finding in result.checks.items() if not finding.holds]
            began = time.monotonic()
        if refused:
            raise click.ClickException(f"{name}: {len(refused)} were refused, first {format_name(refused[0])}")
        if failed:
            then = "the champion stays" if name == "release" else "nothing after it is done"
            click.echo(f"\n{name}: failed: {', '.join(dict.fromkeys(failed))}; {then}", err=True)
            sys.exit(CHECK_FAILED)
    click.echo(f"\nnext: {STEPS[chosen[-1]].then}")


def _print(made: Made, seconds: float, *, each_check: bool) -> None:
    """Print what was made or found: its place, what it says, and its checks; those of partitions by their number."""
    from pipelines.formatting import format_name, format_text

    state = "found in the cache" if made.cached else f"done in {seconds:.1f} s"
    click.echo(f"  {format_name(made.name):<28}  {state:<18}  {format_name(made.place)}")
    if made.says:
        click.echo(f"    {format_text(made.says)}")
    for name, finding in (*made.checks.items(), *made.warnings.items()):
        word = "passed" if finding.holds else "FAILED" if name in made.checks else "warning"
        if each_check or not finding.holds:
            click.echo(f"    {word:<8} {name}: {format_text(finding.seen)}")

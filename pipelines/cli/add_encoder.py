"""`ecg add-encoder`: a training of the shell, taken up as the encoder of the data home."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from pipelines.cli.run import CHECK_FAILED


@click.command("add-encoder")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Take up DIR, the folder of a finished `python -m pipelines.pretrain --out DIR`, as the data home's encoder.

    Its files are compared with what the training wrote, and copied; DIR stays as it is. The result is the product that
    the asset `encoder` would have made with the same recipe and corpus, so the UI and `ecg run` go on from it.

    Exit code 1 if the training has not ended, if a file was changed, or if its corpus is not in the data home; 3 if the
    encoder is taken up and the check of its training failed, as in `ecg run`.

    \b
    ecg add-encoder runs/first
    ecg run evaluate release
    """
    from pipelines.cli.store import reachable_store
    from pipelines.formatting import format_name, format_text
    from pipelines.home import Home
    from pipelines.pretrain.checks import training_went_well
    from pipelines.pretrain.step import EXPERIMENT, EncoderFacts, mirror
    from pipelines.pretrain.take_up import take_up

    home = Home.default()
    workspace = home.workspace()
    encoder = take_up(workspace, folder)
    facts = EncoderFacts.of(encoder)
    if not encoder.cached:  # its curves belong in the home's store, too, whatever store they went to
        with mirror(encoder.path, facts, replace(reachable_store(home), experiment=EXPERIMENT)):
            pass
    click.echo(f"encoder   {'here already' if encoder.cached else 'taken up'}: {format_name(str(encoder.path))}")
    click.echo(f"recipe    {facts.recipe['name']}, {facts.steps:,} steps on {facts.records:,} ECGs")
    corpus = workspace.current("corpus")
    if corpus is None or corpus.digest != encoder.inputs["corpus"]:
        click.echo(
            "note      it was trained on an earlier corpus than the current one: the asset `encoder` trains anew"
        )
    finding = training_went_well(facts)
    click.echo(f"{'passed' if finding.holds else 'FAILED':<9} {format_text(finding.seen)}")
    if not finding.holds:
        sys.exit(CHECK_FAILED)
    click.echo("\nnext: ecg run evaluate release")

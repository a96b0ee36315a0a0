"""`ecg import-reference`: an encoder that others released, and its scores beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cache import Product
    from pipelines.encoders.names import EncoderNames
    from pipelines.home import Home
    from pipelines.release.model import Release

OnTask = Callable[[int, int, str], None]
"""Called with the ECGs of a shard that are embedded, the ECGs of that shard, and the task's title."""


@click.command("import-reference")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--release",
    is_flag=True,
    help="Then probe it as ours is probed, and release it as `ecg-encoder-reference` or `ecg-encoder-reference-cpc`.",
)
def command(file: Path, release: bool) -> None:
    """Import a released encoder: FILE is the .pth of ECG-JEPA or the .ckpt of ECG-CPC, as its authors published it.

    The content says which it is. It is read as weights alone: no code that a FILE names is run, and any other FILE is
    refused. Once imported it is an encoder like ours, `reference` or `reference-cpc`: `--release`, or the job
    import_and_release_reference or import_and_release_reference_cpc in `make ui`, probes and releases it.

    \b
    ecg import-reference multiblock_epoch100.pth
    ecg import-reference multiblock_epoch100.pth --release
    ecg import-reference cpc_e10.ckpt --release
    """
    from pipelines.encoders.import_released import materialize_released
    from pipelines.home import Home

    home = Home.default()
    encoder_names, imported = materialize_released(home.workspace(), file)
    click.echo(f"reference encoder: {_in_words(encoder_names, imported)}\nin {imported.path}")
    if release:
        _release(home, encoder_names)


def _in_words(encoder_names: EncoderNames, imported: Product) -> str:
    from pipelines.encoders.import_reference import ReferenceFacts
    from pipelines.encoders.import_reference_cpc import ReferenceCPCFacts
    from pipelines.encoders.names import REFERENCE

    if encoder_names == REFERENCE:
        facts = ReferenceFacts.of(imported)
        return (
            f"{facts.published or 'not one of the published files'}, sha256 {facts.sha256}, "
            f"epoch {facts.epoch}, {facts.weights:,} weights"
        )
    facts = ReferenceCPCFacts.of(imported)
    words = f"ECG-CPC, sha256 {facts.sha256}, {facts.in_words()}"
    return f"{words}\npassed over and not run: {', '.join(facts.skipped)}" if facts.skipped else words


def _release(home: Home, encoder_names: EncoderNames) -> None:
    from pipelines.cli.console import counting, print_table, stdout

    with counting("probing") as on_count:
        released, rows = release_with_scores(home, on_count, encoder_names)
    console = stdout()
    console.print("\nMacro AUC on the test split of linear probes (95 % interval)")
    print_table(("task", "labels scored", "reference", "pretrained", "random", "reference minus pretrained"), rows)
    console.print(f"\n{'Released' if released.created else 'Released before'}: {released.model_uri}")


def release_with_scores(
    home: Home, on_task: OnTask, encoder_names: EncoderNames
) -> tuple[Release, list[tuple[str, ...]]]:
    """Probe an imported encoder on every task and release it.

    Returns the release and a row per task: its name, over how many labels it is scored, then test macro AUCs of the
    reference, of ours and of a random encoder, then the first minus the second. A missing score is a dash; a task that
    was not scored has its reason.
    """
    from pipelines.evaluate.probes.config import ProbeConfig
    from pipelines.evaluate.suite.baselines import beside_ours, probe_pair
    from pipelines.release.steps import release_reference
    from pipelines.tasks.catalogue import TASKS
    from pipelines.tracking import Tracking

    workspace, config = home.workspace(), ProbeConfig()
    rows = []
    for task in TASKS.values():
        pair = probe_pair(
            workspace,
            task,
            config,
            encoder_names,
            progress=lambda done, total, title=task.title: on_task(done, total, title),
        )
        figures = pair.figures() | beside_ours(workspace, task, pair, config)
        rows.append(_row(task.name, figures, encoder_names.probe))
    return release_reference(workspace, Tracking.of(home), encoder_names=encoder_names), rows


def _row(task: str, figures: Mapping[str, Any], theirs: str) -> tuple[str, ...]:
    from pipelines.encoders.names import OURS

    if "not scored" in figures:
        return task, "none", f"not scored: {figures['not scored']}", "-", "-", "-"
    macro_aucs = (_score(figures, name) for name in (theirs, OURS.probe, "random"))
    return task, figures["labels scored"], *macro_aucs, figures.get(f"{theirs} minus {OURS.probe}", "-")


def _score(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(f"test macro AUC, {name}")
    return "-" if value is None else f"{value:.3f} ({figures[f'test interval, {name}']})"

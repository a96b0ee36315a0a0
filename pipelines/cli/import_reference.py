"""`ecg import-reference`: the author's released encoder, and its scores beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.home import Home
    from pipelines.release.model import Release

OnTask = Callable[[int, int, str], None]
"""Called with the ECGs of a shard that are embedded, the ECGs of that shard, and the task's title."""


@click.command("import-reference")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--release", is_flag=True, help="Then probe it as ours is probed, and release it as `ecg-encoder-reference`."
)
def command(file: Path, release: bool) -> None:
    """Import the author's released encoder: FILE is the .pth as published on the author's drive.

    It is read as weights alone: no code that a FILE names is run, and any other FILE is refused. Once imported it is
    an encoder like ours: `--release`, or the job import_and_release_reference in `make ui`, probes and releases it.

    \b
    ecg import-reference multiblock_epoch100.pth
    ecg import-reference multiblock_epoch100.pth --release
    """
    from pipelines.encoders.import_reference import ReferenceFacts, materialize_reference
    from pipelines.home import Home

    home = Home.default()
    imported = materialize_reference(home.workspace(), file)
    facts = ReferenceFacts.of(imported)
    click.echo(
        f"reference encoder: {facts.published or 'not one of the published files'}, sha256 {facts.sha256}, "
        f"epoch {facts.epoch}, {facts.weights:,} weights\nin {imported.path}"
    )
    if release:
        _release(home)


def _release(home: Home) -> None:
    from pipelines.cli.console import counting, print_table, stdout

    with counting("probing") as on_count:
        released, rows = release_with_scores(home, on_count)
    console = stdout()
    console.print("\nMacro AUC on the test split of linear probes (95 % interval)")
    print_table(("task", "labels scored", "reference", "pretrained", "random", "reference minus pretrained"), rows)
    console.print(f"\n{'Released' if released.created else 'Released before'}: {released.model_uri}")


def release_with_scores(home: Home, on_task: OnTask) -> tuple[Release, list[tuple[str, ...]]]:
    """Probe the imported encoder on every task and release it.

    Returns the release and a row per task: its name, over how many labels it is scored, then test macro AUCs of the
    reference, of ours and of a random encoder, then the first minus the second. A missing score is a dash; a task that
    was not scored has its reason.
    """
    from pipelines.encoders.names import REFERENCE
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
            REFERENCE,
            progress=lambda done, total, title=task.title: on_task(done, total, title),
        )
        rows.append(_row(task.name, pair.figures() | beside_ours(workspace, task, pair, config)))
    return release_reference(workspace, Tracking.of(home)), rows


def _row(task: str, figures: Mapping[str, Any]) -> tuple[str, ...]:
    from pipelines.encoders.names import OURS, REFERENCE

    if "not scored" in figures:
        return task, "none", f"not scored: {figures['not scored']}", "-", "-", "-"
    macro_aucs = (_score(figures, name) for name in (REFERENCE.probe, OURS.probe, "random"))
    return task, figures["labels scored"], *macro_aucs, figures.get(f"{REFERENCE.probe} minus {OURS.probe}", "-")


def _score(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(f"test macro AUC, {name}")
    return "-" if value is None else f"{value:.3f} ({figures[f'test interval, {name}']})"

"""`ecg compare`: two encoders, their scores and the differences."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.evaluate.report.model import EncoderComparison, TaskComparison
    from pipelines.evaluate.suite.names import Evaluation
    from pipelines.home import Home


@click.command("compare")
@click.argument("first")
@click.argument("second")
@click.option(
    "--task",
    "tasks",
    multiple=True,
    help="Compare on this task alone, such as ptbxl_all, georgia__multi_class or ptbxl_superclass__attention_pool; may "
    "be given several times. Without it: a linear probe of each task that a release is judged by, and the gate's "
    "attention pool.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, with every label.")
@click.option(
    "--html", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also write a page into this file."
)
def command(first: str, second: str, tasks: tuple[str, ...], as_json: bool, html: Path | None) -> None:
    """Compare two encoders on the same ECGs and splits: paired bootstrap by patient, p adjusted by Holm's method.

    FIRST and SECOND are an encoder.safetensors, a registered models:/NAME/VERSION or models:/NAME@ALIAS, `pretrained`
    (the data home's own), `reference` or `reference-cpc` (the imported ones), or `random` (the other with its initial
    weights).

    \b
    ecg compare pretrained random
    ecg compare models:/ecg-encoder/3 models:/ecg-encoder@champion --html compared.html
    ecg compare encoder.safetensors reference --task ptbxl_superclass --json
    """
    from pipelines.cli.console import counting
    from pipelines.home import Home

    with counting("embedding") as on_count:
        comparison = compare(
            Home.default(), first, second, tasks, lambda title, done, total: on_count(done, total, title)
        )
    if html is not None:
        from pipelines.durable import write_atomically
        from pipelines.evaluate.report.page import comparison_page

        write_atomically(html, comparison_page(comparison).encode())
        click.echo(f"written to {html}", err=True)
    if as_json:
        click.echo(json.dumps(comparison.to_dict(), indent=1))
    else:
        _print_comparison(first, second, comparison)


def compare(
    home: Home, first: str, second: str, tasks: Sequence[str], progress: Callable[[str, int, int], None]
) -> EncoderComparison:
    """Compare two encoders on tasks by name, or by all that a release is judged by if none is named.

    progress: called with a task's title, the ECGs embedded, and the ECGs to embed.
    Raises ValueError for a name that is no task, and for an evaluation that is no frozen head on whole ECGs.
    """
    from pipelines.cli.store import store_of
    from pipelines.evaluate.report.compare import compare_encoders
    from pipelines.release.gate_probes import usual_evaluations
    from pipelines.release.resolve import named_encoders

    chosen = [_frozen(name) for name in tasks] or usual_evaluations()
    workspace = home.workspace()
    with named_encoders(first, second, workspace, store_of(home)) as encoders:
        return compare_encoders(workspace, encoders, chosen, progress)


def _frozen(name: str) -> Evaluation:
    """Return the evaluation of a frozen head on whole ECGs, such as `georgia__multi_class`."""
    from pipelines.evaluate.suite.names import FROZEN, evaluation

    chosen = evaluation(name)
    if chosen.head not in FROZEN or chosen.leads or chosen.percent or chosen.noise:
        raise ValueError(
            f"task {name!r}: encoders are compared by frozen heads on whole ECGs: use the variants multi_class, "
            "attention_pool, nearest_mean or paper_protocol, or none"
        )
    return chosen


def _print_comparison(first: str, second: str, comparison: EncoderComparison) -> None:
    from pipelines.cli.console import print_table, stdout
    from pipelines.evaluate.exposure import SEEN

    console = stdout()
    console.print(
        "Macro AUC on the test split (95 % interval), by linear probes unless a name ends with another; p by Holm's "
        "method over the rows"
    )
    scores = ("seen", first, "seen", second)
    print_table(("task", "tested on", "labels scored", *scores, "first minus second", "p"), rows(comparison))
    console.print(f"seen: {SEEN}")
    for note in notes(comparison):
        console.print(note)
    console.print(f"\n{comparison.in_words()}")


def rows(comparison: EncoderComparison) -> list[tuple[str, ...]]:
    """Return the table's rows, one per task.

    The columns are the task's name, what it was tested on, over how many of its labels it was scored, how much of the
    test ECGs each encoder has seen and its score, the difference with its interval, and p.
    """
    from pipelines.formatting import format_difference, format_interval
    from pipelines.tasks.splits import of_patients

    return [
        (
            task.task,
            of_patients(task.records, task.patients, task.unnamed),
            task.labels_scored,
            comparison.seen[task.task][0].in_words(),
            format_interval(task.first.value, task.first.low, task.first.high),
            comparison.seen[task.task][1].in_words(),
            format_interval(task.second.value, task.second.low, task.second.high),
            format_difference(task.difference.value, task.difference.low, task.difference.high),
            f"{task.p_adjusted:.3f}",
        )
        for task in comparison.tasks
    ]


def notes(comparison: EncoderComparison) -> list[str]:
    """Return the notes below the table: what is read, the tasks that are not in it, labels with few positives."""
    words = comparison.inputs_in_words()
    not_scored = [f"{title}: not scored, {reason}" for title, reason in comparison.not_scored.items()]
    return (
        ([] if words is None else [f"input: {words}"])
        + not_scored
        + [_few(task) for task in comparison.tasks if task.few]
    )


def _few(task: TaskComparison) -> str:
    counts = ", ".join(f"{label.name} {label.positives}" for label in task.labels if label.name in task.few)
    return f"{task.task}: few positives in the test split, so these scores say little: {counts}"

"""`ecg evaluate-labels`: an encoder on labels of your own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cli.evaluate import JudgedEncoder
    from pipelines.evaluate.features import OnProgress
    from pipelines.evaluate.probes.config import ProbeConfig
    from pipelines.evaluate.report.model import TaskReport
    from pipelines.evaluate.suite.run import EvaluationRow
    from pipelines.home import Home
    from pipelines.tasks.catalogue import LabelTask

LABELS_SHOWN = 40
PAGE_FILE = "report.html"
"""Written beside the encoder's probe."""


@click.command("evaluate-labels")
@click.argument("file", metavar="CSV", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--encoder",
    help="`pretrained`, `reference`, `reference-cpc`, models:/NAME/VERSION, models:/NAME@ALIAS or an "
    "encoder.safetensors.  "
    "[default: the champion of ecg-encoder; without one, `pretrained`]",
)
@click.option("--source", default="incoming", show_default=True, help="The source whose ECGs are labelled.")
@click.option(
    "--min-positives",
    default=10,
    show_default=True,
    type=click.IntRange(min=1),
    help="Labels with fewer positives in a split are left out of that split's scores, and listed by name.",
)
def command(file: Path, encoder: str | None, source: str, min_positives: int) -> None:
    """Probe an encoder on labels of your own: a CSV with the columns record_id and label, one label per line.

    The ECGs are harmonized drops (docs/own-data.md), or those of another source. Patients, or ECGs if they name no
    patient, are split into 70 % to train on, 10 % to choose on and 20 % to test on. Baselines are the untrained network
    and handcrafted features. The scores of each label, their curves and calibration are also written as a page.

    \b
    ecg evaluate-labels labels.csv
    ecg evaluate-labels af.csv --source georgia --encoder models:/ecg-encoder@champion
    """
    from pipelines.cli.console import counting, stdout
    from pipelines.cli.evaluate import judged_encoder
    from pipelines.evaluate.probes.config import ProbeConfig
    from pipelines.evaluate.suite.own_labels import own_task
    from pipelines.formatting import format_text
    from pipelines.home import Home

    home, config = Home.default(), ProbeConfig(min_positives=min_positives)
    told: list[str] = []
    task = own_task(home.workspace(), file, source, told.append)
    print_labels(task, told)
    with judged_encoder(home, encoder) as judged, counting("embedding") as on_count:
        stdout().print(format_text(judged.in_words))
        evaluated = evaluate_labels(home, task, judged, config, on_count)
    if evaluated.report.reason is not None:
        raise click.ClickException(f"{evaluated.task.title} cannot be scored: {evaluated.report.reason}")
    _print_scores(evaluated)


@dataclass(frozen=True, kw_only=True)
class OwnLabels:
    """An encoder's scores on own labels, beside its untrained baseline's and those of handcrafted features."""

    task: LabelTask
    rows: list[EvaluationRow]
    """Of the encoder, its untrained baseline and handcrafted features."""
    report: TaskReport
    page: Path | None
    """The scores as a page for a browser. None if the task was not scored."""


def evaluate_labels(
    home: Home, task: LabelTask, judged: JudgedEncoder, config: ProbeConfig, progress: OnProgress
) -> OwnLabels:
    """Probe an encoder on the labels of a CSV file, as `own_labels.own_task` gives them."""
    from pipelines.durable import write_atomically
    from pipelines.evaluate.exposure import Overlaps
    from pipelines.evaluate.probes.handcrafted import HandcraftedSource
    from pipelines.evaluate.probes.step import materialize_probe
    from pipelines.evaluate.probes.stored import Probe
    from pipelines.evaluate.report.own_labels import ROLES, own_labels_page, own_labels_report
    from pipelines.evaluate.suite.run import evaluation_rows

    workspace = home.workspace()
    products = [
        materialize_probe(workspace, task, features, config, progress=progress)
        for features in (*judged.encoders, HandcraftedSource())
    ]
    # On the page the encoder is named by its role, whatever its name is.
    probes = dict(zip(ROLES, (Probe.load(product.path) for product in products), strict=True))
    report = own_labels_report(task.name, probes, Overlaps(workspace), config)
    page = products[0].aside / PAGE_FILE if report.probes else None
    if page is not None:
        text = own_labels_page(report, probes, encoder=judged.name, simulated=home.simulated)
        write_atomically(page, text.encode())
    return OwnLabels(task=task, rows=evaluation_rows(workspace, products, config), report=report, page=page)


def kind_in_words(task: LabelTask) -> str:
    """Return the kind of a task, and a record that makes it multi-label: a second label by mistake changes the task."""
    several = [record for record, labels in (task.codes or {}).items() if len(labels) > 1]
    if not several:
        return f"{task.kind}, since each record has one label"
    have = "1 record has" if len(several) == 1 else f"{len(several):,} records have"
    return f"{task.kind}, since {have} several labels, such as {several[0]!r}"


def label_rows(task: LabelTask) -> list[tuple[str, str]]:
    """Return each label with the number of its ECGs, the most frequent first; beyond LABELS_SHOWN one row for all."""
    times = Counter(label for labels in (task.codes or {}).values() for label in labels)
    ordered = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    rows = [(label, f"{count:,}") for label, count in ordered[:LABELS_SHOWN]]
    more = ordered[LABELS_SHOWN:]
    return rows + ([(f"and {len(more):,} more", f"at most {more[0][1]:,}")] if more else [])


def print_labels(task: LabelTask, told: Sequence[str]) -> None:
    """Show the labels as they were read, before anything is fitted: a label by mistake is seen here.

    told: how the rows were understood
    """
    from pipelines.cli.console import print_table, stdout
    from pipelines.formatting import format_text

    print_table(("label", "ECGs"), label_rows(task))
    stdout().print(format_text(f"{len(task.codes or {}):,} labelled ECGs; {kind_in_words(task)}"))
    for line in told:
        stdout().print(format_text(line))
    if commas := [name for name in task.names if "," in name]:
        stdout().print(format_text(f"a comma is part of a label, as in {commas[0]!r}: several are joined as AF;LBBB"))


def by_class(report: TaskReport) -> list[dict[str, Any]]:
    """Return a row per class of the test split, and a row per class that was left out, with its reason.

    Returns no row if the task was not scored.
    """
    from pipelines.evaluate.report.wording import in_words

    if not report.probes:
        return []
    rows: list[dict[str, Any]] = [
        {
            "label": label.name,
            "positives": label.positives,
            "AUC": in_words(label.auc),
            "average precision": in_words(label.average_precision),
            "F1": "no threshold" if label.f1 is None else in_words(label.f1),
            "Brier score": in_words(label.brier),
        }
        for label in report.probes[0].assessment.labels
    ]
    empty = {"average precision": "", "F1": "", "Brier score": ""}
    omitted = report.omitted.items()
    return rows + [{"label": name, "positives": None, "AUC": f"left out: {reason}"} | empty for name, reason in omitted]


def _print_scores(evaluated: OwnLabels) -> None:
    from pipelines.cli.console import stdout
    from pipelines.evaluate.exposure import SEEN
    from pipelines.formatting import format_text

    console, report = stdout(), evaluated.report
    _print_rows([row.row() for row in evaluated.rows])
    _print_rows(by_class(report))
    console.print(f"seen: {SEEN}")
    console.print(f"tested on {report.tested}; splits and intervals by {report.drawn}")
    for name, why in report.probes[0].assessment.without_f1.items():
        console.print(format_text(f"{name} without F1: {why}"))
    folder = evaluated.rows[0].product.path
    title = format_text(evaluated.task.title)
    console.print(f"\n{title}: by a linear probe, in {folder}")
    console.print(f"as a page, with curves and calibration: {evaluated.page}")


def _print_rows(rows: list[dict[str, Any]]) -> None:
    from pipelines.cli.console import print_table

    print_table(rows[0], (row.values() for row in rows))

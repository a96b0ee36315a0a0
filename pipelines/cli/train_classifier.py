"""`ecg train-classifier`: from labels of your own to a registered classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.release.own_classifier_config import Choice
    from pipelines.release.own_classifier_release import TrainedClassifier


@click.command("train-classifier")
@click.argument("file", metavar="[CSV]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--drop", default="", help="Take the labels that this drop of own ECGs came with, in place of a CSV.")
@click.option(
    "--name",
    default="",
    help="The registered model. Without it: ecg-classifier-, and the name of the CSV or of the drop.",
)
@click.option("--source", default="incoming", show_default=True, help="The source whose ECGs the CSV labels.")
@click.option(
    "--encoder",
    default="",
    help="`pretrained`, `reference`, `reference-cpc`, models:/NAME/VERSION, models:/NAME@ALIAS or an "
    "encoder.safetensors. Without it: "
    "the champion of ecg-encoder, or the data home's own encoder.",
)
@click.option(
    "--method",
    default="linear",
    show_default=True,
    type=click.Choice(["linear", "attention_pool", "fine_tuned", "auto"]),
    help="One layer on the frozen encoder's embedding, a learned query over its tokens, the encoder trained too, or "
    "the best of these on validation.",
)
@click.option(
    "--min-positives",
    default=10,
    show_default=True,
    type=click.IntRange(min=1),
    help="Labels with fewer ECGs in a split are left out of that split's scores, and listed by name.",
)
def command(
    file: Path | None, drop: str, name: str, source: str, encoder: str, method: Choice, min_positives: int
) -> None:
    """Train a classifier of labels of your own, and register it: a CSV with the columns record_id and label.

    A row names its ECG by record id or, of a drop, by its file's path in the drop. The labels are read as `ecg
    evaluate-labels` reads them, and shown before anything is fitted. Patients, or ECGs if they name no patient, are
    split into 70 % to train on, 10 % to choose and calibrate on, and 20 % to test on, once. The classifier becomes a
    version of the model NAME. It is champion if there was none and it is not clearly below its baselines on validation;
    later ones are challengers, which the gate compares with the champion on the same validation ECGs. `ecg promote`
    makes a challenger champion by hand. Nothing is fitted twice.

    \b
    ecg train-classifier labels.csv --name ecg-classifier-af
    ecg train-classifier --drop ward-7 --method auto
    ecg serve models:/ecg-classifier-af@champion
    """
    from pipelines.cli.console import counting, stdout
    from pipelines.cli.evaluate_labels import print_labels
    from pipelines.cli.launch import run_fine_tuning
    from pipelines.cli.store import reachable_store
    from pipelines.evaluate.suite.own_labels import answered_alone
    from pipelines.formatting import format_text
    from pipelines.home import Home
    from pipelines.release.own_classifier import require_enough
    from pipelines.release.own_classifier_config import OwnClassifierConfig
    from pipelines.release.own_classifier_release import train_classifier
    from pipelines.release.own_classifier_request import chosen_encoder, labels_task

    if (file is None) == (not drop):
        raise ValueError("give a CSV of labels or --drop NAME, one of the two")
    config = OwnClassifierConfig(
        labels="" if file is None else str(file),
        drop=drop,
        name=name,
        source=source,
        encoder=encoder,
        method=method,
        min_positives=min_positives,
    )
    home = Home.default()
    workspace, registered = home.workspace(), config.registered_name
    told: list[str] = []
    task, left_out = answered_alone(workspace, labels_task(workspace, config, told.append))
    print_labels(task, told)
    if left_out:
        stdout().print(f"{left_out:,} labelled ECGs lack a lead, which no served model answers: left out")
    require_enough(workspace, task, config.probe)
    tracking = reachable_store(home)
    with chosen_encoder(encoder, workspace, tracking, simulated=home.simulated) as chosen:
        note = "" if chosen.note is None else f" ({chosen.note})"
        stdout().print(format_text(f"encoder: {chosen.name}{note}"))
        stdout().print(format_text(f"registered as: {registered}"))
        with counting("embedding") as on_count:
            trained = train_classifier(
                workspace,
                tracking,
                config,
                task,
                chosen,
                simulated=home.simulated,
                progress=on_count,
                say=lambda line: on_count(0, None, line),
                launch=run_fine_tuning,
            )
    _print_trained(trained)


def _print_trained(trained: TrainedClassifier) -> None:
    from pipelines.cli.console import print_table, stdout
    from pipelines.evaluate.report.wording import in_words
    from pipelines.formatting import format_text
    from pipelines.release.own_classifier import PAGE_FILE
    from pipelines.release.own_classifier_words import exposed, label_figures

    console, facts = stdout(), trained.facts
    rows = [("this classifier", in_words(facts.test_macro_auc))]
    rows += [(role, in_words(auc)) for role, auc in facts.baselines.items()]
    print_table(("features", "test macro AUC"), rows)
    labels = label_figures(facts, trained.result)
    print_table(labels[0], (row.values() for row in labels))
    if len(facts.methods) > 1:
        scores = ", ".join(f"{method} {auc:.4f}" for method, auc in facts.methods.items())
        console.print(f"chosen on validation: {facts.method} ({scores})")
    console.print(format_text(facts.sentence))
    if facts.below:
        click.secho(
            f"warning: it is clearly below {' and '.join(facts.below)}: do not use it as it is; take another --method, "
            "another encoder, or more labelled ECGs",
            fg="yellow",
            err=True,
        )
    console.print(exposed(trained.seen))
    console.print(f"Brier score on test {facts.brier:.4f}, {facts.brier_uncalibrated:.4f} before calibration")
    release = trained.release
    state = "registered" if trained.created else "registered before"
    serves = trained.champion is not None and trained.champion.version == release.version
    # What was promoted before, perhaps by hand, is not judged again.
    reason = trained.verdict.reason if trained.created or not serves else "it is the champion"
    console.print(format_text(f"\n{release.model_uri}, {state}: {reason}"))
    if serves:
        console.print(f"serve it: ecg serve models:/{release.name}@champion")
    else:
        state = "there is no champion yet"
        if trained.champion is not None:
            state = f"models:/{release.name}@champion stays version {trained.champion.version}"
        console.print(f"{state}; with other labels, use another --name; all versions: ecg models --name {release.name}")
        console.print(
            f"serve it: ecg serve {release.model_uri}; make it champion by hand: ecg promote {release.version} --name "
            f'{release.name} --why "..."'
        )
    console.print(f"as a page, with curves and calibration: {trained.product.path / PAGE_FILE}")

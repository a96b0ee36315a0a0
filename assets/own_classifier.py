"""A classifier of labels of one's own, of a drop or of a csv: a registered model of its own name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from assets import show
from assets.forms import Part, form
from assets.release import GATE, champion
from assets.resources import DataHome, Launcher
from assets.sources import ecgs_incoming
from pipelines import versions
from pipelines.release.own_classifier_config import OwnClassifierConfig

if TYPE_CHECKING:
    from pipelines.release.gate import GateConfig
    from pipelines.release.own_classifier_release import TrainedClassifier

OWN = Part(OwnClassifierConfig)


class OwnClassifierSettings(form(OWN, GATE)):
    """Which labels, which encoder, and the margins of the gate."""

    def refuse(self) -> None:
        if self.labels or self.drop:  # pyright: ignore[reportAttributeAccessIssue]  # of the form
            super().refuse()


@dg.asset(
    deps=[ecgs_incoming, champion],
    group_name="own_classifier",
    description="A classifier of your own labels, which `drop` (a harmonized drop that came with labels) or `labels` "
    "(a csv with the columns record_id and label) names; without one of them nothing is done. Split by patient, chosen "
    "and calibrated on validation, tested once; registered under its own name, where the gate compares it with the "
    "champion. What `ecg train-classifier` does.",
    code_version=versions.OWN_CLASSIFIER,
    retry_policy=show.ONCE_MORE,
    kinds={"mlflow"},
    pool="gpu",
    output_required=False,
)
def own_classifier(
    context: dg.AssetExecutionContext, data_home: DataHome, launcher: Launcher, config: OwnClassifierSettings
) -> Iterator[dg.MaterializeResult]:
    from pipelines.evaluate.suite.own_labels import answered_alone
    from pipelines.release.own_classifier_release import train_classifier
    from pipelines.release.own_classifier_request import chosen_encoder, labels_task

    given = OWN.given(config)
    if not (given["labels"] or given["drop"]):
        context.log.warning("nothing to train: name a csv of labels in `labels`, or a labelled drop in `drop`")
        return
    home = data_home.open()
    workspace, tracking = home.workspace(), data_home.tracking()
    with show.mistakes_explained():
        settings, gate = OWN.read(config), GATE.read(config)
        task, left_out = answered_alone(workspace, labels_task(workspace, settings, context.log.info))
        if left_out:
            context.log.info(f"{left_out:,} labelled ECGs lack a lead, which no served model answers: left out")
        with chosen_encoder(settings.encoder, workspace, tracking, simulated=home.simulated) as encoder:
            trained = train_classifier(
                workspace,
                tracking,
                settings,
                task,
                encoder,
                simulated=home.simulated,
                gate_config=gate,
                say=context.log.info,
                launch=lambda command: launcher.run(context, command),
            )
    yield _materialized(trained, gate)


def _materialized(trained: "TrainedClassifier", gate: "GateConfig") -> dg.MaterializeResult:
    from assets.previews import contested, released
    from pipelines.release.own_classifier import PAGE_FILE
    from pipelines.release.own_classifier_words import exposed, label_figures
    from pipelines.release.tags import CHAMPION

    facts, release, champion = trained.facts, trained.release, trained.champion
    return show.materialized(
        trained.product,
        {
            "model": f"models:/{release.name}@{CHAMPION}",
            "version": release.version,
            "champion": "none yet" if champion is None else champion.version,
            "verdict": trained.verdict.reason,
            "encoder": facts.encoder,
            "method": facts.method,
            "test macro AUC": round(facts.test_macro_auc.value, 4),
            "validation macro AUC": round(facts.validation_macro_auc.value, 4),
            "Brier score on test": round(facts.brier, 4),
            "in words": facts.sentence,
            "exposure": exposed(trained.seen),
            "labels": show.table(label_figures(facts, trained.result), "No label was scored."),
            "rules": dg.MetadataValue.md(trained.verdict.page()),
            "page": dg.MetadataValue.path(str(trained.product.path / PAGE_FILE)),
            **show.pictures(scores=released(release), differences=contested(trained.contest, gate)),
        },
    )

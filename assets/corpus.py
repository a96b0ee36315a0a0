"""The training set: one asset between the partitions and the training, so that the training has one input."""

from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from assets import show
from assets.forms import Part, form
from assets.resources import DataHome
from assets.sources import all_source_assets
from assets.training_forms import PretrainSettings
from pipelines import versions
from pipelines.corpus.config import CorpusConfig
from pipelines.incoming import INCOMING
from pipelines.sources import SOURCES

if TYPE_CHECKING:
    from pipelines.corpus.step import CorpusFacts

APART = "no_evaluation_patient_in_corpus"


Source = Enum("Source", {name: name for name in (*SOURCES, INCOMING.name)})

CORPUS = Part(
    CorpusConfig,
    types={"sources": list[Source]},
    helps={
        "sources": "Pretrain on these sources alone. []: on all that are for pretraining.",
        "unlabelled_folds": "Folds of the evaluation sources whose ECGs are pretrained on too, without their labels, "
        "such as [1, 2, 3, 4, 5, 6, 7]. The other folds stay held out. []: none.",
    },
    empty={
        "validation_share": f"the champion's, or {CorpusConfig.validation_share:g}",
        "seed": f"the champion's, or {CorpusConfig.seed}",
        "sources": "the champion's, or all",
        "unlabelled_folds": "the champion's, or none",
    },
)


class CorpusSettings(form(CORPUS)):
    """Settings of the corpus."""

    base: Literal["champion", "defaults"] = Field(
        default="champion",
        description="What empty settings are taken from: the champion's corpus (without a champion, that of the last "
        "training), or the defaults.",
    )

    def refuse(self) -> None:
        from pipelines.corpus.step import config_from

        config_from(CORPUS.given(self))


def _unknown_patients(facts: "CorpusFacts") -> dict[str, dg.MetadataValue]:
    """Return the ECGs of unknown patients by source; nothing for a corpus of an earlier version, which has no count."""
    if facts.unknown_patients is None:
        return {}
    nothing = "Every ECG names a patient."
    return {"of unknown patients": show.counts(facts.unknown_patients, "source", "ECGs", nothing)}


def refuse_training_of_run(run: dg.DagsterRun, data_home: DataHome) -> None:
    """Raise ValueError if this run is to train an encoder, too, with settings that the training would refuse."""
    from pipelines.release.retraining import refuse_training

    if "encoder" not in (run.step_keys_to_execute or ()):
        return
    ops: Any = run.run_config.get("ops", {})
    settings = PretrainSettings(**ops.get("encoder", {}).get("config", {}))
    home = data_home.open()
    refuse_training(
        home.workspace(),
        data_home.tracking(),
        simulated=home.simulated,
        recipe=settings.recipe,
        changes=settings.changed,
        warm_start=settings.warm_start,
        device=settings.device,
        processes=settings.processes or 1,
        accumulate=settings.accumulate,
    )


@dg.asset(
    deps=[asset for asset in all_source_assets if asset.key.path[0] == "ecgs"],
    group_name="corpus",
    description="The index of all harmonized ECGs for pretraining: without exact duplicates, without evaluation "
    "records and their patients, with a validation share drawn by patient.",
    code_version=versions.CORPUS,
    retry_policy=show.ONCE_MORE,
    kinds={"parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            APART,
            asset="corpus",
            blocking=True,
            description="No ECG and no patient of an evaluation source, no ECG twice, no patient in two splits.",
        )
    ],
)
def corpus(context: dg.AssetExecutionContext, data_home: DataHome, config: CorpusSettings) -> dg.MaterializeResult:
    from assets.previews import compared_sources, excluded_records
    from pipelines.corpus.checks import corpus_is_apart
    from pipelines.corpus.step import CorpusFacts, materialize_corpus
    from pipelines.release.retraining import requested_corpus

    home = data_home.open()
    workspace = home.workspace()
    with show.mistakes_explained():
        refuse_training_of_run(context.run, data_home)
        settings = requested_corpus(
            workspace,
            data_home.tracking(),
            CORPUS.given(config),
            from_champion=config.base == "champion",
            simulated=home.simulated,
        )
        product = materialize_corpus(workspace, settings)
    facts = CorpusFacts.of(product)
    return show.materialized(
        product,
        {
            "dagster/row_count": facts.train + facts.validation,
            "train": facts.train,
            "validation": facts.validation,
            "patients": facts.patients,
            **_unknown_patients(facts),
            "by source": show.counts(facts.by_source, "source", "ECGs", "No ECG is left."),
            **show.pictures(sources=compared_sources(workspace, product)),
            "left out": show.counts(facts.excluded, "reason", "ECGs", "Nothing was left out."),
            **show.one_by_one("records left out", excluded_records(product)),
        },
        [show.checked(APART, corpus_is_apart(workspace, product))],
    )

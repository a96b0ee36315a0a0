"""The training set: one asset between the partitions and the training, so that a change of any is seen as one."""

import dagster as dg
from pydantic import Field

from assets import show
from assets.resources import DataHome
from assets.sources import all_source_assets
from pipelines import versions

APART = "no_evaluation_patient_in_corpus"


class CorpusSettings(dg.Config):
    """What is empty is as the champion's corpus has it, or as usual without a champion."""

    validation_share: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the patients that training never sees and its figures are of. Empty: the champion's, or "
        "0.05.",
    )
    seed: int | None = Field(default=None, description="Of the draw of those patients. Empty: the champion's, or 0.")
    sources: list[str] | None = Field(
        default=None,
        description="Pretrain on these sources alone; []: on all for pretraining. Empty: the champion's, or all.",
    )
    unlabelled_folds: list[int] | None = Field(
        default=None,
        description="Of the evaluation sources, pretrain on these folds too, without their labels, such as "
        "[1, 2, 3, 4, 5, 6, 7]; the other folds are held out; []: on none. Empty: the champion's, or none.",
    )


@dg.asset(
    deps=[asset for asset in all_source_assets if asset.key.path[0] == "ecgs"],
    group_name="corpus",
    description="The index over all harmonized pretraining ECGs: exact duplicates removed, evaluation records and "
    "patients kept out, a validation share by patient.",
    code_version=versions.CORPUS,
    retry_policy=show.ONCE_MORE,
    kinds={"parquet"},
    check_specs=[
        dg.AssetCheckSpec(
            APART,
            asset="corpus",
            blocking=True,
            description="No ECG and no patient of an evaluation shard, no ECG twice, no patient in two splits.",
        )
    ],
)
def corpus(context: dg.AssetExecutionContext, data_home: DataHome, config: CorpusSettings) -> dg.MaterializeResult:
    from assets.previews import compared_sources
    from pipelines.corpus.checks import corpus_is_apart
    from pipelines.corpus.step import CorpusFacts, materialize_corpus
    from pipelines.release.retraining import requested_corpus

    home = data_home.open()
    workspace = home.workspace()
    given = {name: value for name, value in config.model_dump().items() if value is not None}
    with show.mistakes_explained():
        settings = requested_corpus(workspace, data_home.tracking(), given, simulated=home.simulated)
        product = materialize_corpus(workspace, settings)
    facts = CorpusFacts.of(product)
    return show.materialized(
        product,
        {
            "dagster/row_count": facts.train + facts.validation,
            "train": facts.train,
            "validation": facts.validation,
            "patients": facts.patients,
            "by source": show.counts(facts.by_source, "source", "ECGs", "No ECG is left."),
            **show.pictures(sources=compared_sources(workspace, product)),
            "left out": show.counts(facts.excluded, "reason", "ECGs", "Nothing was left out."),
        },
        [show.checked(APART, corpus_is_apart(workspace, product))],
    )

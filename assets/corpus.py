"""The training set: one asset between the partitions and the training, so that a change of any is seen as one."""

import dagster as dg
from pydantic import Field

from assets import show
from assets.resources import DataHome
from assets.sources import all_source_assets
from pipelines import versions

APART = "no_evaluation_patient_in_corpus"


class CorpusSettings(dg.Config):
    validation_share: float = Field(
        default=0.05, gt=0, lt=1, description="Share of the patients that training never sees and its figures are of."
    )
    seed: int = Field(default=0, description="Of the draw of those patients.")
    sources: list[str] = Field(
        default=[], description="Pretrain on these sources alone; empty: on all for pretraining."
    )
    unlabelled_folds: list[int] = Field(
        default=[],
        description="Of the evaluation sources, pretrain on these folds too, without their labels, such as "
        "[1, 2, 3, 4, 5, 6, 7]; the other folds are held out.",
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
    from pipelines import checks, gallery
    from pipelines.corpus import CorpusConfig, materialize_corpus

    workspace = data_home.open().workspace()
    with show.mistakes_explained():
        settings = CorpusConfig(
            validation_share=config.validation_share,
            seed=config.seed,
            sources=tuple(config.sources) or None,
            unlabelled_folds=tuple(config.unlabelled_folds),
        )
        product = materialize_corpus(workspace, settings)
    facts = product.facts
    return show.materialized(
        product,
        {
            "dagster/row_count": facts["train"] + facts["validation"],
            "train": facts["train"],
            "validation": facts["validation"],
            "patients": facts["patients"],
            "by source": show.counts(facts["by_source"], "source", "ECGs", "No ECG is left."),
            **show.pictures(sources=gallery.compared_sources(workspace, product)),
            "left out": show.counts(facts["excluded"], "reason", "ECGs", "Nothing was left out."),
        },
        [show.checked(APART, checks.corpus_is_apart(workspace, product))],
    )

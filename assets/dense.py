"""CroPA against dense attention: the encoder beside one that differs only in its attention."""

import dagster as dg

from assets import show
from assets.pretrain import encoder
from assets.resources import DataHome, Launcher
from assets.sources import all_source_assets
from assets.training_forms import TrainingSettings
from pipelines import versions
from pipelines.evaluate.suite.names import AGAINST_DENSE, DENSE, evaluation


def _against_dense(name: str) -> dg.AssetsDefinition:
    variant = evaluation(name)

    @dg.asset(
        key=[DENSE, name],
        deps=[encoder, *(asset for asset in all_source_assets if asset.key.path == ["ecgs", variant.task.source])],
        group_name="evaluate_suite",
        description=f"{variant.task.title}: the encoder beside one with dense attention in place of CroPA, pretrained "
        "by the same recipe on the same corpus from the same seed, which takes as long as `encoder` took, or longer. "
        "If it is stopped or killed, the next run continues from its last checkpoint.",
        code_version=f"{versions.ENCODER}.{versions.PROBE}",
        retry_policy=show.ONCE_MORE,
        kinds={"torch"},
        pool="gpu",
    )
    def dense(
        context: dg.AssetExecutionContext, data_home: DataHome, launcher: Launcher, config: TrainingSettings
    ) -> dg.MaterializeResult:
        from pipelines.evaluate.suite.attention_ablation import DenseFacts, against_dense, materialize_dense
        from pipelines.pretrain.checks import training_went_well
        from pipelines.pretrain.step import EncoderFacts

        home = data_home.open()
        workspace = home.workspace()
        with show.mistakes_explained():
            other = materialize_dense(
                workspace,
                lambda command: launcher.run(context, command),
                **config.for_launcher(launcher),
                track=home.tracking_uri,
                artifact_root=home.artifact_root,
            )
            found = against_dense(workspace, variant, other)
        facts = DenseFacts.of(found.product)
        lead = facts.cropa_minus_dense
        return show.materialized(
            found.product,
            {
                **({"not scored": facts.reason} if lead is None else {"CroPA minus dense": lead.value}),
                "beside": show.table([row.row() for row in found.rows], "Nothing was scored."),
                "dense pretraining": training_went_well(EncoderFacts.of(other)).seen,
                "dense encoder": dg.MetadataValue.path(str(other.path)),
            },
        )

    return dense


dense_assets = [_against_dense(name) for name in AGAINST_DENSE]

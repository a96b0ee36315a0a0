"""The pretrained encoder."""

import dagster as dg

from assets import show
from assets.corpus import corpus
from assets.resources import DataHome, Launcher
from assets.training_forms import PretrainSettings
from pipelines import versions

WENT_WELL = "loss_finite_and_falling_and_not_collapsed"


@dg.asset(
    deps=[corpus],
    group_name="pretrain",
    description="The encoder of a recipe (ECG-JEPA, or CPC on S4), trained on the corpus in a separate process. If it "
    "is stopped or killed, the next run continues from its last checkpoint.",
    code_version=versions.ENCODER,
    retry_policy=show.ONCE_MORE,
    kinds={"torch"},
    pool="gpu",
    check_specs=[
        dg.AssetCheckSpec(
            WENT_WELL,
            asset="encoder",
            blocking=True,
            description="The loss is finite and fell; embeddings of held-out ECGs differ from each other.",
        )
    ],
)
def encoder(
    context: dg.AssetExecutionContext,
    data_home: DataHome,
    launcher: Launcher,
    config: PretrainSettings,
) -> dg.MaterializeResult:
    from assets.previews import training_curves
    from pipelines.pretrain.checks import training_went_well
    from pipelines.pretrain.step import EncoderFacts
    from pipelines.release.training import pretrain_requested

    with show.mistakes_explained():
        product = pretrain_requested(
            data_home.open(),
            data_home.tracking(),
            lambda command: launcher.run(context, command),
            recipe=config.recipe,
            changes=config.changed,
            warm_start=config.warm_start,
            **config.for_launcher(launcher),
        )
    facts = EncoderFacts.of(product)
    return show.materialized(
        product,
        {
            "recipe": facts.recipe["name"],
            "steps": facts.steps,
            "ECGs": facts.records,
            "loss": facts.last["loss"],
            "embedding std": facts.last["embedding_std"],
            "effective rank": facts.last["effective_rank"],
            **show.pictures(curves=training_curves(product)),
        },
        [show.checked(WENT_WELL, training_went_well(facts))],
    )

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
    description="The CroPA ECG-JEPA student, trained on the corpus in a separate process. If it is stopped or "
    "killed, the next run continues from its last checkpoint.",
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
    from pipelines.pretrain.recipes import Recipe
    from pipelines.pretrain.step import EncoderFacts, materialize_encoder
    from pipelines.release.retraining import requested_training
    from pipelines.release.steps import warm_start

    home = data_home.open()
    workspace, tracking = home.workspace(), data_home.tracking()
    with show.mistakes_explained():
        training = requested_training(
            workspace,
            tracking,
            simulated=home.simulated,
            recipe=config.recipe,
            changes=config.changed,
            warm_start=config.warm_start,
        )
        with warm_start(training.warm_start, tracking) as (changes, start):
            product = training.done or materialize_encoder(
                workspace,
                Recipe.from_dict({**training.recipe.to_dict(), **changes}),
                lambda command: launcher.run(context, command),
                **config.for_launcher(launcher),
                warm_start=start,
                track=home.tracking_uri,
                artifact_root=home.artifact_root,
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

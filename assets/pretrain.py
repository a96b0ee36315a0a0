"""The pretrained encoder."""

from typing import Any

import dagster as dg
from pydantic import Field

from assets import show
from assets.corpus import corpus
from assets.resources import DataHome, Launcher
from pipelines import versions

WENT_WELL = "loss_finite_and_falling_and_not_collapsed"


class TrainingSettings(dg.Config):
    """How a training is computed. The result is the same up to rounding."""

    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N.")
    processes: int = Field(
        default=0,
        ge=0,
        description="Processes of this machine that share each batch; with GPUs, one for each GPU. 0: the setting of "
        "the resource `launcher`.",
    )
    accumulate: int = Field(
        default=1, description="Parts that a batch is computed in, one after another, to use less memory."
    )
    recompute: bool = Field(
        default=False,
        description="Compute blocks again in the backward pass: much less memory, a quarter more work.",
    )

    def for_launcher(self, launcher: Launcher) -> dict[str, Any]:
        """Return the settings as `materialize_encoder` takes them."""
        processes = self.processes or launcher.usual_processes
        return {
            "device": self.device,
            "processes": processes,
            "accumulate": self.accumulate,
            "recompute": self.recompute,
        }


class PretrainSettings(TrainingSettings):
    recipe: str = Field(
        default="",
        description="demo, small, paper_block or paper_random. Empty: ECG_RETRAIN_RECIPE, or the champion's recipe, or "
        "demo if nothing was trained yet.",
    )
    changes: dict[str, Any] = Field(
        default={}, description='Fields of the recipe to change, such as {"epochs": 3, "jepa.encoder.dim": 96}.'
    )
    warm_start: str = Field(
        default="",
        description="A registered encoder to start from, such as models:/ecg-encoder@champion. Empty: random weights, "
        "or, if `recipe` is empty too, what ECG_RETRAIN_START says.",
    )


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
            changes=config.changes,
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

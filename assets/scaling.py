"""Scaling curves: a probe's score against the ECGs of pretraining, for several recipes."""

import dagster as dg

from assets import show
from assets.corpus import corpus
from assets.forms import Part, form
from assets.resources import DataHome, Launcher
from assets.training_forms import TrainingSettings
from pipelines import versions
from pipelines.evaluate.scaling.config import ScalingConfig

SCALING = Part(ScalingConfig)


class ScalingSettings(TrainingSettings, form(SCALING)):
    """What is trained, and how it is computed."""

    def refuse(self) -> None:
        super().refuse()
        SCALING.read(self)


@dg.asset(
    deps=[corpus],
    group_name="scaling",
    description="How the score grows with the ECGs of pretraining: each recipe is trained on nested shares of the "
    "corpus's patients, with several seeds, and probed; a law C N^-a + L0 is fitted and says what twice the ECGs would "
    "add. Takes as many trainings as recipes times shares times seeds: `ecg scale --dry-run` says how long. If it is "
    "stopped or killed, the next run goes on from there.",
    code_version=versions.SCALING,
    retry_policy=show.ONCE_MORE,
    kinds={"torch"},
    pool="gpu",
)
def scaling(
    context: dg.AssetExecutionContext, data_home: DataHome, launcher: Launcher, config: ScalingSettings
) -> dg.MaterializeResult:
    from pipelines.evaluate.scaling.facts import ScalingFacts
    from pipelines.evaluate.scaling.step import PICTURE_FILE, materialize_scaling

    home = data_home.open()
    with show.mistakes_explained():
        product = materialize_scaling(
            home.workspace(),
            SCALING.read(config),
            lambda command: launcher.run(context, command),
            told=lambda done, total, run: context.log.info(f"{done} of {total} trainings: {run}"),
            fine_tuning=lambda command: launcher.run(context, command),
            **config.for_launcher(launcher),
            track=home.tracking_uri,
            artifact_root=home.artifact_root,
        )
    facts = ScalingFacts.of(product)
    return show.materialized(
        product,
        {
            "curves": facts.headline(),
            "laws": dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in facts.sentences())),
            "points": show.table(facts.rows(), "Nothing was trained."),
            **show.pictures(picture=(product.path / PICTURE_FILE).read_bytes()),
        },
    )

"""P, QRS and T from an encoder's tokens, and heart rate, PR, QRS and QT from its embeddings; the random-initialised
encoder beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from assets import show
from assets.pretrain import encoder
from assets.resources import DataHome
from assets.sources import all_source_assets
from pipelines import versions

if TYPE_CHECKING:
    from pipelines.evaluate.delineation import WaveTask
    from pipelines.home import Home


class WaveSettings(dg.Config):
    pseudo_share: float = Field(
        default=0.2, gt=0, le=1, description="Share of the ECGs that neurokit2 delineates where nobody has."
    )


class SegmentationSettings(WaveSettings):
    fine_tune: bool = Field(default=True, description="Train the encoder along, beside the frozen one.")
    steps: int = Field(default=1200, ge=1, description="Steps of each training.")


def _task(home: "Home", source: str, config: WaveSettings) -> tuple["WaveTask", Path | None]:
    """The waves that there are of a source, and the folder of its simulated mirror if that is what it is."""
    from pipelines.evaluate.delineation import PseudoConfig, usual_task

    simulated = home.simulated and home.mirror is not None
    mirror = Path(home.mirror) if simulated and home.mirror else None
    return usual_task(source, simulated=simulated, pseudo=PseudoConfig(share=config.pseudo_share)), mirror


def _about(kind: str, source: str, description: str, version: str) -> dict[str, Any]:
    return {
        "key": [kind, source],
        "deps": [encoder, *(asset for asset in all_source_assets if asset.key.path == ["ecgs", source])],
        "group_name": "evaluate_suite",
        "description": description,
        "code_version": version,
        "kinds": {"python"},
        "pool": "gpu",
    }


def _segmentation(source: str, whose: str) -> dg.AssetsDefinition:
    @dg.asset(
        **_about(
            "segmentation",
            source,
            f"P, QRS and T sample by sample from the encoder's tokens, against {whose}: overlap, and errors of "
            "onsets and offsets in ms; frozen and fine-tuned.",
            versions.SEGMENTATION,
        )
    )
    def segmentation(data_home: DataHome, config: SegmentationSettings) -> dg.MaterializeResult:
        from dataclasses import replace

        from pipelines.evaluate import wave_views
        from pipelines.evaluate.delineation import wave_data
        from pipelines.evaluate.pair import encoder_and_twin
        from pipelines.evaluate.segmentation import FINE_TUNED, FROZEN, compare_segmentations, materialize_segmentation
        from pipelines.evaluate.subject import OURS

        home = data_home.open()
        workspace = home.workspace()
        with show.mistakes_explained():
            task, mirror = _task(home, source, config)
            made = {
                f"{one.name}, {recipe.mode.replace('_', '-')}": materialize_segmentation(
                    workspace, task, one, replace(recipe, steps=config.steps), mirror=mirror
                )
                for recipe in (FROZEN, FINE_TUNED)[: 2 if config.fine_tune else 1]
                for one in encoder_and_twin(workspace, OURS)
            }
            frozen, random, *tuned = made.values()
            best = tuned[0] if tuned else frozen
            difference = compare_segmentations(frozen, random).difference
            picture = wave_views.examples(workspace, task, best, mirror)
            labels = wave_views.label_rows(wave_data(workspace, task, mirror).products)
        nothing = frozen.facts["reason"] or ""
        shown: dict[str, Any] = {"not scored": nothing}
        if difference is not None:
            shown = {
                "mean IoU, frozen": frozen.facts["miou"]["value"],
                "mean IoU, frozen minus random": f"{difference.value:+.3f} ({difference.low:+.3f} to "
                f"{difference.high:+.3f})",
            }
        return show.materialized(
            frozen,
            {
                **shown,
                "labels": task.title,
                "overlap": show.table(wave_views.overlap_rows(made), nothing),
                "boundaries": show.table(wave_views.boundary_rows(best), nothing),
                "read off the predicted waves": show.table(wave_views.read_off_rows(best), nothing),
                "waves": show.table(labels, "No waves."),
                **show.pictures(examples=picture),
            },
        )

    assert isinstance(segmentation, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return segmentation


def _regression(source: str) -> dg.AssetsDefinition:
    @dg.asset(
        **_about(
            "regression",
            source,
            "Heart rate, PR, QRS and QT by ridge regression on frozen embeddings: mean absolute error, beside the "
            "random-initialised encoder's and the training median's.",
            versions.REGRESSION,
        )
    )
    def regression(data_home: DataHome, config: WaveSettings) -> dg.MaterializeResult:
        from pipelines.evaluate import wave_views
        from pipelines.evaluate.delineation import wave_data
        from pipelines.evaluate.pair import encoder_and_twin
        from pipelines.evaluate.regression import materialize_regression
        from pipelines.evaluate.subject import OURS

        home = data_home.open()
        workspace = home.workspace()
        with show.mistakes_explained():
            task, mirror = _task(home, source, config)
            mine, random = (
                materialize_regression(workspace, task, one, mirror=mirror) for one in encoder_and_twin(workspace, OURS)
            )
            labels = wave_views.label_rows(wave_data(workspace, task, mirror).products)
        return show.materialized(
            mine,
            {
                "labels": task.title,
                "errors": show.table(wave_views.error_rows(mine, random), "Nothing was scored."),
                "waves": show.table(labels, "No waves."),
            },
        )

    assert isinstance(regression, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return regression


wave_assets = [
    _segmentation("ludb", "boundaries drawn by cardiologists"),
    _segmentation("ptbxl", "pseudo-labels by neurokit2, or the truth where ECGs are simulated"),
    _regression("ptbxl"),
]

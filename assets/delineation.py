"""P, QRS and T from an encoder's tokens, and heart rate, P, PR, QRS and QT from its embeddings, beside the random
encoder."""

from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field

from assets import show
from assets.forms import Part, form
from assets.pretrain import encoder
from assets.resources import DataHome
from assets.sources import all_source_assets
from pipelines import versions
from pipelines.evaluate.waves.config import FINE_TUNED, FROZEN, PseudoConfig, SegmentationConfig

PSEUDO = Part(PseudoConfig, only=("share",), names={"share": "pseudo_share"})
SEGMENTATION = Part(SegmentationConfig, only=("steps",))


class WaveSettings(form(PSEUDO)):
    """Settings of pseudo-labels."""


class SegmentationSettings(form(PSEUDO, SEGMENTATION)):
    """Settings of pseudo-labels and of the segmentation's training."""

    fine_tune: bool = Field(default=True, description="Also train the encoder, beside the frozen one.")


def _about(kind: str, source: str, description: str, version: str) -> dict[str, Any]:
    return {
        "key": [kind, source],
        "deps": [encoder, *(asset for asset in all_source_assets if asset.key.path == ["ecgs", source])],
        "group_name": "evaluate_suite",
        "description": description,
        "code_version": version,
        "retry_policy": show.ONCE_MORE,
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
        from pipelines.evaluate.waves import tables
        from pipelines.evaluate.waves.run import segment_encoder
        from pipelines.evaluate.waves.segmentation import SegmentationFacts
        from pipelines.formatting import format_difference

        modes = (FROZEN, FINE_TUNED) if config.fine_tune else (FROZEN,)
        ways = [replace(mode, **SEGMENTATION.given(config)) for mode in modes]
        with show.mistakes_explained():
            segmented = segment_encoder(data_home.open(), source, PSEUDO.read(config), ways)
        frozen, nothing = next(iter(segmented.products.values())), segmented.reason or ""
        scores: dict[str, Any] = {"not scored": nothing}
        miou = SegmentationFacts.of(frozen).miou
        ahead = segmented.ahead
        if miou is not None and ahead is not None:
            scores = {
                "mean IoU, frozen": miou.value,
                "mean IoU, frozen minus random": format_difference(ahead.value, ahead.low, ahead.high),
            }
        return show.materialized(
            frozen,
            {
                **scores,
                "labels": segmented.task.title,
                "overlap": show.table(tables.overlap_rows(segmented.products), nothing),
                "boundaries": show.table(tables.boundary_rows(segmented.best), nothing),
                "read off the predicted waves": show.table(tables.read_off_rows(segmented.best), nothing),
                "waves": show.table(segmented.labels, "No waves."),
                **show.pictures(examples=segmented.picture),
            },
        )

    assert isinstance(segmentation, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return segmentation


def _regression(source: str) -> dg.AssetsDefinition:
    @dg.asset(
        **_about(
            "regression",
            source,
            "Heart rate, P, PR, QRS and QT by ridge regression on frozen embeddings: mean absolute error, beside those "
            "of the random encoder and of the training median.",
            versions.REGRESSION,
        )
    )
    def regression(data_home: DataHome, config: WaveSettings) -> dg.MaterializeResult:
        from assets.previews import regressed
        from pipelines.evaluate.waves import tables
        from pipelines.evaluate.waves.run import regress_encoder

        with show.mistakes_explained():
            regressions = regress_encoder(data_home.open(), source, PSEUDO.read(config))
        return show.materialized(
            regressions.ours,
            {
                "labels": regressions.task.title,
                "errors": show.table(
                    tables.error_rows(regressions.ours, regressions.random_baseline), "Nothing was scored."
                ),
                "waves": show.table(regressions.labels, "No waves."),
                **show.pictures(errors=regressed(regressions.ours, regressions.random_baseline)),
            },
        )

    assert isinstance(regression, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return regression


wave_assets = [
    _segmentation("ludb", "boundaries drawn by cardiologists"),
    _segmentation("ptbxl", "pseudo-labels by neurokit2, or the simulator's boundaries if ECGs are simulated"),
    _regression("ptbxl"),
]

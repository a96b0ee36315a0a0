"""P, QRS and T from an encoder's tokens, and heart rate, P, PR, QRS and QT from its embeddings; the random-initialised
encoder beside it."""

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
        from pipelines.evaluate.waves import tables as wave_views
        from pipelines.evaluate.waves.run import segment_encoder
        from pipelines.evaluate.waves.segmentation import SegmentationFacts

        modes = (FROZEN, FINE_TUNED) if config.fine_tune else (FROZEN,)
        ways = [replace(mode, **SEGMENTATION.given(config)) for mode in modes]
        with show.mistakes_explained():
            found = segment_encoder(data_home.open(), source, PSEUDO.read(config), ways)
        frozen, nothing = next(iter(found.products.values())), found.reason or ""
        shown: dict[str, Any] = {"not scored": nothing}
        miou = SegmentationFacts.of(frozen).miou
        if miou is not None and found.ahead is not None:
            shown = {
                "mean IoU, frozen": miou.value,
                "mean IoU, frozen minus random": f"{found.ahead.value:+.3f} ({found.ahead.low:+.3f} to "
                f"{found.ahead.high:+.3f})",
            }
        return show.materialized(
            frozen,
            {
                **shown,
                "labels": found.task.title,
                "overlap": show.table(wave_views.overlap_rows(found.products), nothing),
                "boundaries": show.table(wave_views.boundary_rows(found.best), nothing),
                "read off the predicted waves": show.table(wave_views.read_off_rows(found.best), nothing),
                "waves": show.table(found.labels, "No waves."),
                **show.pictures(examples=found.picture),
            },
        )

    assert isinstance(segmentation, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return segmentation


def _regression(source: str) -> dg.AssetsDefinition:
    @dg.asset(
        **_about(
            "regression",
            source,
            "Heart rate, P, PR, QRS and QT by ridge regression on frozen embeddings: mean absolute error, beside the "
            "random-initialised encoder's and the training median's.",
            versions.REGRESSION,
        )
    )
    def regression(data_home: DataHome, config: WaveSettings) -> dg.MaterializeResult:
        from assets.previews import regressed
        from pipelines.evaluate.waves import tables as wave_views
        from pipelines.evaluate.waves.run import regress_encoder

        with show.mistakes_explained():
            found = regress_encoder(data_home.open(), source, PSEUDO.read(config))
        return show.materialized(
            found.ours,
            {
                "labels": found.task.title,
                "errors": show.table(wave_views.error_rows(found.ours, found.random_baseline), "Nothing was scored."),
                "waves": show.table(found.labels, "No waves."),
                **show.pictures(errors=regressed(found.ours, found.random_baseline)),
            },
        )

    assert isinstance(regression, dg.AssetsDefinition)  # pyright cannot tell it from the unpacked arguments
    return regression


wave_assets = [
    _segmentation("ludb", "boundaries drawn by cardiologists"),
    _segmentation("ptbxl", "pseudo-labels by neurokit2, or the truth where ECGs are simulated"),
    _regression("ptbxl"),
]

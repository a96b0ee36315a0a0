"""The code location: assets and their checks, jobs, schedules, sensors and resources."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.compare import encoder_comparison
from assets.corpus import corpus
from assets.delineation import wave_assets
from assets.dense import dense_assets
from assets.evaluate import probe_assets, reference_cpc_probe_assets, reference_probe_assets, suite_assets
from assets.forms import refused_at_launch
from assets.own_classifier import own_classifier
from assets.pretrain import encoder
from assets.reference import reference_cpc_encoder, reference_encoder
from assets.release import (
    champion,
    classifier,
    gate_verdict,
    released_encoder,
    released_reference,
    released_reference_cpc,
)
from assets.report import evaluation_report
from assets.resources import DataHome, Launcher
from assets.scaling import scaling
from assets.sources import all_source_assets
from orchestration.automation import automated, automation_sensors
from orchestration.jobs import (
    compare_job,
    harvest_jobs,
    incoming_job,
    own_classifier_job,
    reference_cpc_job,
    reference_job,
    scaling_job,
    suite_job,
    train_job,
)
from orchestration.schedules import weekly_retraining
from orchestration.sensors import incoming_sensor
from orchestration.upstream import upstream_job


def tagged(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Tag each asset with `ecg/pool`, the pool that its step waits for; people filter the catalogue by it.

    Wrong settings of an asset are refused when its run is launched.
    """
    return [
        refused_at_launch(asset).map_asset_specs(
            lambda spec, pool=asset.op.pool: spec.merge_attributes(tags={"ecg/pool": pool or "none"})
        )
        for asset in assets
    ]


defs = dg.Definitions(
    assets=tagged(
        automated(
            [
                *all_source_assets,
                corpus,
                encoder,
                *probe_assets,
                evaluation_report,
                released_encoder,
                gate_verdict,
                champion,
                classifier,
                reference_encoder,
                *reference_probe_assets,
                reference_cpc_encoder,
                *reference_cpc_probe_assets,
                *suite_assets,
                *wave_assets,
                *dense_assets,
                released_reference,
                released_reference_cpc,
                encoder_comparison,
                own_classifier,
                scaling,
            ]
        )
    ),
    jobs=[
        *harvest_jobs,
        incoming_job,
        train_job,
        reference_job,
        reference_cpc_job,
        compare_job,
        own_classifier_job,
        suite_job,
        scaling_job,
        upstream_job,
    ],
    schedules=[weekly_retraining],
    sensors=[incoming_sensor, *automation_sensors],
    resources={"data_home": DataHome(), "launcher": Launcher()},
)

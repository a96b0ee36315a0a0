"""The jobs that people launch: one a source that brings its ECGs in, and one that trains, evaluates and releases."""

from __future__ import annotations

import dagster as dg

from pipelines.sources import SOURCES

TRAIN = "train_and_release"


def harvest_job_name(source: str) -> str:
    return f"harvest_{source}"


harvest_jobs = [
    dg.define_asset_job(
        harvest_job_name(name),
        selection=dg.AssetSelection.assets(["raw", name], ["ecgs", name]),
        description=f"Download and harmonize partitions of {source.title}.",
    )
    for name, source in SOURCES.items()
]

train_job = dg.define_asset_job(
    TRAIN,
    selection=dg.AssetSelection.groups("corpus", "pretrain", "evaluate", "release"),
    description="Build the corpus from all harmonized partitions, pretrain, probe, and release through the gate.",
)

"""The jobs that people launch: one a source that brings its ECGs in, one that trains, evaluates and releases, and one
that does the latter two to the author's released encoder, and one that compares two encoders."""

from __future__ import annotations

import dagster as dg

from assets.compare import encoder_comparison
from assets.evaluate import reference_probe_assets
from assets.reference import reference_encoder
from assets.release import released_reference
from assets.sources import ecgs_incoming, raw_incoming
from pipelines.incoming import INCOMING
from pipelines.sources import SOURCES

TRAIN = "train_and_release"
REFERENCE = "import_and_release_reference"
COMPARE = "compare_encoders"
SUITE = "evaluate_suite"

# Of runs with one value of this tag, one runs at a time and the others wait in the queue (dagster.yaml): the second of
# two trainings that were asked for at once then finds all that the first made.
ALONE = "ecg/alone"

# A partition that takes longer hangs: the run monitoring ends its run. A training has the instance's limit alone.
BRINGS_ECGS_IN = {"dagster/max_runtime": str(2 * 24 * 3600)}


def harvest_job_name(source: str) -> str:
    return f"harvest_{source}"


harvest_jobs = [
    dg.define_asset_job(
        harvest_job_name(name),
        selection=dg.AssetSelection.assets(["raw", name], ["ecgs", name]),
        description=f"Download and harmonize partitions of {source.title}.",
        tags=BRINGS_ECGS_IN,
    )
    for name, source in SOURCES.items()
]

incoming_job = dg.define_asset_job(
    harvest_job_name(INCOMING.name),
    selection=dg.AssetSelection.assets(raw_incoming, ecgs_incoming),
    description="Take and harmonize drops of own ECGs.",
    tags=BRINGS_ECGS_IN,
)

_reference = dg.AssetSelection.assets(reference_encoder, *reference_probe_assets, released_reference)
_comparison = dg.AssetSelection.assets(encoder_comparison)

train_job = dg.define_asset_job(
    TRAIN,
    selection=dg.AssetSelection.groups("corpus", "pretrain", "evaluate", "release") - _reference,
    description="Build the corpus from all harmonized partitions, pretrain, probe, report, and release through the "
    "gate.",
    tags={ALONE: TRAIN},
)

reference_job = dg.define_asset_job(
    REFERENCE,
    selection=_reference,
    description="Import the author's released encoder (the path of its .pth is the setting `file` of "
    "`reference_encoder`; without it, what `ecg import-reference` imported), probe it as ours, and release it as "
    "`ecg-encoder-reference`.",
    tags={ALONE: REFERENCE},
)

compare_job = dg.define_asset_job(
    COMPARE,
    selection=_comparison,
    description="Compare two encoders, the settings `first` and `second` of `encoder_comparison`, on the same ECGs and "
    "splits.",
)

suite_job = dg.define_asset_job(
    SUITE,
    selection=dg.AssetSelection.groups(SUITE),
    description="All evaluations of the suite on the current encoder; what is cached is found. Leave out in the "
    "launchpad what is not wanted: fine-tuning takes hours without a GPU, and `dense/...` pretrains a second encoder.",
)

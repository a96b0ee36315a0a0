"""The jobs that people launch.

harvest_<source>                 download and harmonize a source's partitions
train_and_release                corpus, pretraining, evaluation, release and gate
import_and_release_reference     import, evaluate and release the author's encoder
import_and_release_reference_cpc the same of a published ECG-CPC
compare_encoders                 compare two encoders
train_classifier                 train, register and judge a classifier of one's own labels
evaluate_suite                   all evaluations of the current encoder
draw_scaling_curves              train recipes on shares of the corpus, and draw their scores
"""

from __future__ import annotations

import dagster as dg

from assets.compare import encoder_comparison
from assets.evaluate import reference_cpc_probe_assets, reference_probe_assets
from assets.own_classifier import own_classifier
from assets.reference import reference_cpc_encoder, reference_encoder
from assets.release import released_reference, released_reference_cpc
from assets.scaling import scaling
from assets.sources import ecgs_incoming, raw_incoming
from pipelines.incoming import INCOMING
from pipelines.sources import SOURCES

TRAIN = "train_and_release"
REFERENCE = "import_and_release_reference"
REFERENCE_CPC = "import_and_release_reference_cpc"
COMPARE = "compare_encoders"
SUITE = "evaluate_suite"
OWN_CLASSIFIER = "train_classifier"
SCALING = "draw_scaling_curves"

# Runs with the same value of this tag run one at a time (dagster.yaml). If two trainings are requested at once, the
# second waits, and then finds everything that the first made.
ALONE = "ecg/alone"

# A partition that takes longer hangs, and run monitoring ends its run. For a training only the instance's limit counts.
HARVEST_TAGS = {"dagster/max_runtime": str(2 * 24 * 3600)}


def harvest_job_name(source: str) -> str:
    return f"harvest_{source}"


harvest_jobs = [
    dg.define_asset_job(
        harvest_job_name(name),
        selection=dg.AssetSelection.assets(["raw", name], ["ecgs", name]),
        description=f"Download and harmonize partitions of {source.title}.",
        tags=HARVEST_TAGS,
    )
    for name, source in SOURCES.items()
]

incoming_job = dg.define_asset_job(
    harvest_job_name(INCOMING.name),
    selection=dg.AssetSelection.assets(raw_incoming, ecgs_incoming),
    description="Copy and harmonize drops of own ECGs.",
    tags=HARVEST_TAGS,
)

_reference = dg.AssetSelection.assets(reference_encoder, *reference_probe_assets, released_reference)
_reference_cpc = dg.AssetSelection.assets(reference_cpc_encoder, *reference_cpc_probe_assets, released_reference_cpc)
_comparison = dg.AssetSelection.assets(encoder_comparison)

train_job = dg.define_asset_job(
    TRAIN,
    selection=dg.AssetSelection.groups("corpus", "pretrain", "evaluate", "release") - _reference - _reference_cpc,
    description="Build the corpus from all harmonized partitions, pretrain, probe, report, and release through the "
    "gate.",
    tags={ALONE: TRAIN},
)

reference_job = dg.define_asset_job(
    REFERENCE,
    selection=_reference,
    description="Import the author's released encoder (the setting `file` of `reference_encoder` is the path of its "
    ".pth; without it, the encoder that `ecg import-reference` imported), probe it as ours is probed, and release it "
    "as `ecg-encoder-reference`.",
    tags={ALONE: REFERENCE},
)

reference_cpc_job = dg.define_asset_job(
    REFERENCE_CPC,
    selection=_reference_cpc,
    description="Import a published ECG-CPC (the setting `file` of `reference_cpc_encoder` is the path of its .ckpt; "
    "without it, the encoder that `ecg import-reference` imported), probe it as ours is probed, and release it as "
    "`ecg-encoder-reference-cpc`.",
    tags={ALONE: REFERENCE_CPC},
)

compare_job = dg.define_asset_job(
    COMPARE,
    selection=_comparison,
    description="Compare two encoders, the settings `first` and `second` of `encoder_comparison`, on the same ECGs and "
    "splits.",
)

own_classifier_job = dg.define_asset_job(
    OWN_CLASSIFIER,
    selection=dg.AssetSelection.assets(own_classifier),
    description="Train a classifier of your own labels: the setting `drop` of `own_classifier` names a labelled drop, "
    "or `labels` a csv. It is registered under its own name, and judged against the champion of that name.",
)

suite_job = dg.define_asset_job(
    SUITE,
    selection=dg.AssetSelection.groups(SUITE),
    description="Run all evaluations of the suite on the current encoder; cached ones are not run again. Deselect in "
    "the launchpad what you do not need: fine-tuning takes hours without a GPU, and `dense/...` pretrains a second "
    "encoder.",
)

scaling_job = dg.define_asset_job(
    SCALING,
    selection=dg.AssetSelection.assets(scaling),
    description="Train recipes on nested shares of the corpus and draw how their scores grow: the settings of "
    "`scaling` say which recipes, shares and seeds. What is here is not trained again.",
)

"""Pretrained on simulated ECGs for a minute, what does a small encoder know of their waves? Several minutes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from pipelines.cache import Workspace
from pipelines.corpus.config import CorpusConfig
from pipelines.corpus.step import materialize_corpus
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.encoders.names import OURS
from pipelines.evaluate.features import FeatureConfig, encoder_and_random_baseline
from pipelines.evaluate.waves.config import FINE_TUNED, FROZEN
from pipelines.evaluate.waves.delineation import usual_task
from pipelines.evaluate.waves.intervals import compare_regressions, materialize_regression
from pipelines.evaluate.waves.segmentation import compare_segmentations, materialize_segmentation
from pipelines.harmonize.quality import QualityLimits
from pipelines.harmonize.step import materialize_ecgs
from pipelines.pretrain.recipes import recipe_named
from pipelines.pretrain.step import materialize_encoder
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES
from tests.support.paths import ROOT

SIZES = MirrorSizes(chapman=(300, 300, 300), code15=(), ptbxl=(400, 400, 400), cpsc2018=(), georgia=(), ludb=0)
PARTITIONS = {"chapman": ("01", "02", "03"), "ptbxl": ("00000", "01000", "02000")}
CPU = FeatureConfig(device="cpu")


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_small_trained_encoder_recovers_the_simulators_truth(tmp_path):
    mirror, workspace = tmp_path / "mirror", Workspace(tmp_path / "products")
    write_mirror(mirror, sizes=SIZES)
    place = Mirror.parse(str(mirror))
    for source, partitions in PARTITIONS.items():
        for partition in partitions:
            materialize_raw(workspace, SOURCES[source], partition, mirror=place, raw_root=tmp_path / "raw")
            materialize_ecgs(workspace, SOURCES[source], partition, limits=QualityLimits())
    materialize_corpus(workspace, CorpusConfig())
    materialize_encoder(
        workspace,
        recipe_named("demo", {"probe_epochs": None}),
        lambda command: subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True),
        device="cpu",
    )
    task = usual_task("ptbxl", simulated=True)
    assert task.labels == "truth"
    mine, random = encoder_and_random_baseline(workspace, OURS)

    # Frozen: what is told beyond the random encoder is pretraining's. The context is the one that validation chooses.
    pair = [materialize_regression(workspace, task, one, features=CPU, mirror=mirror) for one in (mine, random)]
    rate, twins = (next(one for one in made.facts["figures"] if one["name"] == "heart_rate") for made in pair)
    print(f"heart rate by ridge {rate['mae']}, random {twins['mae']}")
    assert rate["mae"]["value"] < 4.0 < twins["mae"]["value"], "beats a minute"
    assert compare_regressions(pair[0], pair[1])["heart_rate"].high < 0, "nearer than the random encoder"
    assert rate["mae"]["high"] < rate["baseline"]["low"] / 2
    frozen = replace(FROZEN, contexts=(1,))
    told = [materialize_segmentation(workspace, task, one, frozen, CPU, mirror=mirror) for one in (mine, random)]
    ahead = compare_segmentations(told[0], told[1]).difference
    print(f"mIoU frozen {told[0].facts['miou']}, random {told[1].facts['miou']}, ahead {ahead}")
    assert ahead is not None
    assert ahead.low > 0

    # Trained along: most of it is learnt here, and an encoder that was not pretrained comes near.
    segmented = materialize_segmentation(workspace, task, mine, FINE_TUNED, CPU, mirror=mirror).facts
    read_off = {one["name"]: one["mae"]["value"] for one in segmented["read_off"]}
    print(f"mIoU fine-tuned {segmented['miou']}, read off {read_off}")
    assert segmented["miou"]["value"] > 0.80
    assert read_off["heart_rate"] < 1.0, "beats a minute"
    assert max(read_off[name] for name in ("p", "pr", "qrs", "qt")) < 15, "ms"

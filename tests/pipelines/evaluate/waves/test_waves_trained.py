"""A small encoder, pretrained on simulated ECGs for a minute, predicts their waves. Takes several minutes."""

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
    ours, random = encoder_and_random_baseline(workspace, OURS)

    # Frozen: what exceeds the random encoder comes from pretraining. The context is the one that validation chooses.
    pair = [materialize_regression(workspace, task, one, features=CPU, mirror=mirror) for one in (ours, random)]
    rate, of_random = (next(one for one in made.facts["figures"] if one["name"] == "heart_rate") for made in pair)
    print(f"heart rate by ridge {rate['mae']}, random {of_random['mae']}")
    assert rate["mae"]["value"] < 4.0 < of_random["mae"]["value"], "beats a minute"
    assert compare_regressions(pair[0], pair[1])["heart_rate"].high < 0, "nearer than the random encoder"
    assert rate["mae"]["high"] < rate["baseline"]["low"] / 2
    frozen = replace(FROZEN, contexts=(1,))
    frozen_pair = [materialize_segmentation(workspace, task, one, frozen, CPU, mirror=mirror) for one in (ours, random)]
    ahead = compare_segmentations(frozen_pair[0], frozen_pair[1]).difference
    print(f"mIoU frozen {frozen_pair[0].facts['miou']}, random {frozen_pair[1].facts['miou']}, ahead {ahead}")
    assert ahead is not None
    assert ahead.low > 0

    # Fine-tuned: most is learnt here, so that an encoder without pretraining comes near.
    segmented = materialize_segmentation(workspace, task, ours, FINE_TUNED, CPU, mirror=mirror).facts
    read_off = {one["name"]: one["mae"]["value"] for one in segmented["read_off"]}
    print(f"mIoU fine-tuned {segmented['miou']}, read off {read_off}")
    assert segmented["miou"]["value"] > 0.80
    assert read_off["heart_rate"] < 1.0, "beats a minute"
    assert max(read_off[name] for name in ("p", "pr", "qrs", "qt")) < 15, "ms"

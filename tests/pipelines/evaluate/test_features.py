from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder
from ecg_model.encoder_file import random_encoder, save_encoder
from pipelines.cache import Product, Workspace
from pipelines.evaluate.features import EncoderSource, FeatureConfig, embed, materialize_features, read_features
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.result import load_result
from pipelines.evaluate.probes.step import materialize_probe
from pipelines.formats.shard import QUALITY, ShardWriter
from pipelines.harmonize.shards import read_records, shards_of
from pipelines.tasks.catalogue import TASKS

TINY = EncoderConfig(dim=16, depth=1, heads=2, input_scale=5.0, patch_init_scale=7.0)
TASK = TASKS["ptbxl_superclass"]
QUICK = ProbeConfig(resamples=50, min_patients=5, min_positives=1)


def ecgs(n: int, seed: int) -> tuple[np.ndarray, list[list[str]]]:
    """Bumps in microvolt whose height is the diagnosis."""
    rng = np.random.default_rng(seed)
    large_N = rng.random(n) < 0.5
    wave_T = 900 * np.exp(-((np.arange(2500) % 250 - 100) ** 2) / 200)
    height_N = np.where(large_N, 1.5, 0.7) + 0.2 * rng.normal(size=n)
    signal_NLT = height_N[:, None, None] * wave_T + 20 * rng.normal(size=(n, 8, 2500))
    return signal_NLT.round().astype(np.int16), [["LVH"] if large else ["NORM"] for large in large_N]


def harmonized(workspace: Workspace, partition: str, n: int = 60, source: str = "ptbxl") -> Product:
    def make(folder: Path) -> dict:
        writer = ShardWriter(folder)
        signal_NLT, labels = ecgs(n, seed=len(partition) + ord(partition[-1]))
        for i in range(n):
            row = {"source": source, "record_id": f"{partition}-{i}", "patient_id": None, "age": None, "sex": None}
            row |= {"rate": 500.0, "samples": 5000, "labels": labels[i], "fold": i % 10 + 1, "notes": []}
            row |= {"content_hash": f"{i}", "signature": bytes(128)} | {f"quality_{name}": 0.0 for name in QUALITY}
            writer.append(signal_NLT[i], row)
        writer.close()
        return {}

    return workspace.build(f"ecgs/{source}/{partition}", version="1", config={"n": n}, inputs={}, make=make)


@dataclass
class Counted:
    """An encoder source that tells how often it was loaded and how many ECGs it embedded."""

    loads: int = 0
    embedded: list[int] = field(default_factory=list)

    def source(self, name: str = "tiny", seed: int = 0) -> EncoderSource:
        plain = EncoderSource.random(name, TINY, seed)

        def load() -> Encoder:
            self.loads += 1
            encoder = plain.load()
            embed_batch = encoder.embed

            def counted(x_BLT: torch.Tensor) -> torch.Tensor:
                self.embedded.append(len(x_BLT))
                return embed_batch(x_BLT)

            encoder.embed = counted
            return encoder

        return replace(plain, load=load)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "home")


def test_embeddings_are_the_encoders_of_millivolt_whatever_the_batch():
    signal_NLT, _ = ecgs(10, seed=0)
    encoder = random_encoder(TINY, 0)
    with torch.inference_mode():
        alone = encoder.eval().embed(torch.from_numpy(signal_NLT * 1e-3).float()).numpy()
    seen: list[tuple[int, int]] = []
    config = FeatureConfig(batch=4, device="cpu")
    found = embed(encoder, signal_NLT, config, lambda done, total: seen.append((done, total)))
    assert found.dtype == np.float32
    assert found == pytest.approx(alone, abs=1e-5)
    assert seen == [(4, 10), (8, 10), (10, 10)]
    half = embed(encoder, signal_NLT, replace(config, precision="bf16"))
    assert half.dtype == np.float32
    assert not np.array_equal(half, found)
    assert half == pytest.approx(found, abs=0.05)


def test_no_ecgs_have_no_embeddings():
    assert embed(random_encoder(TINY, 0), np.zeros((0, 8, 2500), np.int16), FeatureConfig()).shape == (0, 16)


def test_an_encoder_that_has_diverged_is_refused():
    encoder = random_encoder(TINY, 0)
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="3 of 3 embeddings are not finite"):
        embed(encoder, ecgs(3, seed=0)[0], FeatureConfig())


@pytest.mark.parametrize(("fault", "says"), [({"precision": "fp16"}, "precision='fp16'"), ({"batch": 0}, "batch=0")])
def test_a_feature_config_that_cannot_be_is_refused(fault, says):
    with pytest.raises(ValueError, match=says):
        FeatureConfig(**fault)


def test_an_encoder_file_is_known_by_its_bytes(tmp_path):
    save_encoder(tmp_path / "a.safetensors", random_encoder(TINY, 0))
    save_encoder(tmp_path / "b.safetensors", random_encoder(TINY, 1))
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    a, b, copy = (EncoderSource.of_file(n, tmp_path / f"{n}.safetensors") for n in ("a", "b", "copy"))
    assert a.digest == copy.digest != b.digest
    signal_NLT, _ = ecgs(3, seed=0)
    direct = embed(random_encoder(TINY, 1), signal_NLT, FeatureConfig())
    assert np.array_equal(embed(b.load(), signal_NLT, FeatureConfig()), direct)
    with pytest.raises(ValueError, match="no file"):
        EncoderSource.of_file("c", tmp_path / "c.safetensors")


def test_random_encoders_differ_by_seed_and_config():
    digests = {
        EncoderSource.random("random", config, seed).digest
        for config, seed in ((TINY, 0), (TINY, 1), (replace(TINY, depth=2), 0))
    }
    assert len(digests) == 3


def test_features_are_computed_once_and_a_new_shard_costs_only_itself(workspace):
    harmonized(workspace, "00")
    counted = Counted()
    first = materialize_features(workspace, counted.source(), "ptbxl")
    assert (counted.loads, sum(counted.embedded)) == (1, 60)
    again = materialize_features(workspace, counted.source(), "ptbxl")
    assert again["00"].cached
    assert again["00"].digest == first["00"].digest
    assert (counted.loads, sum(counted.embedded)) == (1, 60)
    harmonized(workspace, "01", n=30)
    both = materialize_features(workspace, counted.source(), "ptbxl")
    assert list(both) == ["00", "01"]
    assert (counted.loads, sum(counted.embedded)) == (2, 90)
    feature_ND = read_features(both)
    records = read_records(shards_of(workspace, "ptbxl"))
    assert feature_ND.shape == (90, 16)
    assert records.column("partition").to_pylist() == ["00"] * 60 + ["01"] * 30
    assert records.column("record_id").to_pylist()[59:61] == ["00-59", "01-0"]
    expected = embed(random_encoder(TINY, 0), ecgs(30, seed=2 + ord("1"))[0], FeatureConfig())
    assert feature_ND[60:] == pytest.approx(expected, abs=1e-5)


def test_other_weights_and_another_precision_are_other_features(workspace):
    harmonized(workspace, "00", n=4)
    materialize_features(workspace, EncoderSource.random("e", TINY, 0), "ptbxl")
    assert not materialize_features(workspace, EncoderSource.random("e", TINY, 1), "ptbxl")["00"].cached
    config = FeatureConfig(precision="bf16")
    assert not materialize_features(workspace, EncoderSource.random("e", TINY, 1), "ptbxl", config)["00"].cached
    batches = FeatureConfig(batch=3)
    assert materialize_features(workspace, EncoderSource.random("e", TINY, 1), "ptbxl", batches)["00"].cached


def test_a_probe_of_the_workspace_is_scored_cached_and_readable(workspace):
    for partition in ("00", "01", "02"):
        harmonized(workspace, partition)
    counted = Counted()
    product = materialize_probe(workspace, TASK, counted.source(), QUICK)
    assert product.name == "probe/ptbxl_superclass/tiny"
    assert product.facts["scored"]
    assert product.facts["test_macro_auc"]["value"] > 0.9
    assert product.facts["omitted"].keys() == {"MI", "STTC", "CD"}
    stored = json.loads((product.path / "scores.json").read_text())
    assert stored["about"]["encoder"] == {"name": "tiny", "digest": counted.source().digest}
    assert set(stored["about"]["ecgs"]) == {"ecgs/ptbxl/00", "ecgs/ptbxl/01", "ecgs/ptbxl/02"}
    assert stored["about"]["task"]["protocol"]["test"] == [10]
    predictions = pq.read_table(product.path / "predictions.parquet")
    assert predictions.column_names == ["record_id", "patient", "split", "y", "score"]
    assert predictions.num_rows == 36
    roc = pq.read_table(product.path / "roc.parquet")
    assert set(roc.column("class").to_pylist()) == {"NORM", "HYP"}
    result = load_result(product.path)
    assert result.scores is not None
    assert result.scores.test.macro_auc.value == product.facts["test_macro_auc"]["value"]
    assert materialize_probe(workspace, TASK, counted.source(), QUICK).cached
    assert counted.loads == 1


def test_a_probe_is_done_again_for_another_encoder_or_protocol_and_says_what_compares(workspace):
    harmonized(workspace, "00", n=100)
    first = materialize_probe(workspace, TASK, EncoderSource.random("e", TINY, 0), QUICK)
    other = materialize_probe(workspace, TASK, EncoderSource.random("e", TINY, 1), QUICK)
    strict = materialize_probe(workspace, TASK, EncoderSource.random("e", TINY, 1), replace(QUICK, min_positives=2))
    assert len({p.fingerprint for p in (first, other, strict)}) == 3
    assert first.facts["data_digest"] == other.facts["data_digest"] != strict.facts["data_digest"]


def test_too_few_records_give_a_product_that_says_so(workspace):
    harmonized(workspace, "00", n=40)
    product = materialize_probe(workspace, TASK, EncoderSource.random("e", TINY, 0))
    assert product.facts["scored"] is False
    assert "each needs 20" in product.facts["reason"]
    assert load_result(product.path).reason == product.facts["reason"]


def test_a_source_without_shards_gives_a_product_that_says_so(workspace):
    counted = Counted()
    product = materialize_probe(workspace, TASKS["cpsc2018"], counted.source())
    assert "train 0, validation 0, test 0" in product.facts["reason"]
    assert counted.loads == 0


def test_a_protocol_that_cannot_choose_fails_before_the_encoder_runs(workspace):
    harmonized(workspace, "00", n=4)
    counted = Counted()
    task = replace(TASK, protocol=replace(TASK.protocol, validation=()))
    with pytest.raises(ValueError, match="no validation split"):
        materialize_probe(workspace, task, counted.source())
    assert counted.loads == 0

"""Embeddings of harmonized shards, computed once for an encoder and kept as products.

    features/<encoder>/<source>/<partition>/.../features.npy   float32 (N, dim)

Row i belongs to row i of the shard's records.parquet. The fingerprint holds the encoder's digest and the shard's, so
one new partition costs only its own embeddings, and an encoder under a new name that is the same file costs nothing
but the hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder, load_encoder, random_encoder
from pipelines import versions
from pipelines.stage import Product, Workspace, digest_of
from pipelines.store import open_shard

FEATURES_FILE = "features.npy"
ENCODER_FILE = "encoder.safetensors"
MILLIVOLT = 1e-3  # of the store's microvolt

Progress = Callable[[int, int], None]
"""Called with the ECGs done and the ECGs in all."""


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An encoder that is not loaded yet: a name for people, a digest of what it computes, and how to load it."""

    name: str
    digest: str
    load: Callable[[], Encoder]

    @classmethod
    def of_product(cls, name: str, product: Product) -> EncoderSource:
        """The encoder in a pretraining product."""
        return cls.of_file(name, product.path / ENCODER_FILE)

    @classmethod
    def of_file(cls, name: str, path: Path) -> EncoderSource:
        """An encoder file of `save_encoder`; raises ValueError where there is none."""
        if not path.is_file():
            raise ValueError(f"encoder {name!r}: no file {path}; pretrain it first, or name an existing one")
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(name=name, digest=digest, load=lambda: load_encoder(path))

    @classmethod
    def random(cls, name: str, config: EncoderConfig, seed: int) -> EncoderSource:
        """The same network with its initial weights: what a pretrained encoder has to beat."""
        digest = digest_of({"random": asdict(config), "seed": seed})
        return cls(name=name, digest=digest, load=lambda: random_encoder(config, seed))


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How embeddings are computed. Only `precision` can change a score; the other two are this machine's business."""

    precision: Literal["fp32", "bf16"] = "fp32"
    batch: int = 64
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r}: use 'fp32' or 'bf16'")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: use at least 1 ECG")


def embed(
    encoder: Encoder, signal_NLT: np.ndarray, config: FeatureConfig, progress: Progress | None = None
) -> np.ndarray:
    """Mean-pooled embeddings, float32 (N, dim), of int16 ECGs (N, 8, 2500) in microvolt.

    Raises ValueError where an embedding is not finite. The encoder is put in eval mode and moved to the device.
    """
    device = torch.device(_device(config.device))
    encoder = encoder.to(device).eval()
    batches = []
    with torch.inference_mode():
        for first in range(0, len(signal_NLT), config.batch):
            x_BLT = torch.from_numpy(signal_NLT[first : first + config.batch]).to(device).float() * MILLIVOLT
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                batches.append(encoder.embed(x_BLT).float().cpu().numpy())
            if progress is not None:
                progress(min(first + config.batch, len(signal_NLT)), len(signal_NLT))
    feature_ND = np.concatenate(batches) if batches else np.zeros((0, encoder.config.dim), np.float32)
    bad = np.flatnonzero(~np.isfinite(feature_ND).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(feature_ND)} embeddings are not finite, the first of row {bad[0]}: the encoder's "
            f"weights have diverged, or precision={config.precision!r} is too narrow for it"
        )
    return feature_ND


def shards_of(workspace: Workspace, source: str) -> dict[str, Product]:
    """The harmonized shards of a source that the workspace holds, by partition."""
    folder = workspace.folder(f"ecgs/{source}")
    partitions = sorted(pointer.parent.name for pointer in folder.glob("*/current"))
    products = {partition: workspace.current(f"ecgs/{source}/{partition}") for partition in partitions}
    return {partition: product for partition, product in products.items() if product is not None}


def materialize_features(
    workspace: Workspace,
    encoder: EncoderSource,
    source: str,
    config: FeatureConfig | None = None,
    progress: Progress | None = None,
) -> dict[str, Product]:
    """The features of all harmonized shards of a source, by partition; only those not there yet are computed.

    The encoder is loaded at the first shard that needs it, and not at all where none does.
    """
    config = config or FeatureConfig()
    loaded: list[Encoder] = []

    def make(shard: Product, folder: Path) -> dict[str, Any]:
        if not loaded:
            loaded.append(encoder.load())
        feature_ND = embed(loaded[0], open_shard(shard.path).signals(), config, progress)
        np.save(folder / FEATURES_FILE, feature_ND, allow_pickle=False)
        return {"records": len(feature_ND), "dim": feature_ND.shape[1]}

    return {
        partition: workspace.build(
            f"features/{encoder.name}/{source}/{partition}",
            version=versions.FEATURES,
            config={"precision": config.precision},
            inputs={"encoder": encoder.digest, "shard": shard.digest},
            make=lambda folder, shard=shard: make(shard, folder),
        )
        for partition, shard in shards_of(workspace, source).items()
    }


def read_features(products: Mapping[str, Product]) -> np.ndarray:
    """float32 (N, dim): the features of several partitions, one after another in their order; (0, 0) of none."""
    if not products:
        return np.zeros((0, 0), np.float32)
    return np.concatenate([np.load(p.path / FEATURES_FILE, allow_pickle=False) for p in products.values()])


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name

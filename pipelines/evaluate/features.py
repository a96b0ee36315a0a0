"""Features and tokens of harmonized shards, computed once for a source of features and cached as products.

    features/<source of features>/<source>/<partition>/.../features.npy   float32 (N, D)
    tokens/<source of features>/<source>/<partition>/.../tokens.npy       float16 (N, P, D), an encoder's

Row i belongs to row i of the shard's records.parquet. The fingerprint depends on the encoder's digest and the shard's,
so one new partition costs only its own embeddings, and an encoder under a new name that is the same file costs nothing
but the hash. Features of some leads, or under a condition, are separate products.

Shapes: N records, B records of a batch, L leads, T samples, P tokens, D features or channels.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from ecg_model.config import AnyEncoderConfig, EncoderConfig
from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder_file import load_encoder, random_encoder, stored_config
from ecg_model.leads import LEADS_12
from ecg_model.settings import to_dict
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.device import torch_device
from pipelines.disk_space import reserve
from pipelines.encoders.names import ENCODER_FILE, EncoderNames
from pipelines.facts import Facts, written_if_set
from pipelines.formats.shard import LEADS, MILLIVOLT, RATE, SAMPLES, open_shard, read_rows
from pipelines.formatting import format_bytes
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of, sha256_of_file
from pipelines.pretrain.step import EncoderFacts

FEATURES_FILE = "features.npy"
TOKENS_FILE = "tokens.npy"

OnProgress = Callable[[int, int], None]
"""Called with the ECGs done and the ECGs in all."""

Extract = Callable[[np.ndarray, OnProgress | None], np.ndarray]
"""Features float32 (N, D) of int16 ECGs (N, L, 2500) in microvolt."""

Tokenize = Callable[[torch.Tensor], torch.Tensor]
"""Tokens (B, P, D) of float32 ECGs (B, L, 2500) in millivolt."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How features are computed. Only `precision` and `leads` can change a score."""

    precision: Literal["fp32", "bf16"] = "fp32"
    leads: tuple[str, ...] | None = None
    """The ECG's leads that are used, in the store's order; None is all."""
    batch: int = 64
    """ECGs that are computed at once."""
    device: str = "auto"
    """As `pipelines.device.torch_device` takes it."""

    def __post_init__(self) -> None:
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision={self.precision!r}: use 'fp32' or 'bf16'")
        in_order = tuple(lead for lead in LEADS if lead in (self.leads or ()))
        if self.leads is not None and (not in_order or self.leads != in_order):
            raise ValueError(f"leads={self.leads}: name some of {', '.join(LEADS)}, in this order, each once")
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: use at least 1 ECG")

    @property
    def rows(self) -> list[int]:
        """The leads' rows in the store's array (N, 8, T)."""
        return [LEADS.index(lead) for lead in (LEADS if self.leads is None else self.leads)]

    @property
    def torch_device(self) -> torch.device:
        """The device. Raises ValueError as `pipelines.device.torch_device` does."""
        return torch_device(self.device)

    def to_dict(self) -> dict[str, Any]:
        """Return what a score depends on, as JSON values; `leads` is left out if it is all of them."""
        return {"precision": self.precision, **({} if self.leads is None else {"leads": list(self.leads)})}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A change of ECGs before features are computed, such as noise of a level."""

    name: str
    """Letters, digits and underscores."""
    settings: Mapping[str, Any]
    """Everything that the change depends on, as JSON values."""
    apply: Callable[[np.ndarray, Sequence[str]], np.ndarray] = field(compare=False)
    """Changes int16 ECGs (N, 8, 2500) in microvolt, given their record ids; an ECG's change depends on its id alone."""


class FeatureSource(Protocol):
    """Anything that computes features: an encoder, or a fixed computation."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Of what it computes."""
        ...

    def extractor(self, config: FeatureConfig) -> Extract:
        """Return a function that computes features of ECGs with the leads of `config`.

        It is called at the first shard that has no features yet.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An encoder that is loaded when it is needed."""

    name: str
    """As people read it."""
    digest: str
    """Of what it computes: the file's sha256, or that of the random network's settings."""
    config: AnyEncoderConfig
    load: Callable[[], ECGEncoder]

    def extractor(self, config: FeatureConfig) -> Extract:
        """Load the encoder and return its embedding. Raises ValueError as `loaded` does."""
        encoder = self.loaded()
        return lambda signal_NLT, progress: embed(encoder, signal_NLT, config, progress)

    def tokenizer(self, config: FeatureConfig) -> Tokenize:
        """Load the encoder and return what gives its tokens. Raises ValueError as `loaded` does."""
        encoder = self.loaded().to(config.torch_device).eval()
        leads = None if config.leads is None else config.rows
        return lambda x_BLT: encoder.tokens(x_BLT, leads=leads)

    def loaded(self) -> ECGEncoder:
        """Load the encoder. Raises ValueError if it was made for other ECGs than those of the store."""
        made_for = self.config
        fits = made_for.leads in (len(LEADS), len(LEADS_12))
        if isinstance(made_for, EncoderConfig) and made_for.window >= SAMPLES:
            fits = fits and SAMPLES % made_for.patch_size == 0
        if not fits:
            raise ValueError(
                f"encoder {self.name!r} is made for {made_for.leads} leads and windows of {made_for.window} samples; "
                f"ECGs here have {len(LEADS)} leads, or {len(LEADS_12)} with those that follow from them, and "
                f"{SAMPLES} samples: probe an encoder that was pretrained on such ECGs"
            )
        return self.load()

    @property
    def window(self) -> str | None:
        """For how long ECGs the encoder was made, in words, to be shown with its scores; None if for those here."""
        seconds = self.config.window / RATE
        if self.config.window < SAMPLES:
            return f"made for {seconds:g} s, tested on the mean over the windows of {SAMPLES / RATE:g} s"
        return None if self.config.window == SAMPLES else f"made for {seconds:g} s, tested on {SAMPLES / RATE:g} s"

    @classmethod
    def of_product(cls, name: str, product: Product) -> EncoderSource:
        """Return the encoder of a pretraining product."""
        return cls.of_file(name, product.path / ENCODER_FILE)

    @classmethod
    def of_file(cls, name: str, path: Path) -> EncoderSource:
        """Return the encoder of a file of `save_encoder`. Raises ValueError if there is no file."""
        if not path.is_file():
            raise ValueError(f"encoder {name!r}: no file {path}; pretrain it first, or name an existing one")
        return cls(name=name, digest=sha256_of_file(path), config=stored_config(path), load=lambda: load_encoder(path))

    @classmethod
    def random(cls, name: str, config: AnyEncoderConfig, seed: int) -> EncoderSource:
        """Return a network with its initial weights: the random baseline of a pretrained encoder."""
        digest = digest_of({"random": to_dict(config), "seed": seed})
        return cls(name=name, digest=digest, config=config, load=lambda: random_encoder(config, seed))


def embed(
    encoder: ECGEncoder, signal_NLT: np.ndarray, config: FeatureConfig, progress: OnProgress | None = None
) -> np.ndarray:
    """Return mean-pooled embeddings, float32 (N, D), of int16 ECGs (N, L, 2500) in microvolt, L the leads of `config`.

    The encoder is put in eval mode and moved to the device. Raises ValueError if an embedding is not finite.
    """
    encoder = encoder.to(config.torch_device).eval()
    leads = None if config.leads is None else config.rows

    def pooled(x_BLT: torch.Tensor) -> torch.Tensor:
        return encoder.embed(x_BLT) if leads is None else encoder.embed(x_BLT, leads=leads)

    feature_ND = np.zeros((len(signal_NLT), encoder.config.dim), np.float32)
    _in_batches(pooled, signal_NLT, config, feature_ND, progress)
    _require_finite(np.asarray(np.isfinite(feature_ND).all(axis=1)), config)
    return feature_ND


def _in_batches(
    encode: Callable[[torch.Tensor], torch.Tensor],
    signal_NLT: np.ndarray,
    config: FeatureConfig,
    out_N: np.ndarray,
    progress: OnProgress | None,
) -> None:
    """Encode ECGs batch by batch.

    encode: float32 ECGs (B, L, T) in millivolt to (B, ...), from `signal_NLT`, which is int16 in microvolt.
    out_N: the array that is filled, one row an ECG.
    """
    device = config.torch_device
    with torch.inference_mode():
        for first in range(0, len(signal_NLT), config.batch):
            end = min(first + config.batch, len(signal_NLT))
            x_BLT = torch.from_numpy(signal_NLT[first:end]).to(device).float() * MILLIVOLT
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"):
                out_N[first:end] = encode(x_BLT).float().cpu().numpy()
            if progress is not None:
                progress(end, len(signal_NLT))


def _require_finite(finite_N: np.ndarray, config: FeatureConfig) -> None:
    """Raise ValueError if not all rows are finite."""
    bad = np.flatnonzero(~finite_N)
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(finite_N)} embeddings are not finite, the first of row {bad[0]}: the encoder's "
            f"weights have diverged, or precision={config.precision!r} is too narrow for it"
        )


@dataclass(frozen=True, kw_only=True)
class FeatureFacts(Facts):
    """Facts of a product of features or of tokens."""

    records: int
    tokens: int | None = written_if_set()
    """Of each record; None for features."""
    dim: int


def materialize_features(
    workspace: Workspace,
    features: FeatureSource,
    source: str,
    config: FeatureConfig | None = None,
    progress: OnProgress | None = None,
    *,
    condition: Condition | None = None,
    rows: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Product]:
    """Build the features of all harmonized shards of a source, by partition.

    Only features that are not there yet are computed; the encoder is loaded at the first shard that needs it.

    condition: the change of ECGs before features are computed.
    rows: the rows of each partition to compute, ascending; None is all.
    """
    config = config or FeatureConfig()
    ready: list[Extract] = []

    def make(shard: Product, partition: str, folder: Path) -> dict[str, Any]:
        if not ready:
            ready.append(features.extractor(config))
        opened = open_shard(shard.path)
        selected = np.arange(len(opened)) if rows is None else rows[partition]
        signal_NLT = read_rows([(shard.path, selected)])
        if condition is not None:
            record_id = opened.records().column("record_id").to_pylist()
            signal_NLT = condition.apply(signal_NLT, [record_id[row] for row in selected])
        if config.leads is not None:
            signal_NLT = signal_NLT[:, config.rows]
        feature_ND = ready[0](signal_NLT, progress)
        np.save(folder / FEATURES_FILE, feature_ND, allow_pickle=False)
        return FeatureFacts(records=len(feature_ND), dim=feature_ND.shape[1]).to_dict()

    settings = config.to_dict()
    if condition is not None:
        settings |= {"condition": condition.name, **condition.settings}
    return {
        partition: workspace.build(
            f"features/{_product_name(features.name, config, condition)}/{source}/{partition}",
            version=versions.FEATURES,
            config=settings if rows is None else settings | {"rows": digest_of(rows[partition].tolist())},
            inputs={"encoder": features.digest, "shard": shard.digest},
            make=lambda folder, shard=shard, partition=partition: make(shard, partition, folder),
        )
        for partition, shard in shards_of(workspace, source).items()
    }


def _product_name(name: str, config: FeatureConfig, condition: Condition | None) -> str:
    """Return the name of a source of features, with its leads and condition."""
    of_leads = "" if config.leads is None else f"__leads_{'_'.join(config.leads)}"
    return f"{name}{of_leads}{'' if condition is None else f'__{condition.name}'}"


def materialize_tokens(
    workspace: Workspace,
    encoder: EncoderSource,
    source: str,
    config: FeatureConfig | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Product]:
    """Build all tokens of an encoder's output, float16 (N, P, D), of all harmonized shards of a source, by partition.

    P counts the patches of the leads, lead by lead, or an S4 encoder's tokens of all leads together. Tokens take 154 kB
    an ECG of a transformer with D = 192. Raises ValueError if a shard's tokens do not fit on the disk.
    """
    config = config or FeatureConfig()
    ready: list[Tokenize] = []

    def make(shard: Product, folder: Path) -> dict[str, Any]:
        if not ready:
            ready.append(encoder.tokenizer(config))
        signal_NLT = open_shard(shard.path).signals()[:, config.rows]
        # A network of 12 leads adds the derived ones, so the number of tokens is known from one ECG, or from noise.
        noise_1LT = np.random.default_rng(0).normal(0, 100, (1, *signal_NLT.shape[1:])).astype(np.int16)
        one_1LT = signal_NLT[:1] if len(signal_NLT) else noise_1LT
        with torch.inference_mode():
            x_1LT = torch.from_numpy(one_1LT).to(config.torch_device).float() * MILLIVOLT
            shape = (len(signal_NLT), *ready[0](x_1LT).shape[1:])
        _require_room(folder, shape)
        out_NPD = np.lib.format.open_memmap(folder / TOKENS_FILE, mode="w+", dtype=np.float16, shape=shape)
        reserve(folder / TOKENS_FILE)
        _in_batches(ready[0], signal_NLT, config, out_NPD, progress)
        out_NPD.flush()
        _require_finite(np.array([np.isfinite(x_PD).all() for x_PD in out_NPD], dtype=bool), config)
        return FeatureFacts(records=shape[0], tokens=shape[1], dim=shape[2]).to_dict()

    return {
        partition: workspace.build(
            f"tokens/{_product_name(encoder.name, config, None)}/{source}/{partition}",
            version=versions.FEATURES,
            config=config.to_dict(),
            inputs={"encoder": encoder.digest, "shard": shard.digest},
            make=lambda folder, shard=shard: make(shard, folder),
        )
        for partition, shard in shards_of(workspace, source).items()
    }


def _require_room(folder: Path, shape: tuple[int, ...]) -> None:
    """Raise ValueError if the tokens do not fit on the disk."""
    needed, free = math.prod(shape) * np.dtype(np.float16).itemsize, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"tokens of {shape[0]} ECGs take {format_bytes(needed)} and {format_bytes(free)} are free in {folder}: "
            "make room, name fewer leads, or use a head on features"
        )


def read_features(products: Mapping[str, Product]) -> np.ndarray:
    """Return the features of several partitions, float32 (N, D), concatenated in their order; (0, 0) of none."""
    if not products:
        return np.zeros((0, 0), np.float32)
    return np.concatenate([np.load(p.path / FEATURES_FILE, allow_pickle=False) for p in products.values()])


class Tokens:
    """Tokens of several partitions on disk, float16 (N, P, D), concatenated in their order; `tokens[rows]` reads."""

    def __init__(self, products: Mapping[str, Product]) -> None:
        files = [product.path / TOKENS_FILE for product in products.values()]
        self._parts = [np.load(file, mmap_mode="r", allow_pickle=False) for file in files]
        self._first = np.cumsum([0, *map(len, self._parts)])

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._parts[0].shape[1:]) if self._parts else (0, 0, 0)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Read the tokens of rows, which are numbered from 0, in their order; float16 (len(rows), P, D)."""
        token_NPD = np.empty((len(rows), *self.shape[1:]), np.float16)
        part_of_row = np.searchsorted(self._first, rows, side="right") - 1
        for part in np.unique(part_of_row):
            here = part_of_row == part
            token_NPD[here] = self._parts[part][rows[here] - self._first[part]]
        return token_NPD


def read_signals(shards: Mapping[str, Product]) -> np.ndarray:
    """Return the ECGs of several partitions, int16 (N, 8, 2500) in microvolt, concatenated in their order."""
    return read_rows([(shard.path, np.arange(len(open_shard(shard.path)))) for shard in shards.values()])


class Rows(Protocol):
    """An array with a row a record, in memory or on disk, which is read by row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


def encoder_and_random_baseline(
    workspace: Workspace, encoder_names: EncoderNames
) -> tuple[EncoderSource, EncoderSource]:
    """Return an encoder of the workspace, and the same network with its initial weights.

    The random baseline has the seed that the pretraining started from, or 0 if that is not known, as of a released
    file.
    """
    encoder = workspace.require(encoder_names.product)
    source = EncoderSource.of_product(encoder_names.probe, encoder)
    seed = EncoderFacts.of(encoder).seed
    return source, EncoderSource.random(encoder_names.random_baseline, source.config, seed)

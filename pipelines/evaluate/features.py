"""What is computed of harmonized shards without labels, once for a source of features, and kept as products.

    features/<source of features>/<source>/<partition>/.../features.npy   float32 (N, D)
    tokens/<source of features>/<source>/<partition>/.../tokens.npy       float16 (N, P, D), an encoder's

Row i belongs to row i of the shard's records.parquet. The fingerprint holds the encoder's digest and the shard's, so
one new partition costs only its own embeddings, and an encoder under a new name that is the same file costs nothing
but the hash. Features of some leads, or under a condition, are products of their own beside them.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from ecg_model.config import EncoderConfig
from ecg_model.encoder import Encoder, load_encoder, random_encoder, stored_config
from ecg_model.leads import LEADS_12
from pipelines import versions
from pipelines.cache import Product, Workspace
from pipelines.encoders.names import ENCODER_FILE, EncoderNames
from pipelines.formats.shard import LEADS, MILLIVOLT, RATE, SAMPLES, open_shard, read_rows
from pipelines.formatting import format_bytes
from pipelines.harmonize.shards import shards_of
from pipelines.hashing import digest_of
from pipelines.pretrain.step import EncoderFacts

FEATURES_FILE = "features.npy"
TOKENS_FILE = "tokens.npy"

OnProgress = Callable[[int, int], None]
"""Called with the ECGs done and the ECGs in all."""

Extract = Callable[[np.ndarray, OnProgress | None], np.ndarray]
"""Features float32 (N, D) of int16 ECGs (N, L, 2500) in microvolt."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """How features are computed. Only `precision` and `leads` can change a score; the other two are this machine's
    business. leads: the ECG's leads that are looked at, in the store's order; None: all."""

    precision: Literal["fp32", "bf16"] = "fp32"
    leads: tuple[str, ...] | None = None
    batch: int = 64
    device: str = "auto"

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
        """The leads' rows in the store's array."""
        return [LEADS.index(lead) for lead in (LEADS if self.leads is None else self.leads)]

    @property
    def torch_device(self) -> torch.device:
        """`auto`: a GPU where there is one."""
        return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device)

    def to_dict(self) -> dict[str, Any]:
        """What a score depends on, as JSON values; all leads go without saying."""
        return {"precision": self.precision, **({} if self.leads is None else {"leads": list(self.leads)})}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is done to ECGs before features are computed, such as noise of a level.

    name: of letters, digits and underscores. settings: all that it depends on, as JSON values. apply: int16 ECGs
    (N, 8, 2500) in microvolt and their record ids -> the same, changed; an ECG's change depends on its id alone.
    """

    name: str
    settings: Mapping[str, Any]
    apply: Callable[[np.ndarray, Sequence[str]], np.ndarray] = field(compare=False)


class FeatureSource(Protocol):
    """What gives features: an encoder, or a fixed computation. digest: of what it computes."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def extractor(self, config: FeatureConfig) -> Extract:
        """Made ready to compute; asked for at the first shard that needs it. ECGs hold the leads of `config`."""
        ...


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An encoder that is not loaded yet: a name for people, a digest of what it computes, what it is made of, and how
    to load it."""

    name: str
    digest: str
    config: EncoderConfig
    load: Callable[[], Encoder]

    def extractor(self, config: FeatureConfig) -> Extract:
        """Raises ValueError where the encoder was made for other ECGs than the store holds."""
        encoder = self.loaded()
        return lambda signal_NLT, progress: embed(encoder, signal_NLT, config, progress)

    def loaded(self) -> Encoder:
        """The encoder. Raises ValueError where it was made for other ECGs than the store holds."""
        made_for = self.config
        fits = made_for.leads in (len(LEADS), len(LEADS_12))
        if not fits or made_for.samples < SAMPLES or SAMPLES % made_for.patch_size:
            raise ValueError(
                f"encoder {self.name!r} is made for {made_for.leads} leads and {made_for.samples} samples in patches "
                f"of {made_for.patch_size}; ECGs here have {len(LEADS)} leads, or {len(LEADS_12)} with those that "
                f"follow from them, and {SAMPLES} samples: probe an encoder that was pretrained on such"
            )
        return self.load()

    @property
    def window(self) -> str | None:
        """What stands beside its scores where it was made for longer ECGs than there are here; else None."""
        if self.config.samples == SAMPLES:
            return None
        return f"made for {self.config.samples / RATE:g} s, tested on {SAMPLES / RATE:g} s"

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
        return cls(name=name, digest=digest, config=stored_config(path), load=lambda: load_encoder(path))

    @classmethod
    def random(cls, name: str, config: EncoderConfig, seed: int) -> EncoderSource:
        """The same network with its initial weights: what a pretrained encoder has to beat."""
        digest = digest_of({"random": asdict(config), "seed": seed})
        return cls(name=name, digest=digest, config=config, load=lambda: random_encoder(config, seed))


def embed(
    encoder: Encoder, signal_NLT: np.ndarray, config: FeatureConfig, progress: OnProgress | None = None
) -> np.ndarray:
    """Mean-pooled embeddings, float32 (N, D), of int16 ECGs (N, L, 2500) in microvolt, L the leads of `config`.

    Raises ValueError where an embedding is not finite. The encoder is put in eval mode and moved to the device.
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
    """Fill `out_N`, an array with a row an ECG, with what `encode` gives of each."""
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
    bad = np.flatnonzero(~finite_N)
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(finite_N)} embeddings are not finite, the first of row {bad[0]}: the encoder's "
            f"weights have diverged, or precision={config.precision!r} is too narrow for it"
        )


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
    """The features of all harmonized shards of a source, by partition; only those not there yet are computed.

    rows: of each partition, ascending, that features are wanted of; all where it is None. The encoder is loaded at the
    first shard that needs it, and not at all where none does.
    """
    config = config or FeatureConfig()
    ready: list[Extract] = []

    def make(shard: Product, partition: str, folder: Path) -> dict[str, Any]:
        if not ready:
            ready.append(features.extractor(config))
        opened = open_shard(shard.path)
        wanted = np.arange(len(opened)) if rows is None else rows[partition]
        signal_NLT = read_rows([(shard.path, wanted)])
        if condition is not None:
            record_id = opened.records().column("record_id").to_pylist()
            signal_NLT = condition.apply(signal_NLT, [record_id[row] for row in wanted])
        seen_NLT = signal_NLT if config.leads is None else signal_NLT[:, config.rows]
        feature_ND = ready[0](seen_NLT, progress)
        np.save(folder / FEATURES_FILE, feature_ND, allow_pickle=False)
        return {"records": len(feature_ND), "dim": feature_ND.shape[1]}

    asked = config.to_dict()
    if condition is not None:
        asked |= {"condition": condition.name, **condition.settings}
    return {
        partition: workspace.build(
            f"features/{_product_name(features.name, config, condition)}/{source}/{partition}",
            version=versions.FEATURES,
            config=asked if rows is None else asked | {"rows": digest_of(rows[partition].tolist())},
            inputs={"encoder": features.digest, "shard": shard.digest},
            make=lambda folder, shard=shard, partition=partition: make(shard, partition, folder),
        )
        for partition, shard in shards_of(workspace, source).items()
    }


def _product_name(name: str, config: FeatureConfig, condition: Condition | None) -> str:
    of_leads = "" if config.leads is None else f"__leads_{'_'.join(config.leads)}"
    return f"{name}{of_leads}{'' if condition is None else f'__{condition.name}'}"


def materialize_tokens(
    workspace: Workspace,
    encoder: EncoderSource,
    source: str,
    config: FeatureConfig | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Product]:
    """All tokens of an encoder's output, float16 (N, P, D), for all harmonized shards of a source, by partition.

    Large: 154 kB an ECG of a network with D = 192. P counts the patches of the leads, lead by lead. Raises ValueError
    where a shard's do not fit on the disk.
    """
    config = config or FeatureConfig()
    ready: list[Encoder] = []

    def make(shard: Product, folder: Path) -> dict[str, Any]:
        if not ready:
            ready.append(encoder.loaded().to(config.torch_device).eval())
        leads = None if config.leads is None else config.rows
        signal_NLT = open_shard(shard.path).signals()[:, config.rows]
        # A network of 12 leads adds its own, so the number of tokens is what the first ECG shows.
        with torch.inference_mode():
            first = torch.zeros(1, *signal_NLT.shape[1:], device=config.torch_device)
            shape = (len(signal_NLT), *ready[0](first, leads=leads).shape[1:])
        _require_room(folder, shape)
        out_NPD = np.lib.format.open_memmap(folder / TOKENS_FILE, mode="w+", dtype=np.float16, shape=shape)
        _in_batches(lambda x_BLT: ready[0](x_BLT, leads=leads), signal_NLT, config, out_NPD, progress)
        out_NPD.flush()
        _require_finite(np.array([np.isfinite(one).all() for one in out_NPD], dtype=bool), config)
        return {"records": shape[0], "tokens": shape[1], "dim": shape[2]}

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
    """Asked before: a map of a file onto a full disk kills the process."""
    needed, free = math.prod(shape) * np.dtype(np.float16).itemsize, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"tokens of {shape[0]} ECGs take {format_bytes(needed)} and {format_bytes(free)} are free in {folder}: "
            "make room, name fewer leads, or use a head on features"
        )


def read_features(products: Mapping[str, Product]) -> np.ndarray:
    """float32 (N, D): the features of several partitions, one after another in their order; (0, 0) of none."""
    if not products:
        return np.zeros((0, 0), np.float32)
    return np.concatenate([np.load(p.path / FEATURES_FILE, allow_pickle=False) for p in products.values()])


class Tokens:
    """float16 (N, P, D) on disk: the tokens of several partitions, one after another; `tokens[rows]` reads some."""

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
        """float16 (len(rows), P, D), in the order of `rows`, which are row numbers from 0."""
        found = np.empty((len(rows), *self.shape[1:]), np.float16)
        part_of_row = np.searchsorted(self._first, rows, side="right") - 1
        for part in np.unique(part_of_row):
            here = part_of_row == part
            found[here] = self._parts[part][rows[here] - self._first[part]]
        return found


def read_signals(shards: Mapping[str, Product]) -> np.ndarray:
    """int16 (N, 8, 2500), microvolt: the ECGs of several partitions, one after another in their order."""
    return read_rows([(shard.path, np.arange(len(open_shard(shard.path)))) for shard in shards.values()])


class Rows(Protocol):
    """A value a record, read by row numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


def encoder_and_random_baseline(
    workspace: Workspace, encoder_names: EncoderNames
) -> tuple[EncoderSource, EncoderSource]:
    """An encoder of the workspace, and the same network with its initial weights.

    The random baseline has the seed that the pretraining started from; 0 where that is not known, as of a released
    file.
    """
    encoder = workspace.require(encoder_names.product)
    source = EncoderSource.of_product(encoder_names.probe, encoder)
    seed = EncoderFacts.of(encoder).seed
    return source, EncoderSource.random(encoder_names.random_baseline, source.config, seed)

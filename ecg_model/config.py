"""Configurations of encoders, objectives and masking: frozen dataclasses, checked when they are made, with a digest.

The defaults are the papers': Kim, arXiv 2410.08559, and of S4 and CPC Al-Masud and Strodthoff, arXiv 2605.12241.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Attention = Literal["cropa", "dense"]
Masking = Literal["block", "random"]


def _require(holds: bool, name: str, value: object, remedy: str) -> None:
    if not holds:
        raise ValueError(f"{name}={value!r}: {remedy}")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The network of student and teacher.

    With input_scale and patch_init_scale at 1, as published, the positions dominate the signal of small models for many
    steps.
    """

    dim: int = field(default=768, metadata={"ge": 4})
    """Channels of a token, and of the embedding: a multiple of `heads`, and of 4."""
    depth: int = field(default=12, metadata={"ge": 1})
    """Transformer blocks."""
    heads: int = field(default=16, metadata={"ge": 1})
    """Attention heads."""
    mlp_ratio: float = field(default=4.0, metadata={"gt": 0})
    """Hidden channels of a block's MLP over `dim`."""
    leads: int = field(default=8, metadata={"ge": 1})
    """The 8 independent leads, or 12 as most other ECG encoders read; III, aVR, aVL and aVF follow from I and II."""
    patches: int = field(default=50, metadata={"ge": 1})
    """Columns of the grid: patches of a lead."""
    patch_size: int = field(default=50, metadata={"ge": 1})
    """Samples of a patch; 50 are 200 ms at 250 Hz."""
    drop_path: float = field(default=0.1, metadata={"ge": 0, "lt": 1})
    """Chance that stochastic depth leaves out a branch of the last block; it rises linearly from 0 in the first."""
    input_scale: float = field(default=1.0, metadata={"gt": 0})
    """Factor on the millivolts."""
    patch_init_scale: float = field(default=1.0, metadata={"gt": 0})
    """Factor on the initial weights of the patch projection."""
    attention: Attention = "cropa"
    """`cropa`, or `dense`, the paper's ablation."""

    def __post_init__(self) -> None:
        _check_width(self.dim, self.depth, self.heads, self.mlp_ratio)
        for name in ("leads", "patches", "patch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        _require(0.0 <= self.drop_path < 1.0, "drop_path", self.drop_path, "use a share from 0 to below 1")
        for name in ("input_scale", "patch_init_scale"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "use a positive factor")
        _require(self.attention in get_args(Attention), "attention", self.attention, "use 'cropa' or 'dense'")

    @property
    def samples(self) -> int:
        """Samples of a lead: patches x patch_size."""
        return self.patches * self.patch_size


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """The network that predicts masked columns, lead by lead."""

    dim: int = field(default=384, metadata={"ge": 4})
    """Channels of a token: a multiple of `heads`, and of 4."""
    depth: int = field(default=6, metadata={"ge": 1})
    """Transformer blocks."""
    heads: int = field(default=12, metadata={"ge": 1})
    """Attention heads."""
    mlp_ratio: float = field(default=4.0, metadata={"gt": 0})
    """Hidden channels of a block's MLP over `dim`."""

    def __post_init__(self) -> None:
        _check_width(self.dim, self.depth, self.heads, self.mlp_ratio)


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """The columns that are hidden from the student."""

    kind: Masking = "block"
    """`block`: runs of neighbours, which may overlap; `random`: single columns."""
    ratio: tuple[float, float] = field(default=(0.6, 0.7), metadata={"gt": 0, "lt": 1})
    """Of `random`: range of the share of hidden columns."""
    blocks: int = field(default=4, metadata={"ge": 1})
    """Of `block`: number of runs."""
    block_ratio: tuple[float, float] = field(default=(0.175, 0.225), metadata={"gt": 0, "lt": 1})
    """Of `block`: range of a run's length as a share of the columns."""
    per_record: bool = False
    """False, as published: one mask for a batch. True: a mask for each record, as in I-JEPA (arXiv 2301.08243), all of
    a batch with the same number of hidden columns."""

    def __post_init__(self) -> None:
        _require(self.kind in get_args(Masking), "kind", self.kind, "use 'block' or 'random'")
        for name in ("ratio", "block_ratio"):
            low, high = getattr(self, name)
            _require(0.0 < low <= high < 1.0, name, (low, high), "use two shares between 0 and 1, the lower first")
        _require(self.blocks >= 1, "blocks", self.blocks, "use at least 1")


@dataclass(frozen=True, kw_only=True)
class JEPAConfig:
    """The networks and the masking of a pretraining."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # of student and teacher
    predictor: PredictorConfig = field(default_factory=PredictorConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)


@dataclass(frozen=True, kw_only=True)
class S4EncoderConfig:
    """A convolutional stem and a stack of S4 layers."""

    leads: int = 12  # in the standard order
    samples: int = 600
    """Samples of a lead in training, 2.5 s at 240 Hz: weights belong to this length, and serve any other."""
    token_samples: int = 2  # samples of a token: the stride of the first convolution
    stem_dim: int = 512  # channels of the stem
    stem_depth: int = 4  # convolutions; all but the first see one token
    stem_kernel: int = 3  # samples that the first convolution sees
    dim: int = 512  # channels of a token, and of the embedding
    depth: int = 4  # S4 blocks
    state: int = 8  # states of each channel's linear system
    dropout: float = 0.2  # chance that a channel of a record is left out, at all its tokens
    causal: bool = True  # whether a token sees earlier ones alone; needed by CPC

    def __post_init__(self) -> None:
        for name in ("leads", "token_samples", "stem_dim", "stem_depth", "dim", "depth"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        _require(self.stem_kernel % 2 == 1, "stem_kernel", self.stem_kernel, "use an odd number of samples")
        _require(
            self.samples >= 1 and self.samples % self.token_samples == 0,
            "samples",
            self.samples,
            f"use a multiple of token_samples={self.token_samples}",
        )
        _require(
            self.state >= 2 and self.state % 2 == 0, "state", self.state, "use an even number: states come in pairs"
        )
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "use a share from 0 to below 1")

    @property
    def tokens(self) -> int:
        """Tokens of a training window."""
        return self.samples // self.token_samples


@dataclass(frozen=True, kw_only=True)
class CPCConfig:
    """Contrastive predictive coding: a linear prediction of one later token, against others of the same record."""

    encoder: S4EncoderConfig = field(default_factory=S4EncoderConfig)
    horizon: int = 14  # tokens from the context to the predicted token; 117 ms at 240 Hz
    negatives: int = 128  # other tokens that each prediction is compared with

    def __post_init__(self) -> None:
        for name in ("horizon", "negatives"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        tokens = self.encoder.tokens
        _require(self.horizon < tokens, "horizon", self.horizon, f"use less than the {tokens} tokens of a window")
        _require(self.encoder.causal, "causal", False, "use a causal encoder: another one sees the token to predict")


def _check_width(dim: int, depth: int, heads: int, mlp_ratio: float) -> None:
    _require(depth >= 1, "depth", depth, "use at least 1 block")
    _require(heads >= 1 and dim % heads == 0, "dim", dim, f"use a multiple of heads={heads}")
    _require(dim >= 4 and dim % 4 == 0, "dim", dim, "use a multiple of 4: positions are sine and cosine of two axes")
    _require(1 / dim <= mlp_ratio < math.inf, "mlp_ratio", mlp_ratio, f"use a factor from 1/{dim} of the dim")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as JSON values; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build a config from the values of `to_dict`.

    Raises ValueError for an unknown field, naming the known ones, and for a value of a wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__} made from {values!r}: give an object with its fields")
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {unknown[0]!r}: use {', '.join(hints)}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            arguments[name] = from_dict(hints[name], value)  # pyright: ignore[reportArgumentType]
        elif _fits(value, hints[name]):
            arguments[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise ValueError(f"{name}={value!r}: use a value of type {getattr(hints[name], '__name__', hints[name])}")
    return cls(**arguments)


def _fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is of a field's type. The config class itself checks the choices of a Literal."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and len(value) == len(inner) and all(map(_fits, value, inner))
    if origin is Literal:
        return isinstance(value, str)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint  # not isinstance: True is no int here


def digest(config: Any) -> str:
    """Return the sha256 of a config's canonical JSON: equal exactly if all fields are equal."""
    text = json.dumps(dataclasses.asdict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

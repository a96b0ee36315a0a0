"""Configurations of encoders, objectives and masking: frozen dataclasses, checked when they are made.

The defaults are the papers': Kim, arXiv 2410.08559, and of S4 and CPC Al-Masud and Strodthoff, arXiv 2605.12241.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from ecg_model.standard import RATE

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

    @property
    def window(self) -> int:
        """Samples of a training window at 250 Hz, the rate that this network reads."""
        return self.samples

    def columns(self, samples: int) -> int:
        """Return the tokens of a lead of an ECG of so many samples at 250 Hz."""
        return samples // self.window * self.patches if samples > self.window else samples // self.patch_size

    @property
    def constants(self) -> int:
        """Numbers of the positions, which follow from the sizes."""
        return self.leads * self.patches * self.dim

    @property
    def batch_statistics(self) -> bool:
        """Whether in training an ECG's tokens depend on the others of its batch."""
        return False


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
class S4EncoderConfig:
    """A convolutional stem and a stack of S4 layers."""

    network: Literal["s4"] = "s4"
    """Tells this encoder from the transformer, whose configuration has no such field."""
    leads: int = field(default=12, metadata={"ge": 1})
    """12 in the standard order, of which III, aVR, aVL and aVF follow from I and II, or the 8 independent leads."""
    rate: int = field(default=240, metadata={"ge": 50, "le": 1000})
    """Samples a second that the network reads; ECGs of 250 Hz are resampled where it differs."""
    samples: int = field(default=600, metadata={"ge": 1})
    """Samples of a lead in training, at `rate`: weights belong to this length, and serve any other."""
    token_samples: int = field(default=2, metadata={"ge": 1})
    """Samples of a token: the stride of the first convolution."""
    stem_dim: int = field(default=512, metadata={"ge": 1})
    """Channels of the stem."""
    stem_depth: int = field(default=4, metadata={"ge": 1})
    """Convolutions of the stem; all but the first see one token."""
    stem_kernel: int = field(default=3, metadata={"ge": 1})
    """Samples that the first convolution sees, an odd number."""
    dim: int = field(default=512, metadata={"ge": 1})
    """Channels of a token, and of the embedding."""
    depth: int = field(default=4, metadata={"ge": 1})
    """S4 blocks."""
    state: int = field(default=8, metadata={"ge": 2})
    """States of each channel's linear system, an even number."""
    dropout: float = field(default=0.2, metadata={"ge": 0, "lt": 1})
    """Chance that a channel of a record is left out, at all its tokens."""
    causal: bool = True
    """Whether a token sees earlier ones alone; needed by CPC."""
    input_scale: float = field(default=1.0, metadata={"gt": 0})
    """Factor on the millivolts."""

    def __post_init__(self) -> None:
        _require(self.network == "s4", "network", self.network, "use 's4'")
        _require(self.leads in (8, 12), "leads", self.leads, "use 8 or 12 leads")
        for name in ("token_samples", "stem_dim", "stem_depth", "dim", "depth"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        odd = self.stem_kernel >= 1 and self.stem_kernel % 2 == 1
        _require(odd, "stem_kernel", self.stem_kernel, "use an odd number of samples")
        _require(
            self.samples >= 1 and self.samples % self.token_samples == 0,
            "samples",
            self.samples,
            f"use a multiple of token_samples={self.token_samples}",
        )
        _require(50 <= self.rate <= 1000, "rate", self.rate, "use 50 to 1000 samples a second")
        whole = self.rate // math.gcd(self.rate, RATE)
        _require(
            self.samples % whole == 0,
            "samples",
            self.samples,
            f"use a multiple of {whole}, so that a window is a whole number of samples at {RATE} Hz too",
        )
        _require(
            self.state >= 2 and self.state % 2 == 0, "state", self.state, "use an even number: states come in pairs"
        )
        _require(0.0 <= self.dropout < 1.0, "dropout", self.dropout, "use a share from 0 to below 1")
        _require(0 < self.input_scale < math.inf, "input_scale", self.input_scale, "use a positive factor")

    @property
    def tokens(self) -> int:
        """Tokens of a training window."""
        return self.samples // self.token_samples

    @property
    def window(self) -> int:
        """Samples of a training window at 250 Hz."""
        return self.samples * RATE // self.rate

    def columns(self, samples: int) -> int:
        """Return the tokens of an ECG of so many samples at 250 Hz."""
        if samples > self.window:
            return samples // self.window * self.tokens
        return samples * self.rate // RATE // self.token_samples

    @property
    def constants(self) -> int:
        """Numbers of the discrete systems and of their response, which follow from the sizes."""
        return self.dim * self.state * max(self.state, self.tokens)

    @property
    def batch_statistics(self) -> bool:
        """Whether in training an ECG's tokens depend on the others of its batch: the stem has batch norm."""
        return True


@dataclass(frozen=True, kw_only=True)
class S4PredictorConfig:
    """The network that predicts masked tokens of an S4 encoder: S4 blocks that see both directions."""

    network: Literal["s4"] = "s4"
    """Tells this predictor from the transformer, whose configuration has no such field."""
    depth: int = field(default=1, metadata={"ge": 1})
    """S4 blocks."""
    state: int = field(default=8, metadata={"ge": 2})
    """States of each channel's linear system, an even number."""

    def __post_init__(self) -> None:
        _require(self.network == "s4", "network", self.network, "use 's4'")
        _require(self.depth >= 1, "depth", self.depth, "use at least 1 block")
        _require(
            self.state >= 2 and self.state % 2 == 0, "state", self.state, "use an even number: states come in pairs"
        )


AnyEncoderConfig = EncoderConfig | S4EncoderConfig
"""The configuration of an encoder.

All have dim, leads, window (samples of a lead at 250 Hz), columns, constants and batch_statistics.
"""


@dataclass(frozen=True, kw_only=True)
class JEPAConfig:
    """The joint-embedding predictive architecture: networks and masking."""

    encoder: EncoderConfig | S4EncoderConfig = field(default_factory=EncoderConfig)
    """Student and teacher."""
    predictor: PredictorConfig | S4PredictorConfig = field(default_factory=PredictorConfig)
    """The network that predicts the teacher's tokens, of the same kind as the encoder."""
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    """Columns of patches, or tokens of an S4 encoder, that are hidden."""

    def __post_init__(self) -> None:
        wanted, given = (getattr(part, "network", "transformer") for part in (self.encoder, self.predictor))
        _require(wanted == given, "predictor.network", given, f"use that of the encoder, {wanted!r}")
        name = "ratio" if self.masking.kind == "random" else "block_ratio"
        low, high = getattr(self.masking, name)
        columns = self.encoder.columns(self.encoder.window)
        hides = columns * low >= 1 or columns * high > 1  # a share is rounded down
        _require(hides, f"masking.{name}", (low, high), f"use larger shares: they hide none of {columns} columns")

    @property
    def transformers(self) -> tuple[EncoderConfig, PredictorConfig]:
        """Encoder and predictor of JEPA on patches."""
        assert isinstance(self.encoder, EncoderConfig)
        assert isinstance(self.predictor, PredictorConfig)
        return self.encoder, self.predictor


@dataclass(frozen=True, kw_only=True)
class CPCConfig:
    """Contrastive predictive coding: a linear prediction of one later token, against others of the same record."""

    encoder: S4EncoderConfig = field(default_factory=S4EncoderConfig)
    """The encoder, a causal one."""
    horizon: int = field(default=14, metadata={"ge": 1})
    """Tokens from the context to the predicted token; 117 ms as published."""
    negatives: int = field(default=128, metadata={"ge": 1})
    """Other tokens of the record that each prediction is compared with."""
    blocks_lr: float = field(default=0.1, metadata={"gt": 0})
    """Learning rate of the S4 blocks as a share of that of the head, `peak_lr`."""
    stem_lr: float = field(default=0.01, metadata={"gt": 0})
    """Learning rate of the stem as a share of that of the head, `peak_lr`."""

    def __post_init__(self) -> None:
        for name in ("horizon", "negatives"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "use at least 1")
        for name in ("blocks_lr", "stem_lr"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "use a positive share")
        tokens = self.encoder.tokens
        _require(self.horizon < tokens, "horizon", self.horizon, f"use less than the {tokens} tokens of a window")
        _require(self.encoder.causal, "causal", False, "use a causal encoder: another one sees the token to predict")


def _check_width(dim: int, depth: int, heads: int, mlp_ratio: float) -> None:
    _require(depth >= 1, "depth", depth, "use at least 1 block")
    _require(heads >= 1 and dim % heads == 0, "dim", dim, f"use a multiple of heads={heads}")
    _require(dim >= 4 and dim % 4 == 0, "dim", dim, "use a multiple of 4: positions are sine and cosine of two axes")
    _require(1 / dim <= mlp_ratio < math.inf, "mlp_ratio", mlp_ratio, f"use a factor from 1/{dim} of the dim")

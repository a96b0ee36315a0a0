"""The encoder of ECG-CPC (Al-Masud and Strodthoff, arXiv 2605.12241): a convolutional stem and a stack of S4 layers.

    stem      convolutions without bias, batch norm, ReLU; the first one makes a token of `token_samples` samples
    blocks    x = LayerNorm(x + drop(S4 layer(x)))
    embedding mean over the tokens of the last block

Shapes: B records, C leads, T samples, L tokens, D channels, K blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_model.batch_norm import SharedBatchNorm
from ecg_model.blocks import Recomputable
from ecg_model.config import S4EncoderConfig
from ecg_model.ecg_encoder import ECGEncoder, derived_leads, joined, repeated, windows
from ecg_model.leads import LEADS, LEADS_12
from ecg_model.polyphase import resampled
from ecg_model.s4 import S4, Recurrence
from ecg_model.standard import RATE

_DROPPED = 2  # separates these random numbers from masks and stochastic depth, which have the same seed and step


class StemBlock(nn.Module):
    """Convolution without bias, batch norm, ReLU: (B, C, T) -> (B, D, L)."""

    def __init__(self, channels: int, dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, dim, kernel, stride=stride, padding=(kernel - 1) // 2, bias=False)
        self.norm = SharedBatchNorm(dim)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Transform samples to tokens, channels first."""
        return F.relu(self.norm(self.conv(x_BCT)))


class S4Block(Recomputable):
    """S4, GELU, a linear layer with a gate, residual, LayerNorm: (B, L, D) -> (B, L, D).

    Its factors, (2, B, D), are after GELU and after the gate, the same at all tokens (`tied_dropout`).
    """

    def __init__(self, config: S4EncoderConfig) -> None:
        super().__init__()
        self.s4 = S4(config.dim, config.state, config.tokens, causal=config.causal)
        self.linear = nn.Linear(config.dim, 2 * config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def _compute(self, x: Tensor, factors: Tensor | None) -> Tensor:
        # In one layout, since the backward pass of GELU is slow between two.
        return self.norm(x + self.gated(self.s4(x.mT).mT.contiguous(), factors))

    def gated(self, y_BLD: Tensor, drop_2BD: Tensor | None = None) -> Tensor:
        """Return the branch that is added to the tokens, of what the S4 layer put out, (B, L, D)."""
        y_BLD = F.gelu(y_BLD)
        if drop_2BD is not None:
            y_BLD = y_BLD * drop_2BD[0, :, None].to(y_BLD.dtype)
        y_BLD = F.glu(self.linear(y_BLD), dim=-1)
        return y_BLD if drop_2BD is None else y_BLD * drop_2BD[1, :, None].to(y_BLD.dtype)


class S4Encoder(ECGEncoder[S4EncoderConfig]):
    """A network of ECGs (B, C, T) as `read` gives them, for any whole number of tokens. Called, it gives `tokens`.

    The weights start as PyTorch's convolutions, linear layers and norms do, and as `S4` does.
    """

    def __init__(self, config: S4EncoderConfig) -> None:
        super().__init__()
        self.config = config
        first = StemBlock(config.leads, config.stem_dim, config.stem_kernel, config.token_samples)
        others = (StemBlock(config.stem_dim, config.stem_dim, 1, 1) for _ in range(config.stem_depth - 1))
        self.stem = nn.ModuleList([first, *others])
        alike = config.stem_dim == config.dim
        self.widen = nn.Identity() if alike else nn.Linear(config.stem_dim, config.dim)
        self.blocks = nn.ModuleList(S4Block(config) for _ in range(config.depth))

    @property
    def stem_blocks(self) -> list[StemBlock]:
        """The convolutions of the stem."""
        return cast("list[StemBlock]", list(self.stem))

    @property
    def s4_blocks(self) -> list[S4Block]:
        """The blocks with S4 layers."""
        return cast("list[S4Block]", list(self.blocks))

    def encode(self, x_BCT: Tensor) -> Tensor:
        """Return the stem's tokens (B, L, D), all at least 0. Raises ValueError for other leads or parts of tokens."""
        leads, samples, token = x_BCT.shape[1], x_BCT.shape[2], self.config.token_samples
        if leads != self.config.leads:
            raise ValueError(f"{leads} leads: this encoder reads {self.config.leads}; give these leads")
        if samples % token or not samples:
            raise ValueError(f"{samples} samples: this encoder makes a token of {token}; give a multiple of them")
        for block in self.stem_blocks:
            x_BCT = block(x_BCT)
        return x_BCT.mT

    def context(self, z_BLD: Tensor, drop_K2BD: Tensor | None = None) -> Tensor:
        """Return the tokens (B, L, D) after the blocks, of the stem's tokens."""
        x_BLD = self.widen(z_BLD)
        for number, block in enumerate(self.s4_blocks):
            x_BLD = block(x_BLD, None if drop_K2BD is None else drop_K2BD[number])
        return x_BLD

    def network(self, x_BCT: Tensor, drop_K2BD: Tensor | None = None) -> Tensor:
        """Return the tokens (B, L, D) of a window that was read."""
        return self.context(self.encode(x_BCT), drop_K2BD)

    def forward(self, x_BLT: Tensor, leads: Sequence[int] | None = None, noise_K2B: Tensor | None = None) -> Tensor:
        """Return `tokens`, so that whoever calls a registered encoder as a module gets its input read and scaled."""
        return self.tokens(x_BLT, leads, noise_K2B)

    def read(self, x_BLT: Tensor, leads: Sequence[int] | None = None) -> Tensor:
        """Return the network's input (B, C, T') of ECGs, see `ECGEncoder.tokens`: its leads, its rate, its scale.

        A lead that is not given is zeros, and so are those that follow from it. Raises ValueError if rows are no leads.
        """
        rows = list(range(len(LEADS))) if leads is None else list(leads)
        if x_BLT.ndim != 3 or x_BLT.shape[1] != len(rows):
            raise ValueError(f"ECGs of shape {tuple(x_BLT.shape)}: give (records, {len(rows)} leads, samples)")
        if not rows or len(set(rows)) != len(rows) or not set(rows) <= set(range(len(LEADS))):
            raise ValueError(f"leads={rows}: name some of 0..{len(LEADS) - 1}, each once")
        if leads is not None:
            x_B8T = x_BLT.new_zeros(len(x_BLT), len(LEADS), x_BLT.shape[2])
            x_B8T[:, rows] = x_BLT
            x_BLT = x_B8T
        if self.config.leads == len(LEADS_12):
            limb_B2T = x_BLT[:, :2]
            derived_B4T = (
                derived_leads(limb_B2T) if {0, 1} <= set(rows) else x_BLT.new_zeros(limb_B2T.shape).repeat(1, 2, 1)
            )
            x_BLT = torch.cat([limb_B2T, derived_B4T, x_BLT[:, 2:]], dim=1)
        return resampled(x_BLT, RATE, self.config.rate) * self.config.input_scale

    def tokens(self, x_BLT: Tensor, leads: Sequence[int] | None = None, noise_K2B: Tensor | None = None) -> Tensor:
        """Return the tokens (B, N, D) in the order of time, see `ECGEncoder`."""
        x_BCT, config = self.read(x_BLT, leads), self.config
        if x_BCT.shape[-1] <= config.samples:  # weights fit any length
            return self.network(x_BCT[..., : x_BCT.shape[-1] // config.token_samples * config.token_samples], noise_K2B)
        windows_BCT, records = windows(x_BCT, config.samples), len(x_BCT)
        noise_K2B = repeated(noise_K2B, len(windows_BCT) // records)
        return joined(self.network(windows_BCT, noise_K2B), records, config.tokens)

    def noise(self, records: int, *, seed: int, step: int) -> NDArray[np.float32] | None:
        """Draw the factors of tied dropout, (K, 2, B, D)."""
        return tied_dropout(self.config, records, seed=seed, step=step)

    def readable(self, samples: int) -> int:
        """Return all samples, or 0 if they are fewer than a token has."""
        return samples if self.config.columns(min(samples, self.config.window)) else 0

    def layers_above(self, weight: str) -> int:
        """Return 1 for the stem, 0 for the S4 blocks."""
        return int(weight.startswith("stem."))


class Stream:
    """An encoder in eval mode that is fed token by token, as samples arrive; equal to the whole at once.

    A token also sees the last sample before its own and, with a kernel of 3, none after its own. Without gradient.
    """

    def __init__(self, encoder: S4Encoder, records: int) -> None:
        config = encoder.config
        if encoder.training:
            raise ValueError("the encoder is in training mode, with statistics of the batch: call encoder.eval()")
        if (config.stem_kernel - 1) // 2 >= config.token_samples:
            raise ValueError(
                f"stem_kernel={config.stem_kernel}: a token of {config.token_samples} samples would see later ones"
            )
        self._encoder = encoder
        self._layers = [Recurrence(block.s4, records) for block in encoder.s4_blocks]
        before, parameter = (config.stem_kernel - 1) // 2, next(encoder.parameters())
        self._before_BCT = parameter.new_zeros(records, config.leads, before)

    @torch.no_grad()
    def __call__(self, x_BCT: Tensor) -> Tensor:
        """Take the samples of one token, (B, C, token_samples), and return the token, (B, D)."""
        token = self._encoder.config.token_samples
        if x_BCT.shape != (*self._before_BCT.shape[:2], token):
            raise ValueError(f"samples of shape {tuple(x_BCT.shape)}: give {token} samples of each lead and record")
        before = self._before_BCT.shape[-1]
        window_BCT = torch.cat([self._before_BCT, x_BCT], dim=-1)
        self._before_BCT = window_BCT[..., window_BCT.shape[-1] - before :]
        first, *others = self._encoder.stem_blocks
        z_BDL = F.relu(first.norm(F.conv1d(window_BCT, first.conv.weight, stride=token)))
        for block in others:
            z_BDL = block(z_BDL)
        x_B1D = self._encoder.widen(z_BDL.mT)
        for block, layer in zip(self._encoder.s4_blocks, self._layers, strict=True):
            x_B1D = block.norm(x_B1D + block.gated(layer(x_B1D[:, 0])[:, None]))
        return x_B1D[:, 0]


def tied_dropout(config: S4EncoderConfig, records: int, *, seed: int, step: int) -> NDArray[np.float32] | None:
    """Return float32 (K, 2, records, D): factors on channels after GELU and after the gate, the same at all tokens.

    0 if a channel is left out, else 1 over its chance to stay. A pure function of the seed and the step. Returns None
    if `dropout` is 0.
    """
    if config.dropout == 0.0:
        return None
    rng = np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=(_DROPPED,)))
    keep = 1.0 - config.dropout
    return ((rng.random((config.depth, 2, records, config.dim)) < keep) / keep).astype(np.float32)

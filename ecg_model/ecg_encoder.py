"""What all encoders have in common: harmonized ECGs in, tokens and an embedding out.

Shapes: B records, L leads, T samples, W windows of a record, N tokens, P tokens of a row, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_model.config import AnyEncoderConfig

Config = TypeVar("Config", bound=AnyEncoderConfig)
RECORDS_AXIS = 2
"""The axis of the records in what `ECGEncoder.noise` draws."""


class ECGEncoder(nn.Module, ABC, Generic[Config]):
    """A network that reads harmonized ECGs: millivolt, 250 Hz, the leads of `leads.LEADS` or some of them."""

    config: Config

    @abstractmethod
    def tokens(self, x_BLT: Tensor, leads: Sequence[int] | None = None, noise_K2B: Tensor | None = None) -> Tensor:
        """Return the tokens (B, N, D) of ECGs, row by row if the network has a row of tokens for each lead.

        An ECG that is longer than the window of training is cut into windows; what is left over is not read.

        x_BLT: float (B, L, T) millivolt, 250 Hz.
        leads: the rows of `leads.LEADS` that those of x_BLT are; None for all in order.
        noise_K2B: see `noise`, for training.

        Raises ValueError if the network cannot take such ECGs.
        """

    def embed(self, x_BLT: Tensor, leads: Sequence[int] | None = None) -> Tensor:
        """Return the embedding of each ECG, (B, D): the mean over all its tokens, and so over its windows."""
        return self.tokens(x_BLT, leads=leads).mean(dim=1)

    @abstractmethod
    def noise(self, records: int, *, seed: int, step: int) -> NDArray[np.float32] | None:
        """Draw the factors on the branches of each block that regularise training, (K, 2, B) or (K, 2, B, D).

        A pure function of the seed and the step. Returns None if the configuration has none.
        """

    @abstractmethod
    def layers_above(self, weight: str) -> int:
        """Return how many groups of layers are above that of a weight: 0 for the upper group, 1 for the lower one.

        Fine-tuning gives lower groups lower learning rates.
        """

    def readable(self, samples: int) -> int:
        """Return how many of the samples of an ECG that is shorter than a window are read."""
        return samples

    def compute_constants(self) -> None:
        """Compute the tensors that follow from the configuration and are not among the weights; without them: none."""


def windows(x_BLT: Tensor, samples: int) -> Tensor:
    """Cut ECGs into consecutive windows, (B, L, T) -> (B * W, L, samples), record by record; the rest is left out."""
    count = x_BLT.shape[-1] // samples
    return x_BLT[..., : count * samples].unflatten(-1, (count, samples)).transpose(1, 2).flatten(0, 1)


def joined(tokens_BND: Tensor, records: int, columns: int) -> Tensor:
    """Put the tokens of windows together, (B * W, N, D) -> (B, W * N, D), row by row.

    columns: P, the tokens of a row in a window.
    """
    grid_BWRPD = tokens_BND.unflatten(1, (-1, columns)).unflatten(0, (records, -1))
    return grid_BWRPD.transpose(1, 2).flatten(1, 3)


def repeated(noise_K2B: Tensor | None, times: int) -> Tensor | None:
    """Return the noise of records for each of their windows."""
    return None if noise_K2B is None else noise_K2B.repeat_interleave(times, dim=RECORDS_AXIS)


def derived_leads(limb_B2T: Tensor) -> Tensor:
    """Compute the leads `leads.DERIVED` from I and II, (B, 2, T) -> (B, 4, T)."""
    i_BT, ii_BT = limb_B2T.unbind(1)
    return torch.stack([ii_BT - i_BT, -(i_BT + ii_BT) / 2, i_BT - ii_BT / 2, ii_BT - i_BT / 2], dim=1)

"""Where an encoder's tokens lie in an ECG: in which row, and over which of its samples.

An encoder on patches has a row of tokens for each lead. One that mixes the leads in its first layer has one row for all
of them. A token spans the samples of a window over the tokens of a window, which may be no whole number, such as 25/12
at 240 Hz.

Shapes: B records, R rows, P tokens of a row, L leads that have waves, T samples, S steps of a token, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ecg_model.config import AnyEncoderConfig, EncoderConfig
from pipelines.formats.shard import RATE, SAMPLES

_STRETCH = 50
"""Samples of a stretch of context for tokens of all leads: a patch of 200 ms, so that encoders see the same time."""


@dataclass(frozen=True, kw_only=True)
class TokenGrid:
    """The tokens of an ECG of ten seconds."""

    columns: int
    """P"""
    span: Fraction
    """Samples of a token, at the store's rate."""
    shared: bool = False
    """Whether there is one row for all leads, R = 1."""
    samples: int = SAMPLES
    """T"""

    @classmethod
    def of(cls, config: AnyEncoderConfig) -> TokenGrid:
        """Return the grid of an encoder. Raises ValueError if it has no token for a part of an ECG of ten seconds."""
        columns, span = config.columns(SAMPLES), Fraction(config.window, config.columns(config.window))
        unread = SAMPLES - columns * span
        if columns == 0 or unread >= span:
            raise ValueError(
                f"windows of {config.window / RATE:g} s with tokens of {float(span) / RATE:g} s: the last "
                f"{float(unread) / RATE:g} s of {SAMPLES / RATE:g} s have no token to tell P, QRS and T from: segment "
                f"by an encoder whose windows fill {SAMPLES / RATE:g} s, such as 2.5, 5 or 10 s"
            )
        return cls(columns=columns, span=span, shared=not isinstance(config, EncoderConfig))

    @property
    def steps(self) -> int:
        """Times that a token is mapped to, S: a time for each of its samples."""
        return math.ceil(self.span)

    def neighbours(self, context: int) -> int:
        """Return how many tokens on each side make so much context: stretches of 200 ms if the row is shared."""
        return context * max(1, round(_STRETCH / self.span)) if self.shared else context

    def rows(self, token_BND: Tensor, leads: Sequence[int]) -> Tensor:
        """Return the tokens of leads, (B, L, P, D), or those of all leads together, (B, P, D)."""
        return token_BND if self.shared else token_BND.unflatten(1, (-1, self.columns))[:, list(leads)]

    def step_of_sample(self) -> Tensor | None:
        """Return which of the P * S steps each sample lies in, int64 (T,); None if each has one of its own, in order.

        Samples behind the last token, fewer than a token has, lie in the last step.
        """
        if self.columns * self.steps == self.samples:
            return None
        at_T = np.arange(self.samples) * self.steps * self.span.denominator // self.span.numerator
        return torch.from_numpy(np.minimum(at_T, self.columns * self.steps - 1))

"""What a head reads of an encoder: the mean over its tokens, or the tokens that a query attends to.

Shapes: B records, L the eight leads of LEADS, T samples, P tokens, D channels, H heads of a query, F features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecg_model.ecg_encoder import ECGEncoder


@dataclass(frozen=True, kw_only=True)
class Reader:
    """An encoder, how its input is filtered, and what is read of its output."""

    encoder: ECGEncoder
    query_HD: NDArray[Any] | None = None
    """Direction that each head of an attention pool looks for in a token; None reads the mean over the tokens."""
    prepare: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
    """Changes ECGs (B, L, T) as they were changed in training, if they were."""

    @property
    def width(self) -> int:
        """The number of features, F: D for the mean, H * D for a query."""
        return self.encoder.config.dim * (1 if self.query_HD is None else len(self.query_HD))

    def features(self, x_BLT: NDArray[np.float32]) -> NDArray[np.float32]:
        """Read prepared ECGs on the encoder's device, (B, L, T) millivolt at 250 Hz -> (B, F)."""
        device = next(self.encoder.parameters()).device
        if self.prepare is not None:
            x_BLT = self.prepare(x_BLT)
        with torch.inference_mode():
            ecg_BLT = torch.from_numpy(x_BLT).to(device)
            if self.query_HD is None:
                return self.encoder.embed(ecg_BLT).float().cpu().numpy()
            x_BPD = self.encoder.tokens(ecg_BLT).half().float()  # a query is fitted to stored tokens, which are float16
            query_HD = torch.from_numpy(self.query_HD).to(device).float()
            return (attention(query_HD, x_BPD) @ x_BPD).flatten(1).cpu().numpy()


def attention(query_HD: Tensor, x_BPD: Tensor) -> Tensor:
    """Return the heads' weights of the tokens, (B, H, P); each row sums to one."""
    return (x_BPD @ query_HD.T).transpose(1, 2).softmax(dim=-1)

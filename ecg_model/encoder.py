"""The transformer on patches: patches of 200 ms of every lead, positions before every block, CroPA.

Shapes: B records, L leads, T samples, P columns (patches of a lead), N = L * P tokens (lead-major), D channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_model import attention
from ecg_model.blocks import Block, initialise, positions_2d
from ecg_model.config import EncoderConfig
from ecg_model.ecg_encoder import ECGEncoder, derived_leads, joined, repeated, windows
from ecg_model.leads import DERIVED, LEADS
from ecg_model.stochastic_depth import drop_path_scale


class Encoder(ECGEncoder[EncoderConfig]):
    """Vision transformer on the grid of leads and patches. Input: millivolt, 250 Hz, the leads of `leads.LEADS`.

    A network of 12 leads takes the same input: it computes III, aVR, aVL and aVF from I and II, as its rows 8..11.
    """

    positions_LPD: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        attend = attention.cropa if config.attention == "cropa" else attention.dense
        self.patch = nn.Linear(config.patch_size, config.dim)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.mlp_ratio, attend) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-5)
        self.register_buffer("positions_LPD", None, persistent=False)
        self.compute_constants()
        initialise(self, self.blocks)
        with torch.no_grad():
            self.patch.weight.mul_(config.patch_init_scale)

    def forward(
        self,
        x_BLT: Tensor,
        visible_V: Tensor | None = None,
        leads: Sequence[int] | None = None,
        scale_K2B: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens (B, N, D) after the final LayerNorm.

        x_BLT: float (B, L, T) millivolt; T may be any number of whole patches up to the configured one.
        visible_V: the columns to keep, int64, ascending, (V,) or (B, V); None for all.
        leads: the configured leads that the rows of x_BLT are; None for all in order.
        scale_K2B: stochastic depth (`ecg_model.stochastic_depth`), for training.

        Raises ValueError if a shape fits neither the configuration nor `leads`.
        """
        x_BLT, leads = self._with_derived_leads(x_BLT, leads)
        self._require_shape(x_BLT, leads)
        x_BLPS = x_BLT.unflatten(-1, (-1, self.config.patch_size)) * self.config.input_scale
        # Indexed only if leads are named: copying the index to the device makes the host wait.
        positions_LPD = self.positions_LPD if leads is None else self.positions_LPD[list(leads)]
        positions_BLPD = positions_LPD[None, :, : x_BLPS.shape[2]]
        if visible_V is not None:
            x_BLPS = take_columns(x_BLPS, visible_V)
            positions_BLPD = take_columns(positions_BLPD, visible_V)
        x_BLPD = self.patch(x_BLPS)
        for number, block in enumerate(self.blocks):
            x_BLPD = block(x_BLPD + positions_BLPD, None if scale_K2B is None else scale_K2B[number])
        return self.norm(x_BLPD).flatten(1, 2)

    def compute_constants(self) -> None:
        """Compute the positions."""
        self.positions_LPD = positions_2d(self.config.leads, self.config.patches, self.config.dim)

    def tokens(self, x_BLT: Tensor, leads: Sequence[int] | None = None, noise_K2B: Tensor | None = None) -> Tensor:
        """Return the tokens (B, N, D), lead by lead, see `ECGEncoder`."""
        window = self.config.window
        if x_BLT.ndim != 3 or x_BLT.shape[-1] <= window:
            return self(x_BLT, leads=leads, scale_K2B=noise_K2B)
        windows_BLT, records = windows(x_BLT, window), len(x_BLT)
        noise_K2B = repeated(noise_K2B, len(windows_BLT) // records)
        return joined(self(windows_BLT, leads=leads, scale_K2B=noise_K2B), records, self.config.patches)

    def noise(self, records: int, *, seed: int, step: int) -> NDArray[np.float32] | None:
        """Draw the factors of stochastic depth, (K, 2, B)."""
        return drop_path_scale(self.config, records, seed=seed, step=step)

    def layers_above(self, weight: str) -> int:
        """Return 1 for the patch projection and the lower quarter of the blocks, else 0."""
        part, *rest = weight.split(".")
        return int(part == "patch" or (part == "blocks" and int(rest[0]) < self.config.depth // 4))

    def readable(self, samples: int) -> int:
        """Return the samples of whole patches."""
        return min(samples // self.config.patch_size, self.config.patches) * self.config.patch_size

    def _with_derived_leads(self, x_BLT: Tensor, leads: Sequence[int] | None) -> tuple[Tensor, Sequence[int] | None]:
        """Add rows III, aVR, aVL and aVF for a network of 12 leads, if I and II are given and they are not."""
        if self.config.leads != len(LEADS) + len(DERIVED) or x_BLT.ndim != 3:
            return x_BLT, leads
        independent = list(range(len(LEADS)))
        if leads is None and x_BLT.shape[1] == len(LEADS):
            return torch.cat([x_BLT, derived_leads(x_BLT[:, :2])], dim=1), None
        if leads is not None and {0, 1} <= set(leads) <= set(independent) and x_BLT.shape[1] == len(leads):
            limb_B2T = x_BLT[:, [list(leads).index(0), list(leads).index(1)]]
            rows = range(len(LEADS), len(LEADS) + len(DERIVED))
            return torch.cat([x_BLT, derived_leads(limb_B2T)], dim=1), [*leads, *rows]
        return x_BLT, leads

    def _require_shape(self, x_BLT: Tensor, leads: Sequence[int] | None) -> None:
        """Raise ValueError if ECGs or leads do not fit the configuration."""
        config = self.config
        rows = list(range(config.leads)) if leads is None else list(leads)
        if x_BLT.ndim != 3 or x_BLT.shape[1] != len(rows):
            raise ValueError(f"ECGs of shape {tuple(x_BLT.shape)}: give (records, {len(rows)} leads, samples)")
        if not rows or len(set(rows)) != len(rows) or not all(0 <= row < config.leads for row in rows):
            raise ValueError(f"leads={rows}: name some of 0..{config.leads - 1}, each once")
        samples = x_BLT.shape[2]
        if samples == 0 or samples % config.patch_size or samples > config.samples:
            raise ValueError(
                f"ECGs of {samples} samples: give a multiple of {config.patch_size}, at most {config.samples}"
            )


def take_columns(x_BLPD: Tensor, columns: Tensor) -> Tensor:
    """Select columns, (B, L, P, D) -> (B, L, V, D): the same for all records (V,), or each record's own (B, V)."""
    if columns.ndim == 1:
        return x_BLPD.index_select(2, columns)
    x_BLPD = x_BLPD.expand(len(columns), -1, -1, -1)
    index = columns[:, None, :, None].expand(-1, x_BLPD.shape[1], -1, x_BLPD.shape[3])
    return x_BLPD.gather(2, index)

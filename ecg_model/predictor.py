"""The predictor: from the visible tokens of a lead, it predicts the teacher's tokens at the masked columns.

Shapes: B records, L leads, V visible and M masked columns, P = V + M, D channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecg_model.attention import per_lead
from ecg_model.blocks import STD, Block, initialise, positions_2d
from ecg_model.config import EncoderConfig, PredictorConfig


class Predictor(nn.Module):
    """A narrow transformer that sees one lead at a time."""

    positions_PD: Tensor

    def __init__(self, config: PredictorConfig, encoder: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Linear(encoder.dim, config.dim)
        self.mask_token = nn.Parameter(torch.empty(config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, config.mlp_ratio, per_lead) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=1e-5)
        self.proj = nn.Linear(config.dim, encoder.dim)
        # The published grid is 1 x P, so the lead's half of the channels is constant.
        self.register_buffer("positions_PD", positions_2d(1, encoder.patches, config.dim)[0], persistent=False)
        initialise(self, self.blocks)
        nn.init.trunc_normal_(self.mask_token, std=STD)

    def forward(self, context_BLVD: Tensor, visible_V: Tensor, masked_M: Tensor) -> Tensor:
        """Return (B, L, P, D of the encoder): first the visible columns, then the masked ones, each in ascending order.

        context_BLVD: the encoder's tokens at the visible columns.
        visible_V, masked_M: int64, the same for all records (V,), (M,) or each record's own (B, V), (B, M).
        """
        x_BLVD = self.embed(context_BLVD)
        batch, leads = x_BLVD.shape[:2]
        tokens_BLMD = self.mask_token.to(x_BLVD.dtype).expand(batch, leads, masked_M.shape[-1], -1)
        x_BLPD = torch.cat([x_BLVD, tokens_BLMD], dim=2)
        positions = self.positions_PD[torch.cat([visible_V, masked_M], dim=-1)]  # (P, D) or (B, P, D)
        positions_BLPD = positions[None, None] if positions.ndim == 2 else positions[:, None]
        for block in self.blocks:
            x_BLPD = block(x_BLPD + positions_BLPD)
        return self.proj(self.norm(x_BLPD))

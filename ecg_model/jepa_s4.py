"""JEPA on an S4 encoder, which has to see a place for every token: hidden ones are a learned token.

The stem's tokens that are hidden from the student are replaced before its S4 blocks; S4 blocks that see both directions
predict the teacher's tokens there (arXiv 2605.12241 has one such block).

Shapes: B records, C leads, T samples, L tokens, V visible and M masked ones, D channels.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ecg_model.config import JEPAConfig, S4EncoderConfig, S4PredictorConfig
from ecg_model.encoder import take_columns
from ecg_model.s4_encoder import S4Block, S4Encoder


class S4Predictor(nn.Module):
    """S4 blocks on the student's tokens and a projection: (B, L, D) -> (B, L, D). Has the token that hides others."""

    def __init__(self, config: S4PredictorConfig, encoder: S4EncoderConfig) -> None:
        super().__init__()
        self.config = config
        block = replace(encoder, state=config.state, causal=False)
        self.blocks = nn.ModuleList(S4Block(block) for _ in range(config.depth))
        self.proj = nn.Linear(encoder.dim, encoder.dim)
        self.hidden = nn.Parameter(torch.zeros(encoder.stem_dim))

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Predict the teacher's tokens."""
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.proj(x_BLD)


class S4JEPA(nn.Module):
    """Student, predictor and teacher, as S4 encoders. The teacher starts as a copy and has no gradient."""

    def __init__(self, config: JEPAConfig) -> None:
        super().__init__()
        assert isinstance(config.encoder, S4EncoderConfig)
        assert isinstance(config.predictor, S4PredictorConfig)
        self.config = config
        self.student = S4Encoder(config.encoder)
        self.predictor = S4Predictor(config.predictor, config.encoder)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> S4JEPA:
        """Set the mode of student and predictor; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def targets(self, x_BCT: Tensor) -> Tensor:
        """Return (B, L, D): the teacher's tokens, layer-normed once more without affine."""
        with torch.no_grad():
            tokens_BLD = self.teacher.network(x_BCT)
            return F.layer_norm(tokens_BLD.float(), tokens_BLD.shape[-1:], eps=1e-5)

    def forward(self, x_BCT: Tensor, visible_V: Tensor, masked_M: Tensor, drop_K2BD: Tensor | None = None) -> Tensor:
        """Return the loss: smooth-L1 (beta 1), the mean over the masked tokens and their channels, float32 ().

        x_BCT: float (B, C, T) as `S4Encoder.read` gives it.
        visible_V, masked_M: int64 token indices, as `JEPA.forward` takes columns.
        drop_K2BD: the student's tied dropout.
        """
        targets_BMD = _take(self.targets(x_BCT), masked_M)
        z_BLD = self.student.encode(x_BCT)
        masked_BM = masked_M.expand(len(z_BLD), -1)
        hidden_BL = torch.zeros(z_BLD.shape[:2], dtype=torch.bool, device=z_BLD.device).scatter(1, masked_BM, True)
        z_BLD = torch.where(hidden_BL[..., None], self.predictor.hidden.to(z_BLD.dtype), z_BLD)
        predicted_BLD = self.predictor(self.student.context(z_BLD, drop_K2BD))
        return F.smooth_l1_loss(_take(predicted_BLD, masked_M).float(), targets_BMD)

    @torch.no_grad()
    def ema_update_(self, momentum: float) -> None:
        """Update the teacher in place by a moving average of the weights; its batch statistics are the student's."""
        get_ema_multi_avg_fn(momentum)(list(self.teacher.parameters()), list(self.student.parameters()), None)
        for ours, theirs in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            ours.copy_(theirs)


def _take(x_BLD: Tensor, tokens: Tensor) -> Tensor:
    """Select tokens, (B, L, D) -> (B, M, D): the same for all records (M,), or each record's own (B, M)."""
    return take_columns(x_BLD[:, None], tokens)[:, 0]

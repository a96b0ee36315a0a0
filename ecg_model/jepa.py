"""The objective: a student that sees some columns predicts the tokens of a teacher, its moving average, at the others.

Shapes: B records, L leads, T samples, V visible and M masked columns, D channels.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ecg_model.config import JEPAConfig
from ecg_model.encoder import Encoder, take_columns
from ecg_model.predictor import Predictor


class JEPA(nn.Module):
    """Student, predictor and teacher, as transformers on patches.

    The teacher starts as a copy of the student and has no gradient. Its stochastic depth is off, unlike in the released
    code.
    """

    def __init__(self, config: JEPAConfig) -> None:
        super().__init__()
        self.config = config
        encoder, predictor = config.transformers
        self.student = Encoder(encoder)
        self.predictor = Predictor(predictor, encoder)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> JEPA:
        """Set the mode of student and predictor; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def targets(self, x_BLT: Tensor) -> Tensor:
        """Return (B, L, P, D): the teacher's tokens of all columns, layer-normed once more without affine."""
        with torch.no_grad():
            tokens_BND = self.teacher(x_BLT)
            targets_BND = F.layer_norm(tokens_BND.float(), tokens_BND.shape[-1:], eps=1e-5)
        return targets_BND.unflatten(1, (self.config.encoder.leads, -1))

    def predict(self, x_BLT: Tensor, visible_V: Tensor, masked_M: Tensor, scale_K2B: Tensor | None = None) -> Tensor:
        """Return (B, L, P, D): the predictor's tokens, the visible columns first, then the masked ones."""
        context_BND = self.student(x_BLT, visible_V, scale_K2B=scale_K2B)
        return self.predictor(context_BND.unflatten(1, (self.config.encoder.leads, -1)), visible_V, masked_M)

    def forward(self, x_BLT: Tensor, visible_V: Tensor, masked_M: Tensor, scale_K2B: Tensor | None = None) -> Tensor:
        """Return the loss: smooth-L1 (beta 1), the mean over the masked tokens and their channels, float32 ().

        x_BLT: float (B, L, T) millivolt.
        visible_V, masked_M: int64 column indices, ascending, together all columns: (V,), (M,) for all records alike, or
            each record's own (B, V), (B, M).
        scale_K2B: the student's stochastic depth.
        """
        # The teacher first: its memory is free again before the student's is needed for the backward pass.
        targets_BLMD = take_columns(self.targets(x_BLT), masked_M)
        predicted_BLMD = self.predict(x_BLT, visible_V, masked_M, scale_K2B)[:, :, visible_V.shape[-1] :]
        return F.smooth_l1_loss(predicted_BLMD.float(), targets_BLMD)

    @torch.no_grad()
    def ema_update_(self, momentum: float) -> None:
        """Update the teacher in place: teacher = momentum * teacher + (1 - momentum) * student, over all weights."""
        update = get_ema_multi_avg_fn(momentum)
        update(list(self.teacher.parameters()), list(self.student.parameters()), None)


def split_columns(mask_P: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of visible and of masked columns, int64, ascending: (V,), (M,) or (B, V), (B, M).

    mask_P: bool (P,) or (B, P), True for masked columns, equally many in each row.
    """
    columns = torch.arange(mask_P.shape[-1], device=mask_P.device).expand(mask_P.shape)
    rows = mask_P.shape[:-1]
    return columns[~mask_P].reshape(*rows, -1), columns[mask_P].reshape(*rows, -1)

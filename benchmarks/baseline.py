"""A pretraining step as the released code does it, the baseline of the benchmarks.

Dense scores of all tokens, a mask built in Python at every forward, float32 on a CPU (float16 autocast on a GPU). The
weights, the objective and the optimizer are ours, so that only the way of computing differs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ecg_model.blocks import Block
from ecg_model.config import JEPAConfig
from ecg_model.encoder import Encoder
from ecg_model.jepa import JEPA


def as_released(config: JEPAConfig) -> JEPA:
    """Return our networks, with encoders that compute as the released code's."""
    model = JEPA(config)
    student, teacher = (DenseEncoder(config.transformers[0]) for _ in range(2))
    student.load_state_dict(model.student.state_dict())
    teacher.load_state_dict(model.teacher.state_dict())
    model.student, model.teacher = student, teacher.requires_grad_(False).eval()
    return model


class DenseEncoder(Encoder):
    """Our encoder with the released code's attention, whose mask is built again for each forward."""

    def forward(
        self,
        x_BLT: Tensor,
        visible_V: Tensor | None = None,
        leads: Sequence[int] | None = None,
        scale_K2B: Tensor | None = None,
    ) -> Tensor:
        columns = self.config.patches if visible_V is None else len(visible_V)
        mask = mask_by_loops(x_BLT.shape[1], columns).to(x_BLT.device)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attend = lambda q, k, v: masked_attention(q, k, v, mask)
        return super().forward(x_BLT, visible_V, leads, scale_K2B)


def mask_by_loops(leads: int, columns: int) -> Tensor:
    """Return bool (L * P, L * P), built token by token: True at [i, j] if token i attends to token j."""
    mask = torch.zeros(leads * columns, leads * columns, dtype=torch.bool)
    for token in range(leads * columns):
        lead, column = divmod(token, columns)
        mask[token, lead * columns : (lead + 1) * columns] = True
        mask[token, column::columns] = True
    return mask


def masked_attention(q_BHLPE: Tensor, k_BHLPE: Tensor, v_BHLPE: Tensor, mask: Tensor) -> Tensor:
    """Compute all scores, then the mask, then the softmax, (B, H, L, P, E) -> (B, H, L, P, E)."""
    q, k, v = (x.flatten(2, 3) for x in (q_BHLPE, k_BHLPE, v_BHLPE))
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return (weights @ v).view_as(q_BHLPE)

"""Cross-pattern attention (CroPA): a token attends to its own lead and its own column, under one softmax.

Tokens lie on a grid of leads and columns (patches of 200 ms). Token (c, i) sees (c', i') where c = c' or i = i':
57 of 400 keys at 8 leads and 50 columns. The two axes are scored separately and joined in the softmax, with the token
itself once, so the 400 x 400 scores are never built. A mask removes whole columns, so the grid stays rectangular.

Shapes: B records, H heads, L leads, P columns, E channels a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROW = 32
"""Rows of scores are padded to a multiple of this: a CPU's softmax of 58 bfloat16 numbers takes three times as long as
one of 64, and rows aligned to 16 bytes suit a GPU's matrix units."""


def cropa(q_BHLPE: Tensor, k_BHLPE: Tensor, v_BHLPE: Tensor) -> Tensor:
    """Compute exact CroPA, (B, H, L, P, E) -> (B, H, L, P, E)."""
    leads, columns, channels = q_BHLPE.shape[-3:]
    q_BHLPE = q_BHLPE * channels**-0.5
    along_lead = q_BHLPE @ k_BHLPE.mT  # (B, H, L, P, P)
    across_leads = q_BHLPE.transpose(2, 3) @ k_BHLPE.transpose(2, 3).mT  # (B, H, P, L, L)
    # The token's own key is among those along its lead already; it must count once.
    itself = torch.eye(leads, dtype=torch.bool, device=q_BHLPE.device)
    across_leads = across_leads.masked_fill(itself, float("-inf")).transpose(2, 3)  # (B, H, L, P, L)
    unused = along_lead.new_full((), float("-inf")).expand(*along_lead.shape[:-1], -(columns + leads) % _ROW)
    # One softmax over both axes, with the padding between them at minus infinity.
    weights = torch.cat([along_lead, unused, across_leads], dim=-1).softmax(dim=-1)
    along_lead, _, across_leads = weights.split([columns, unused.shape[-1], leads], dim=-1)
    return along_lead @ v_BHLPE + (across_leads.transpose(2, 3) @ v_BHLPE.transpose(2, 3)).transpose(2, 3)


def dense_cropa(q_BHLPE: Tensor, k_BHLPE: Tensor, v_BHLPE: Tensor) -> Tensor:
    """Compute CroPA as published: all scores, then a mask. Test oracle of `cropa`, and baseline of the benchmarks."""
    leads, columns = q_BHLPE.shape[-3:-1]
    mask = cropa_mask(leads, columns, q_BHLPE.device)
    q, k, v = (x.flatten(2, 3) for x in (q_BHLPE, k_BHLPE, v_BHLPE))
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    return (scores.masked_fill(~mask, float("-inf")).softmax(dim=-1) @ v).view_as(q_BHLPE)


def cropa_mask(leads: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Return bool (L * P, L * P), lead-major: True at [i, j] if token i attends to token j."""
    token = torch.arange(leads * columns, device=device)
    lead, column = token // columns, token % columns
    return (lead[:, None] == lead) | (column[:, None] == column)


def dense(q_BHLPE: Tensor, k_BHLPE: Tensor, v_BHLPE: Tensor) -> Tensor:
    """Compute attention of every token to every token (the paper's ablation), (B, H, L, P, E) -> (B, H, L, P, E)."""
    q, k, v = (x.flatten(2, 3) for x in (q_BHLPE, k_BHLPE, v_BHLPE))
    return F.scaled_dot_product_attention(q, k, v).view_as(q_BHLPE)


def per_lead(q_BHLPE: Tensor, k_BHLPE: Tensor, v_BHLPE: Tensor) -> Tensor:
    """Compute attention of every token to its own lead, (B, H, L, P, E) -> (B, H, L, P, E)."""
    # Plain products: with 50 keys a row the fused CPU kernels cost twice to six times as much, forward and backward.
    scores = (q_BHLPE * q_BHLPE.shape[-1] ** -0.5) @ k_BHLPE.mT
    return scores.softmax(dim=-1) @ v_BHLPE

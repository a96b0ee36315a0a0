"""Parts that encoder and predictor share: the transformer block on a grid of leads and columns, its initial weights,
and the fixed sine-cosine positions.

Shapes: B records, L leads, P columns, D channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q, k, v), each (B, H, L, P, E) -> (B, H, L, P, E)."""

STD = 0.02  # of the initial weights


class Recomputable(nn.Module, ABC):
    """A block of a network, of tokens and of factors on its branches or None.

    With `recompute` it keeps only its input for the backward pass, and computes the rest again there (Chen et al.,
    arXiv 1604.06174): a quarter more work, a fraction of the memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recompute = False

    def forward(self, x: Tensor, factors: Tensor | None = None) -> Tensor:
        """Transform tokens."""
        if self.recompute and torch.is_grad_enabled():
            # No random state is preserved, since nothing here draws from a generator.
            y = checkpoint(self._compute, x, factors, use_reentrant=False, preserve_rng_state=False)
            assert isinstance(y, Tensor)
            return y
        return self._compute(x, factors)

    @abstractmethod
    def _compute(self, x: Tensor, factors: Tensor | None) -> Tensor:
        """Transform tokens. Twice in a step, so it draws nothing and changes nothing of the block."""


class Block(Recomputable):
    """Pre-LayerNorm transformer block of tokens (B, L, P, D).

    Its factors, (2, B), are on the attention and the MLP branch of each record (`stochastic_depth`).
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, attend: Attend) -> None:
        super().__init__()
        self.heads, self.attend = heads, attend
        self.norm1 = nn.LayerNorm(dim, eps=1e-5)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-5)
        self.fc1 = nn.Linear(dim, int(dim * mlp_ratio))
        self.fc2 = nn.Linear(int(dim * mlp_ratio), dim)

    def _compute(self, x: Tensor, factors: Tensor | None) -> Tensor:
        x_BLPD, branch_scale_2B = x, factors
        attended_BLPD = self._attention(self.norm1(x_BLPD))
        if branch_scale_2B is not None:
            attended_BLPD = attended_BLPD * branch_scale_2B[0, :, None, None, None].to(attended_BLPD.dtype)
        x_BLPD = x_BLPD + attended_BLPD
        mixed_BLPD = self.fc2(F.gelu(self.fc1(self.norm2(x_BLPD))))
        if branch_scale_2B is not None:
            mixed_BLPD = mixed_BLPD * branch_scale_2B[1, :, None, None, None].to(mixed_BLPD.dtype)
        return x_BLPD + mixed_BLPD

    def _attention(self, x_BLPD: Tensor) -> Tensor:
        # (B, L, P, 3, H, E) -> 3 of (B, H, L, P, E), contiguous, because otherwise each matrix product would copy.
        q, k, v = self.qkv(x_BLPD).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5).contiguous()
        return self.proj(self.attend(q, k, v).permute(0, 2, 3, 1, 4).flatten(-2))


def set_recompute(module: nn.Module, recompute: bool) -> None:
    """Set `recompute` on all blocks of a network."""
    for part in module.modules():
        if isinstance(part, Recomputable):
            part.recompute = recompute


def initialise(module: nn.Module, blocks: nn.ModuleList) -> None:
    """Set the published initial weights: truncated normal 0.02 for linear layers, zero biases.

    The last matrix of each branch of block l (from 1) is divided by sqrt(2 l). Draws from torch's global generator.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    with torch.no_grad():
        for number, block in enumerate(blocks, start=1):
            assert isinstance(block, Block)
            block.proj.weight.div_((2.0 * number) ** 0.5)
            block.fc2.weight.div_((2.0 * number) ** 0.5)


def positions_2d(leads: int, columns: int, dim: int) -> Tensor:
    """Return float32 (L, P, D): sine and cosine of the column in the first half of the channels, then of the lead."""
    column_PD = _sine_cosine(columns, dim // 2)[None].expand(leads, columns, dim // 2)
    lead_LD = _sine_cosine(leads, dim // 2)[:, None].expand(leads, columns, dim // 2)
    return torch.cat([column_PD, lead_LD], dim=-1).float()


def _sine_cosine(count: int, dim: int) -> Tensor:
    """Return float64 (count, dim): [sin, cos] of i * 10000^(-k / (dim / 2)), k = 0 .. dim / 2 - 1."""
    omega = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angle = torch.arange(count, dtype=torch.float64)[:, None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1)

"""Batch norm whose statistics are those of the whole batch if several processes share it.

`torch.nn.SyncBatchNorm` is for GPUs alone.

Shapes: B records of this process, D channels, L tokens.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch norm of (B, D, L). In training all processes give equally many records."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel over records and tokens."""
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        x_BDL = input.float()
        values = x_BDL.shape[0] * x_BDL.shape[2] * dist.get_world_size()
        mean_D = all_reduce(x_BDL.sum(dim=(0, 2))) / values
        centred_BDL = x_BDL - mean_D[:, None]
        variance_D = all_reduce(centred_BDL.square().sum(dim=(0, 2))) / values
        self._update_statistics(mean_D.detach(), variance_D.detach() * (values / (values - 1)))
        scale_D = torch.rsqrt(variance_D + self.eps) * self.weight
        return (centred_BDL * scale_D[:, None] + self.bias[:, None]).to(input.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean_D: Tensor, variance_D: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean_D, self.momentum)
        self.running_var.lerp_(variance_D, self.momentum)

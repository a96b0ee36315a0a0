"""Batch norm that processes share, against torch's on the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ecg_model.batch_norm import SharedBatchNorm
from tests.support.paths import ROOT
from tests.support.pretraining import environment

_SHARED = """
import os, sys
import torch
import torch.distributed as dist
from torch import nn
from ecg_model.batch_norm import SharedBatchNorm

WORLD = 3

def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)

def share_of(rank):
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=rank, world_size=WORLD)
    torch.manual_seed(0)
    whole, ours = nn.BatchNorm1d(5), SharedBatchNorm(5)
    with torch.no_grad():
        whole.weight.copy_(torch.randn(5))
        whole.bias.copy_(torch.randn(5))
    ours.load_state_dict(whole.state_dict())
    for step in range(3):
        x = 3 * torch.randn(6, 5, 7) + torch.arange(5.0)[:, None] * 10
        factor = torch.randn(6, 5, 7)
        all_x, some_x = x.clone().requires_grad_(), x[rank::WORLD].clone().requires_grad_()
        expected = whole(all_x)
        actual = ours(some_x)
        close(actual, expected[rank::WORLD])
        for module in (whole, ours):
            module.zero_grad()
        (expected * factor).sum().backward()
        (actual * factor[rank::WORLD]).sum().backward()
        close(some_x.grad, all_x.grad[rank::WORLD])
        for name in ("weight", "bias"):
            gradient = getattr(ours, name).grad
            dist.all_reduce(gradient)
            close(gradient, getattr(whole, name).grad)
        close(ours.running_mean, whole.running_mean)
        close(ours.running_var, whole.running_var)
        assert ours.num_batches_tracked == whole.num_batches_tracked == step + 1
    half = ours(x[rank::WORLD].bfloat16())
    assert half.dtype == torch.bfloat16
    close(ours.eval()(x), nn.functional.batch_norm(x, ours.running_mean, ours.running_var, ours.weight, ours.bias))
    dist.destroy_process_group()

children = []
for rank in range(WORLD):
    child = os.fork()
    if child == 0:
        share_of(rank)
        os._exit(0)
    children.append(child)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(0 if codes == [0] * WORLD else f"children ended with {codes}")
"""


@pytest.mark.slow
def test_processes_together_are_batch_norm_of_the_whole_batch(tmp_path: Path) -> None:
    """Forward, gradients, running statistics and their count."""
    done = subprocess.run(
        [sys.executable, "-c", _SHARED, str(tmp_path / "meeting")],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_alone_it_is_torchs_to_the_bit() -> None:
    ours, whole, x_BDL = SharedBatchNorm(5), nn.BatchNorm1d(5), torch.randn(4, 5, 9)
    assert torch.equal(ours(x_BDL), whole(x_BDL))
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in ours.state_dict().items())

"""The processes of one training run: a single one, or those that torchrun started, each with its share of a batch.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m pipelines.pretrain ...

gloo between CPUs, NCCL between GPUs. Processes on several machines need a shared output folder.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

_PR_SET_PDEATHSIG = 1  # of prctl(2)


@dataclass(frozen=True)
class World:
    """One process's place among those of its run. The process of rank 0 writes."""

    rank: int = 0  # among all processes
    size: int = 1  # number of all processes
    local_rank: int = 0  # among those of this machine
    local_size: int = 1  # number of those of this machine

    @property
    def writes(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """The records of a batch that this process computes: every `size`-th from its rank on."""
        return slice(self.rank, None, self.size)

    def agree(self, flag: bool) -> bool:
        """Return whether the flag is set in any process; the same answer in all."""
        if self.size == 1:
            return flag
        any_flag = torch.tensor(int(flag))
        dist.all_reduce(any_flag, dist.ReduceOp.MAX)
        return bool(any_flag)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over the processes, element by element."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x, dist.ReduceOp.SUM)
            x /= self.size
        return x

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.agree(False)

    @contextmanager
    def rank_0_first(self) -> Iterator[None]:
        """Run the body in rank 0 first, then in the others."""
        if not self.writes:
            self.wait()
        yield
        if self.writes:
            self.wait()


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """Return this process's rank on its machine, which is also its GPU's number."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def stop_with_torchrun() -> None:
    """Let Linux send this process SIGTERM if torchrun is killed.

    As an orphan it would run to the end, and keep the GPU and its folder from the run that resumes.
    """
    if started_by_torchrun() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """Join the processes that torchrun started, and leave them afterwards; without torchrun, a World of one."""
    if not started_by_torchrun():
        yield World()
        return
    dist.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield World(
            rank=dist.get_rank(),
            size=dist.get_world_size(),
            local_rank=local_rank(),
            local_size=int(os.environ["LOCAL_WORLD_SIZE"]),
        )
    finally:
        dist.destroy_process_group()

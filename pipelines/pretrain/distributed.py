"""The processes of one training run: one alone, or those that torchrun started, each with its share of every batch.

    python -m torch.distributed.run --standalone --nproc-per-node 2 -m pipelines.pretrain ...

gloo between CPUs, NCCL between GPUs. The processes of several machines need the output folder in common.
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
    """One process's place among `size` of a run, and among those of its machine. The process of rank 0 writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def writes(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which records of a batch are this process's: every `size`-th."""
        return slice(self.rank, None, self.size)

    def agree(self, flag: bool) -> bool:
        """Whether any process says so; all get the same answer."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def mean(self, x: Tensor) -> Tensor:
        """The mean over the processes, element by element."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x, dist.ReduceOp.SUM)
            x /= self.size
        return x

    def wait(self) -> None:
        """Until all processes are here."""
        self.agree(False)

    @contextmanager
    def first_rank_0(self) -> Iterator[None]:
        """Rank 0 does what is inside before the others do."""
        if not self.writes:
            self.wait()
        yield
        if self.writes:
            self.wait()


def torchrun_started_this() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def stop_with_torchrun() -> None:
    """Where torchrun is killed, Linux tells this process to stop: as an orphan it would go on until the end, and keep
    the GPU and its folder from the run that takes over."""
    if torchrun_started_this() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """This process among those that torchrun started; alone where it did not."""
    if not torchrun_started_this():
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

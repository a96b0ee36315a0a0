"""Checkpoints as Lightning writes them, with classes that are not installed where they are read."""

from __future__ import annotations

import io
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecg_model.published_cpc import published_name
from ecg_model.s4_encoder import S4Encoder

FOREIGN = "project_of_others.config"


def published_state(encoder: S4Encoder, head: Tensor | None = None) -> OrderedDict[str, Tensor]:
    """An encoder's weights as a published checkpoint has them: its names, its axes of one, its derived buffers."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, value in encoder.state_dict().items():
        published = published_name(name)
        if name.endswith(("s4.B", "s4.P", "s4.D")):
            value = value[None]
        elif name.endswith("linear.bias"):
            value = value[:, None]
        state[published] = value
        if name.endswith("s4.P"):
            before = published.removesuffix("P")
            rows = encoder.config.tokens // 2 + 1
            omega = torch.exp(-2j * torch.pi * torch.arange(rows, dtype=torch.float64) / encoder.config.tokens)
            state[f"{before}Q"] = value * torch.tensor([1.0, -1.0])
            state[f"{before}omega"] = torch.view_as_real(omega).float()
            state[f"{before}z"] = torch.zeros(rows, 2)
    dim = encoder.config.dim
    state["ts_encoder.head_ssl.proj.0.weight"] = torch.zeros(dim, dim) if head is None else head
    return state


@contextmanager
def foreign_classes() -> Iterator[types.ModuleType]:
    """A module with classes that can be imported inside the block only."""
    outer, module = types.ModuleType(FOREIGN.partition(".")[0]), types.ModuleType(FOREIGN)
    for name, bases in (("DictConfig", (dict,)), ("AnyNode", ()), ("Metadata", ())):
        setattr(module, name, type(name, bases, {"__module__": FOREIGN}))
    sys.modules |= {outer.__name__: outer, FOREIGN: module}
    try:
        yield module
    finally:
        del sys.modules[outer.__name__], sys.modules[FOREIGN]


def lightning_checkpoint(path: Path, state: dict[str, Tensor], **settings: Any) -> Path:
    """Write a checkpoint as Lightning does: weights, optimizer, callbacks, loops, and settings as foreign objects."""
    state = OrderedDict(state)
    state._metadata = OrderedDict({"": {"version": 1}})  # pyright: ignore[reportAttributeAccessIssue]
    moments = {
        number: {"step": torch.tensor(3.0), "exp_avg": torch.zeros_like(value)}
        for number, value in enumerate(state.values())
    }
    with foreign_classes() as foreign:
        node = foreign.AnyNode()
        node.__dict__ |= {"_metadata": foreign.Metadata(), "_val": 3e-3, "_parent": node}
        config = foreign.DictConfig(lr=node, path=Path("/data"), when=datetime(2025, 9, 1))
        content = {
            "epoch": 10,
            "global_step": 1_700_000,
            "pytorch-lightning_version": "2.2.0",
            "state_dict": state,
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
            "callbacks": {
                "ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0), "kth": np.float64(2)}
            },
            "optimizer_states": [{"state": moments, "param_groups": [{"lr": 3e-3, "betas": (0.9, 0.999)}]}],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": {
                "config": config,
                "size": torch.Size([1, 2]),
                "leads": {"I", "II"},
                "scale": np.float32(0.5),
                "mean": np.zeros(3),
                "dtype": torch.float32,
                "bytes": b"\x00\xff",
                "long": 1 << 70,
                "wait": timedelta(seconds=1),
                "none": None,
                **settings,
            },
        }
        torch.save(content, path)
    return path


def with_pickle(file: Path, into: Path, change: Callable[[bytes], bytes], more: dict[str, bytes] | None = None) -> Path:
    """Write a checkpoint again with another data.pkl, and with more members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, change(data) if name.endswith("/data.pkl") else data)
        for name, data in (more or {}).items():
            new.writestr(name, data)
    into.write_bytes(buffer.getvalue())
    return into

"""The device that tensors are computed on, by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def require_device_name(name: str) -> None:
    """Raise ValueError if a name is not auto, cpu, cuda or cuda:N; whether there is such a GPU is not looked at."""
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", name) is None:
        raise ValueError(f"device {name!r}: use auto, cpu, cuda or cuda:N")


def torch_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is a GPU if there is one, else the CPU.

    Raises ValueError if it is not auto, cpu, cuda or cuda:N, or if there is no such GPU.
    """
    import torch

    require_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: torch sees {torch.cuda.device_count()} GPUs here; use another, or cpu")
    return device

"""What a training minimises, as the training sees it: a model, the random choices of a step, figures.

The training knows no objective by name. It draws the choices of a step from (seed, step) for the whole batch, gives
each process and each part of a batch its share, calls the model, and afterwards has the objective move what moves
without a gradient.

Shapes: B records of a batch, L leads, T samples, W windows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_model.ecg_encoder import ECGEncoder
from pipelines.pretrain.data import to_device
from pipelines.pretrain.run_state import Figures

Model = TypeVar("Model", bound=nn.Module)
VALIDATION_SEED = 2**32  # above the seeds of recipes, so that validation draws the same for all


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random choices of a step, of the whole batch or of a share of it."""

    arguments: tuple[Tensor | None, ...]
    """What the model's forward takes after the ECGs."""
    axes: tuple[int | None, ...]
    """The axis of the records in each argument; None if it is the same for all records."""
    figures: Figures = field(default_factory=dict)
    """Of the whole batch, for the metrics."""

    def of(self, some: slice) -> Draw:
        """Return the choices of some of the records."""
        taken = (
            value if value is None or axis is None else value[(slice(None),) * axis + (some,)]
            for value, axis in zip(self.arguments, self.axes, strict=True)
        )
        return replace(self, arguments=tuple(taken))

    def to(self, device: torch.device) -> Draw:
        """Return the choices on the device, without waiting for the copy."""
        moved = (None if value is None else to_device(value, device) for value in self.arguments)
        return replace(self, arguments=tuple(moved))


class Validation(ABC):
    """Figures of an objective over fixed validation windows, gathered batch by batch."""

    @abstractmethod
    def add(self, x_BLT: Tensor, number: int) -> None:
        """Add a batch. x_BLT: windows as `Objective.read` gives them; number: of the batch, from 0."""

    @abstractmethod
    def figures(self) -> Figures:
        """Return the figures over all windows, among them `validation_loss`."""


class Objective(ABC, Generic[Model]):
    """A model that is trained, and what the training needs to know of it."""

    model: Model
    """All that is trained and stored in checkpoints: its forward takes ECGs and the arguments of a `Draw`, and returns
    the loss, float32 (), the mean over records."""

    @property
    @abstractmethod
    def encoder(self) -> ECGEncoder:
        """The encoder that is judged and delivered."""

    @abstractmethod
    def parameters(self) -> dict[str, int]:
        """Return the number of weights of the encoder and of what is dropped after the training."""

    @abstractmethod
    def flops_per_sample(self) -> float:
        """Return the FLOPs of a training step for one record."""

    @abstractmethod
    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Return AdamW's groups of parameters: params, weight_decay, and rate, a share of the learning rate."""

    @abstractmethod
    def begin_with(self, encoder: ECGEncoder) -> None:
        """Start from the weights of an encoder of the same configuration."""

    def read(self, x_BLT: Tensor) -> Tensor:
        """Return the model's input of ECGs, float (B, L, T) millivolt at 250 Hz."""
        return x_BLT

    @abstractmethod
    def draw(self, records: int, *, seed: int, step: int) -> Draw:
        """Draw the choices of a step for the whole batch, on the CPU: a pure function of the seed and the step."""

    @abstractmethod
    def after_step(self, step: int, total: int) -> Figures:
        """Move what moves without a gradient, after the update of a step. Return figures for the metrics."""

    @abstractmethod
    def validation(self) -> Validation:
        """Begin to gather figures of validation. The model is in eval mode while batches are added."""


def noise_of(encoder: ECGEncoder, records: int, *, seed: int, step: int) -> Tensor | None:
    """Draw what regularises the encoder in a step; the records are at RECORDS_AXIS."""
    return tensor_of(encoder.noise(records, seed=seed, step=step))


def tensor_of(values: NDArray[np.generic] | None) -> Tensor | None:
    """Return an array as a tensor, and None as None."""
    return None if values is None else torch.from_numpy(values)


def count(module: nn.Module) -> int:
    """Return the number of weights that are trained or averaged."""
    return sum(parameter.numel() for parameter in module.parameters())

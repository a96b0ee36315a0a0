"""JEPA as an objective of the training: on patches, and on an S4 encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ecg_model.config import JEPAConfig, S4EncoderConfig
from ecg_model.ecg_encoder import RECORDS_AXIS, ECGEncoder
from ecg_model.jepa import JEPA, split_columns
from ecg_model.jepa_s4 import S4JEPA
from ecg_model.masking import masked_columns
from ecg_model.s4_encoder import S4Encoder
from pipelines.pretrain import schedule
from pipelines.pretrain.flops import jepa_flops
from pipelines.pretrain.flops_s4 import s4_jepa_flops
from pipelines.pretrain.objectives.objective import (
    VALIDATION_SEED,
    Draw,
    Objective,
    Validation,
    count,
    noise_of,
)
from pipelines.pretrain.run_state import Figures


class JEPAObjective(Objective[JEPA | S4JEPA]):
    """A student predicts the tokens of a teacher, its moving average, at the columns that it does not see."""

    def __init__(self, config: JEPAConfig, *, ema_start: float, ema_end: float) -> None:
        """Draw initial weights from torch's global generator.

        ema_start, ema_end: the momentum of the teacher at the first and after the last step.
        """
        self._config, self._ema = config, (ema_start, ema_end)
        self.model = S4JEPA(config) if isinstance(config.encoder, S4EncoderConfig) else JEPA(config)

    @property
    def encoder(self) -> ECGEncoder:
        return self.model.student

    def parameters(self) -> dict[str, int]:
        return {"encoder": count(self.model.student), "predictor": count(self.model.predictor)}

    def flops_per_sample(self) -> float:
        return s4_jepa_flops(self._config) if isinstance(self.model, S4JEPA) else jepa_flops(self._config)

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return matrices_decay(self.model, weight_decay)

    def begin_with(self, encoder: ECGEncoder) -> None:
        self.model.student.load_state_dict(encoder.state_dict())
        self.model.teacher.load_state_dict(encoder.state_dict())

    def read(self, x_BLT: Tensor) -> Tensor:
        student = self.model.student
        return student.read(x_BLT) if isinstance(student, S4Encoder) else x_BLT

    def draw(self, records: int, *, seed: int, step: int) -> Draw:
        mask = masked_columns(self._config.masking, self._columns, seed=seed, step=step, records=records)
        visible, masked = split_columns(torch.from_numpy(mask))
        axis = None if mask.ndim == 1 else 0
        return Draw(
            arguments=(visible, masked, noise_of(self.encoder, records, seed=seed, step=step)),
            axes=(axis, axis, RECORDS_AXIS),
            figures={"mask_share": float(mask.mean())},
        )

    @property
    def _columns(self) -> int:
        """Columns of patches, or tokens, of a window."""
        return self._config.encoder.columns(self._config.encoder.window)

    def after_step(self, step: int, total: int) -> Figures:
        """The teacher follows."""
        momentum = schedule.momentum(step, total=total, start=self._ema[0], end=self._ema[1])
        self.model.ema_update_(momentum)
        return {"momentum": momentum}

    def validation(self) -> Validation:
        return _JEPAValidation(self.model, self._config, self._columns)


def matrices_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups in which only matrices decay, not biases and other 1-D parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay, "rate": 1.0},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0, "rate": 1.0},
    ]


class _JEPAValidation(Validation):
    """The loss, and the spread of the targets over windows, the mean over tokens and channels."""

    def __init__(self, model: JEPA | S4JEPA, config: JEPAConfig, columns: int) -> None:
        self._model, self._config, self._columns = model, config, columns
        self._count, self._loss = 0, torch.zeros(())
        # Sums of the targets and of their squares: their variance over all windows without holding them all.
        self._total, self._square = torch.zeros(()), torch.zeros(())

    def add(self, x_BLT: Tensor, number: int) -> None:
        mask = masked_columns(
            self._config.masking, self._columns, seed=VALIDATION_SEED, step=number, records=len(x_BLT)
        )
        visible, masked = split_columns(torch.from_numpy(mask).to(x_BLT.device))
        self._loss = self._loss.to(x_BLT.device) + self._model(x_BLT, visible, masked) * len(x_BLT)
        targets = self._model.targets(x_BLT).double()
        self._total = self._total.to(x_BLT.device) + targets.sum(dim=0)
        self._square = self._square.to(x_BLT.device) + targets.square().sum(dim=0)
        self._count += len(x_BLT)

    def figures(self) -> Figures:
        variance = (self._square / self._count - (self._total / self._count).square()).clamp_min(0.0)
        return {
            "validation_loss": (self._loss / self._count).item(),
            "target_std": variance.sqrt().mean().item(),
        }

"""Contrastive predictive coding as an objective of the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ecg_model.config import CPCConfig
from ecg_model.cpc import CPC, chance, negative_tokens
from ecg_model.ecg_encoder import RECORDS_AXIS, ECGEncoder
from pipelines.pretrain.flops_s4 import cpc_flops
from pipelines.pretrain.objectives.objective import (
    VALIDATION_SEED,
    Draw,
    Objective,
    Validation,
    count,
    noise_of,
)
from pipelines.pretrain.run_state import Figures


class CPCObjective(Objective[CPC]):
    """A linear prediction of one later token has to be nearer to it than to other tokens of the record."""

    def __init__(self, config: CPCConfig) -> None:
        """Draw initial weights from torch's global generator."""
        self._config = config
        self.model = CPC(config)

    @property
    def encoder(self) -> ECGEncoder:
        return self.model.encoder

    def parameters(self) -> dict[str, int]:
        return {"encoder": count(self.model.encoder), "predictor": count(self.model.head)}

    def flops_per_sample(self) -> float:
        return cpc_flops(self._config)

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """All weights decay, as published."""
        return [
            {"params": parameters, "weight_decay": weight_decay, "rate": rate}
            for rate, parameters in self.model.parts()
            if parameters
        ]

    def begin_with(self, encoder: ECGEncoder) -> None:
        self.model.encoder.load_state_dict(encoder.state_dict())

    def read(self, x_BLT: Tensor) -> Tensor:
        return self.model.encoder.read(x_BLT)

    def draw(self, records: int, *, seed: int, step: int) -> Draw:
        noise = noise_of(self.encoder, records, seed=seed, step=step)
        return Draw(arguments=(self._negatives(records, seed, step), noise), axes=(0, RECORDS_AXIS))

    def _negatives(self, records: int, seed: int, step: int) -> Tensor:
        config = self._config
        drawn = negative_tokens(
            records, config.encoder.tokens, horizon=config.horizon, count=config.negatives, seed=seed, step=step
        )
        return torch.from_numpy(drawn)

    def after_step(self, step: int, total: int) -> Figures:
        return {}

    def validation(self) -> Validation:
        return _CPCValidation(self.model, self._config, self._negatives)


class _CPCValidation(Validation):
    """The loss with fixed negatives, also in nats a position beside chance; accuracy; channels that are always 0."""

    def __init__(self, model: CPC, config: CPCConfig, negatives: Any) -> None:
        self._model, self._config, self._negatives = model, config, negatives
        self._count, self._loss, self._accuracy = 0, torch.zeros(()), torch.zeros(())
        self._on_D = torch.zeros(config.encoder.stem_dim, dtype=torch.bool)

    def add(self, x_BLT: Tensor, number: int) -> None:
        device = x_BLT.device
        z_BLD = self._model.encoder.encode(x_BLT)
        loss, accuracy = self._model.judged(z_BLD, self._negatives(len(x_BLT), VALIDATION_SEED, number).to(device))
        self._loss = self._loss.to(device) + loss * len(x_BLT)
        self._accuracy = self._accuracy.to(device) + accuracy * len(x_BLT)
        self._on_D = self._on_D.to(device) | (z_BLD > 0).flatten(0, 1).any(dim=0)
        self._count += len(x_BLT)

    def figures(self) -> Figures:
        loss, positions = (self._loss / self._count).item(), self._config.encoder.tokens - self._config.horizon
        return {
            "validation_loss": loss,
            "validation_nats": loss / positions,
            "chance_nats": chance(self._config.negatives),
            "validation_accuracy": (self._accuracy / self._count).item(),
            "dead_channels": 1.0 - self._on_D.float().mean().item(),
        }

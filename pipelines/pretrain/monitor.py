"""Figures on fixed validation ECGs that show whether the encoder learns or collapses.

The training loss cannot show it: a collapsed encoder has a small loss, since all embeddings, and so all targets, are
alike. `embedding_std` near 0 and `effective_rank` near 1 mean collapse.

Shapes: N records, L leads, T samples, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ecg_model.ecg_encoder import windows
from pipelines.pretrain.data import to_millivolt
from pipelines.pretrain.objectives.objective import Objective

RECORDS = 128  # validation ECGs, at most
BATCH = 32  # ECGs


class Monitor:
    """Figures over at most RECORDS of the validation ECGs, int16 (N, L, T) in microvolt, evenly spaced."""

    def __init__(self, validation_NLT: Tensor, device: torch.device) -> None:
        count = min(RECORDS, len(validation_NLT))
        self._rows = np.unique(np.linspace(0, len(validation_NLT) - 1, count).round().astype(np.int64))
        self._signal_NLT, self._device = validation_NLT, device

    @torch.no_grad()
    def figures(self, objective: Objective, autocast: torch.autocast) -> dict[str, float]:
        """Return the figures of a model.

        Those of `Objective.validation` over windows of training, with random choices that are the same for all models;
        embedding_std: of the embedding over records, the mean over channels;
        effective_rank: of those embeddings, see `effective_rank`.

        Draws nothing from a global generator and leaves the model in the mode it was in.
        """
        validation, embeddings, encoder = objective.validation(), [], objective.encoder
        window = min(encoder.config.window, self._signal_NLT.shape[-1])
        with eval_mode(objective.model), autocast:
            for number, first in enumerate(range(0, len(self._rows), BATCH)):
                x_BLT = to_millivolt(self._signal_NLT, self._rows[first : first + BATCH], self._device)
                validation.add(objective.read(windows(x_BLT, window)), number)
                embeddings.append(encoder.embed(x_BLT).float())
        embedding_ND = torch.cat(embeddings)
        of_objective = validation.figures()
        return {
            "validation_loss": of_objective.pop("validation_loss"),
            "embedding_std": embedding_ND.std(dim=0, correction=0).mean().item(),
            "effective_rank": effective_rank(embedding_ND),
            **of_objective,
        }


def effective_rank(x_ND: Tensor) -> float:
    """Return the effective rank of a matrix (N, D): 1 .. min(N, D), 0 if all rows are equal, NaN if not finite.

    It is exp of the entropy of the normalised singular values of the centred matrix: Roy and Vetterli, "The effective
    rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    x_ND = x_ND.double().cpu()
    if not torch.isfinite(x_ND).all():
        return float("nan")
    values = torch.linalg.svdvals(x_ND - x_ND.mean(dim=0))
    if values.sum() <= 1e-12 * x_ND.abs().sum():  # nothing but the rounding of the mean
        return 0.0
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item()


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put the module in eval mode for the body, and back afterwards."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)

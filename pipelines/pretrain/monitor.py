"""Figures on fixed validation ECGs that show whether the encoder learns or collapses.

The training loss cannot show it: a collapsed encoder has a small loss, since all embeddings, and so all targets, are
alike. `embedding_std` near 0 and `effective_rank` near 1 mean collapse.

Shapes: N records, L leads, T samples, P columns, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ecg_model.jepa import JEPA, split_columns
from ecg_model.masking import masked_columns
from pipelines.pretrain.data import to_millivolt

RECORDS = 128  # validation ECGs, at most
BATCH = 32  # ECGs
MASK_SEED = 2**32  # above the seeds of recipes, so that validation masks are the same for all


class Monitor:
    """Figures over at most RECORDS of the validation ECGs, int16 (N, L, T) in microvolt, evenly spaced."""

    def __init__(self, validation_NLT: Tensor, device: torch.device) -> None:
        count = min(RECORDS, len(validation_NLT))
        self._rows = np.unique(np.linspace(0, len(validation_NLT) - 1, count).round().astype(np.int64))
        self._signal_NLT, self._device = validation_NLT, device

    @torch.no_grad()
    def figures(self, model: JEPA, autocast: torch.autocast) -> dict[str, float]:
        """Return the figures of a model.

        validation_loss: the loss, with masks that are the same for all models.
        embedding_std: of the student's pooled embedding over records, the mean over channels.
        effective_rank: of those embeddings, see `effective_rank`.
        target_std: of the targets over records, the mean over tokens and channels.

        Draws nothing from a global generator and leaves the model in the mode it was in.
        """
        columns, masking = model.config.encoder.patches, model.config.masking
        loss, embeddings, total_LPD, square_LPD = 0.0, [], 0.0, 0.0
        with eval_mode(model), autocast:
            for number, first in enumerate(range(0, len(self._rows), BATCH)):
                x_BLT = to_millivolt(self._signal_NLT, self._rows[first : first + BATCH], self._device)
                mask = masked_columns(masking, columns, seed=MASK_SEED, step=number, records=len(x_BLT))
                visible_V, masked_M = split_columns(torch.from_numpy(mask).to(self._device))
                loss = loss + model(x_BLT, visible_V, masked_M) * len(x_BLT)
                embeddings.append(model.student.embed(x_BLT).float())
                # Sums of the targets and of their squares: their variance over all records without holding them all.
                targets_BLPD = model.targets(x_BLT).double()
                total_LPD = total_LPD + targets_BLPD.sum(dim=0)
                square_LPD = square_LPD + targets_BLPD.square().sum(dim=0)
        count = len(self._rows)
        assert isinstance(loss, Tensor)
        assert isinstance(total_LPD, Tensor)
        variance_LPD = (square_LPD / count - (total_LPD / count).square()).clamp_min(0.0)
        embedding_ND = torch.cat(embeddings)
        return {
            "validation_loss": (loss / count).item(),
            "embedding_std": embedding_ND.std(dim=0, correction=0).mean().item(),
            "effective_rank": effective_rank(embedding_ND),
            "target_std": variance_LPD.sqrt().mean().item(),
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

"""Is the encoder learning or collapsing? Figures of a fixed set of validation ECGs; the training loss cannot say.

A collapsed encoder has a small loss: all embeddings, and so all targets, are alike. `embedding_std` near 0 and
`effective_rank` near 1 show it.

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

RECORDS = 128
BATCH = 32
MASK_SEED = 2**32  # no recipe's: the validation masks are the same for all


class Monitor:
    """Figures over at most RECORDS of the given validation ECGs (int16 (N, L, T)), evenly spaced."""

    def __init__(self, validation_NLT: Tensor, device: torch.device) -> None:
        count = min(RECORDS, len(validation_NLT))
        self._rows = np.unique(np.linspace(0, len(validation_NLT) - 1, count).round().astype(np.int64))
        self._signal_NLT, self._device = validation_NLT, device

    @torch.no_grad()
    def figures(self, model: JEPA, autocast: torch.autocast) -> dict[str, float]:
        """validation_loss; embedding_std: over records, mean over channels, of the student's pooled embedding;
        effective_rank of those embeddings; target_std: over records, mean over tokens and channels, of the targets.

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
    """exp of the entropy of the normalised singular values of the centred matrix, 1 .. min(N, D); 0 where all rows are
    equal. Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007."""
    x_ND = x_ND.double().cpu()
    if not torch.isfinite(x_ND).all():
        return float("nan")
    values = torch.linalg.svdvals(x_ND - x_ND.mean(dim=0))
    if values.sum() <= 1e-12 * x_ND.abs().sum():  # what rounding of the mean leaves
        return 0.0
    share = values / values.sum()
    return torch.special.entr(share).sum().exp().item()


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """The module in eval mode inside the block, afterwards in the mode it was in."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)

"""Contrastive predictive coding (arXiv 1807.03748) as in arXiv 2605.12241: a linear prediction of one later token.

The prediction from the context of a token has to be nearer, by dot product, to the stem's token `horizon` later than to
`negatives` other tokens of the same record.

Shapes: B records, C leads, T samples, L tokens, M = L - horizon positions, J negatives, D channels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ecg_model.config import CPCConfig
from ecg_model.s4_encoder import S4Encoder

_NEGATIVES = 3  # separates these random numbers from others of the same seed and step


class CPC(nn.Module):
    """Encoder and prediction head."""

    def __init__(self, config: CPCConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = S4Encoder(config.encoder)
        self.head = nn.Linear(config.encoder.dim, config.encoder.stem_dim, bias=False)

    def forward(self, x_BCT: Tensor, negatives_BMJ: Tensor, drop_K2BD: Tensor | None = None) -> Tensor:
        """Return the loss, float32 (), see `contrast`.

        x_BCT: float (B, C, T) as `S4Encoder.read` gives it. negatives_BMJ: see `negative_tokens`. drop_K2BD: see
        `tied_dropout`.
        """
        return self.judged(self.encoder.encode(x_BCT), negatives_BMJ, drop_K2BD)[0]

    def judged(self, z_BLD: Tensor, negatives_BMJ: Tensor, drop_K2BD: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return loss and accuracy of the stem's tokens, float32 (), see `contrast`."""
        predicted_BLD = self.head(self.encoder.context(z_BLD, drop_K2BD))
        return contrast(predicted_BLD, z_BLD, negatives_BMJ, self.config.horizon)

    def parts(self) -> list[tuple[float, list[nn.Parameter]]]:
        """Return the parameters by their share of the learning rate: head, S4 blocks, stem."""
        blocks = [*self.encoder.widen.parameters(), *self.encoder.blocks.parameters()]
        return [
            (1.0, list(self.head.parameters())),
            (self.config.blocks_lr, blocks),
            (self.config.stem_lr, list(self.encoder.stem.parameters())),
        ]


def contrast(predicted_BLD: Tensor, z_BLD: Tensor, negatives_BMJ: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """Return the loss and the accuracy of predictions of tokens, float32 ().

    Loss: cross-entropy of the true token among it and the negatives, in nats, the sum over positions and the mean over
    records. Accuracy: share of positions whose true token has the highest score.
    The scores of all pairs of tokens of a record are computed and gathered, which takes less memory and time than
    gathering the negatives, and gives the same value.
    """
    positions = z_BLD.shape[1] - horizon
    with torch.autocast(z_BLD.device.type, enabled=False):
        scores_BML = predicted_BLD[:, :positions].float() @ z_BLD.float().mT
    true_M = torch.arange(horizon, horizon + positions, device=z_BLD.device)
    true_BM1 = true_M[None, :, None].expand(len(z_BLD), -1, -1)
    candidates_BMJ = scores_BML.gather(-1, torch.cat([true_BM1, negatives_BMJ.long()], dim=-1))
    loss = F.cross_entropy(
        candidates_BMJ.flatten(0, 1), true_M.new_zeros(len(z_BLD) * positions), reduction="sum"
    ) / len(z_BLD)
    return loss, (candidates_BMJ.argmax(dim=-1) == 0).float().mean()


def negative_tokens(records: int, tokens: int, *, horizon: int, count: int, seed: int, step: int) -> NDArray[np.int32]:
    """Return int32 (records, tokens - horizon, count): tokens drawn with replacement from all but the true one.

    A pure function of the seed and the step. Raises ValueError if the tokens are too few to predict one.
    """
    if tokens <= horizon:
        raise ValueError(f"{tokens} tokens: at horizon={horizon} none can be predicted; use a longer window")
    rng = np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=(_NEGATIVES,)))
    drawn_BMJ = rng.integers(0, tokens - 1, (records, tokens - horizon, count), dtype=np.int32)
    true_M1 = np.arange(horizon, tokens, dtype=np.int32)[:, None]
    return drawn_BMJ + (drawn_BMJ >= true_M1)


def chance(count: int) -> float:
    """Return the loss of a position, in nats, of scores that say nothing."""
    return math.log(count + 1)

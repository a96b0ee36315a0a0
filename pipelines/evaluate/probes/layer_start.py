"""Where the linear layer of a fine-tuning starts: at each class's prevalence, or at the linear probe.

A layer that starts at random first pulls the encoder's features towards itself, which costs most where labels are few
(linear probing, then fine-tuning: Kumar et al., arXiv 2202.10054). The probe is that of the suite, on the features that
the fine-tuning sees: of filtered ECGs, without augmentation. Shapes: N records, B records of a batch, D channels, C
classes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ecg_model.band_pass import band_pass
from pipelines.evaluate.probes.config import ProbeConfig
from pipelines.evaluate.probes.heads import FitProblem, LinearFit, Logistic
from pipelines.evaluate.probes.tuned_network import Network
from pipelines.formats.shard import MILLIVOLT

_BATCH = 64  # records that are read at once


def start_at_prevalence(layer: nn.Linear, y_NC: np.ndarray, problem: FitProblem) -> None:
    """Set small weights from the seed, and biases with which each class's probability starts at its prevalence."""
    draw = torch.Generator().manual_seed(problem.seed)
    nn.init.trunc_normal_(layer.weight, std=0.02, generator=draw)
    prevalence_C = torch.from_numpy(y_NC.mean(axis=0)).float()
    with torch.no_grad():
        layer.bias.copy_(prevalence_C.log() if problem.multi_class else prevalence_C.logit())


def start_at_probe(network: Network, problem: FitProblem) -> None:
    """Set a network's linear layer to the probe on its encoder, whose penalty validation chooses."""
    rows = np.concatenate([problem.train, problem.validation])
    fitted = Logistic(penalties=ProbeConfig().penalties).fit(
        replace(
            problem,
            x=_features(network, problem, rows),
            y_NC=problem.y_NC[rows],
            train=np.arange(len(problem.train)),
            validation=np.arange(len(problem.train), len(rows)),
            folder=None,
        )
    )
    assert isinstance(fitted.model, LinearFit)
    layer = fitted.model.layer
    with torch.no_grad():
        network.layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(layer.weight_DC.T)))
        network.layer.bias.copy_(torch.from_numpy(layer.bias_C))


def _features(network: Network, problem: FitProblem, rows: np.ndarray) -> np.ndarray:
    """Return the mean of the tokens of some rows, float32 (N, D)."""
    device, network = network.layer.weight.device, network.eval()
    feature_ND = np.empty((len(rows), network.layer.in_features), np.float32)
    with torch.inference_mode():
        for first in range(0, len(rows), _BATCH):
            x_BLT = torch.from_numpy(band_pass(problem.x[rows[first : first + _BATCH]] * MILLIVOLT))
            feature_ND[first : first + _BATCH] = network.pooled(x_BLT.to(device)).cpu().numpy()
    return feature_ND

"""The network of a fine-tuning: an encoder, and a linear layer on the mean of its tokens; and its files in the product.

encoder.safetensors   readable by `load_encoder`
layer.safetensors     weight (C, D), bias (C,)
fine_tuning.json      the loss of each epoch, and the epoch that was chosen

Shapes: B records, L leads, T samples, D channels, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ecg_model.band_pass import band_pass
from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder_file import load_encoder, require_fit, save_encoder
from pipelines.durable import write_atomically
from pipelines.encoders.names import ENCODER_FILE
from pipelines.evaluate.features import Rows
from pipelines.evaluate.probes.heads import LAYER_FILE
from pipelines.formats.shard import MILLIVOLT

TRAINING_FILE = "fine_tuning.json"

_BATCH = 64  # records that are read at once for predictions


class Network(nn.Module):
    """ECGs (B, L, T) in millivolt -> logits (B, C)."""

    def __init__(self, encoder: ECGEncoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.layer = nn.Linear(encoder.config.dim, classes)

    def forward(self, x_BLT: Tensor, noise_K2B: Tensor | None = None) -> Tensor:
        return self.layer(self.pooled(x_BLT, noise_K2B))

    def pooled(self, x_BLT: Tensor, noise_K2B: Tensor | None = None) -> Tensor:
        """Return the mean of the tokens, (B, D)."""
        return self.encoder.tokens(x_BLT, noise_K2B=noise_K2B).mean(dim=1)


@dataclass(frozen=True, kw_only=True)
class FineTunedClassifier:
    """A fine-tuned network as a `Model`."""

    network: Network
    multi_class: bool
    losses: tuple[float, ...]
    """The mean loss of each epoch."""
    epoch: int
    """The chosen epoch, from 1; 0 is the start."""

    between: Callable[[], None] | None = None
    """Called after each batch of predictions; what it raises ends them."""

    def probabilities(self, x: Rows, rows: np.ndarray) -> np.ndarray:
        """Return probabilities, float64 (len(rows), C), computed in float32 of filtered ECGs without augmentation."""
        network, device = self.network, self.network.layer.weight.device
        probability_NC = np.empty((len(rows), network.layer.out_features))
        with torch.inference_mode():
            for first in range(0, len(rows), _BATCH):
                x_BLT = torch.from_numpy(band_pass(x[rows[first : first + _BATCH]] * MILLIVOLT))
                logit_BC = network(x_BLT.to(device)).double()
                probability_BC = logit_BC.softmax(dim=1) if self.multi_class else logit_BC.sigmoid()
                probability_NC[first : first + _BATCH] = probability_BC.cpu().numpy()
                if self.between is not None:
                    self.between()
        return probability_NC

    def write(self, folder: Path) -> None:
        """Write the files of the product."""
        save_encoder(folder / ENCODER_FILE, self.network.encoder)
        layer = {name: value.detach().cpu().contiguous() for name, value in self.network.layer.state_dict().items()}
        write_atomically(folder / LAYER_FILE, save(layer))
        about = {"losses": list(self.losses), "epoch": self.epoch}
        write_atomically(folder / TRAINING_FILE, json.dumps(about, indent=1).encode())

    @classmethod
    def read(cls, folder: Path, *, multi_class: bool, device: torch.device) -> FineTunedClassifier:
        """Read the files of the product. Raises ValueError if they do not fit each other."""
        layer, about = load_file(folder / LAYER_FILE), json.loads((folder / TRAINING_FILE).read_text())
        network = Network(load_encoder(folder / ENCODER_FILE), len(layer["bias"]))
        require_fit(network.layer, layer, str(folder / LAYER_FILE))
        network.layer.load_state_dict(layer)
        return cls(
            network=network.eval().to(device),
            multi_class=multi_class,
            losses=tuple(about["losses"]),
            epoch=about["epoch"],
        )


def parameter_groups(network: Network, *, rate: float, weight_decay: float, group_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: a peak learning rate for each group of layers, and no weight decay on biases and norms.

    The linear layer has `rate`; the encoder's upper layers `group_decay` times that; its lower ones `group_decay` times
    that again (`ECGEncoder.layers_above`).
    """
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, weight in network.named_parameters():
        below = 0 if name.startswith("layer.") else 1 + network.encoder.layers_above(name.removeprefix("encoder."))
        matrix = weight.ndim > 1
        group = groups.setdefault(
            (below, matrix),
            {"params": [], "peak": rate * group_decay**below, "weight_decay": weight_decay if matrix else 0.0},
        )
        group["params"].append(weight)
    return list(groups.values())

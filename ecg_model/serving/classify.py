"""An encoder, a linear layer on its embedding, and a calibration of each label: raw ECGs -> probabilities.

    probability_C = sigmoid(slope_C * (embedding_D @ weight_CD.T + bias_C) + intercept_C)

or the softmax of the same over the labels, if they exclude each other.
In a file: safetensors with `weight` (C, D), `bias`, `slope` and `intercept` (C,), float64, and in its metadata the
labels' names as a JSON list, and `link`, which is `softmax` if the labels exclude each other and else absent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import expit, softmax

from ecg_model.encoder import Encoder, require_short_header
from ecg_model.serving.embed import STANDARD, embed

LINK, SOFTMAX = "link", "softmax"


@dataclass(frozen=True, kw_only=True)
class CalibratedHead:
    """Probabilities of C labels from embeddings of D channels. Raises ValueError if its sizes do not fit."""

    labels: tuple[str, ...]
    weight_CD: NDArray[np.float64]  # of the linear layer
    bias_C: NDArray[np.float64]  # of the linear layer
    slope_C: NDArray[np.float64]  # of the calibration
    intercept_C: NDArray[np.float64]  # of the calibration
    exclusive: bool = False  # whether the labels exclude each other, so that a record's probabilities sum to 1

    def __post_init__(self) -> None:
        sizes = {len(self.labels), len(self.weight_CD), len(self.bias_C), len(self.slope_C), len(self.intercept_C)}
        if len(sizes) != 1 or self.weight_CD.ndim != 2:
            raise ValueError(f"a head of {len(self.labels)} labels has weights of shape {self.weight_CD.shape}")

    def probabilities(self, embedding_BD: NDArray[Any]) -> NDArray[np.float64]:
        """Return calibrated probabilities, (B, D) -> (B, C)."""
        logit_BC = embedding_BD.astype(np.float64) @ self.weight_CD.T + self.bias_C
        calibrated_BC = self.slope_C * logit_BC + self.intercept_C
        return softmax(calibrated_BC, axis=1) if self.exclusive else expit(calibrated_BC)

    def to_bytes(self) -> bytes:
        """Return the head's file."""
        tensors = {"weight": self.weight_CD, "bias": self.bias_C, "slope": self.slope_C, "intercept": self.intercept_C}
        contiguous = {name: np.ascontiguousarray(value, np.float64) for name, value in tensors.items()}
        link = {LINK: SOFTMAX} if self.exclusive else {}
        return save(contiguous, metadata={"labels": json.dumps(self.labels), **link})

    @classmethod
    def load(cls, path: Path) -> CalibratedHead:
        """Read a head's file. Raises ValueError if it is not one."""
        require_short_header(path)
        try:
            with safe_open(path, framework="numpy") as file:
                about, names = file.metadata() or {}, set(file.keys())
                labels, link = about.get("labels"), about.get(LINK)
                if labels is None or names != {"weight", "bias", "slope", "intercept"}:
                    raise ValueError(f"{path} is no calibrated head: it holds {', '.join(sorted(names)) or 'nothing'}")
                if link not in (None, SOFTMAX):
                    raise ValueError(f"{path} has the link {link[:40]!r}, which this code does not know: update it")
                value = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({error}): pull the model again") from error
        return cls(
            labels=_labels(labels, path),
            weight_CD=value["weight"],
            bias_C=value["bias"],
            slope_C=value["slope"],
            intercept_C=value["intercept"],
            exclusive=link == SOFTMAX,
        )


def _labels(text: str, path: Path) -> tuple[str, ...]:
    """Parse the labels in a head's metadata. Raises ValueError if they are not a list of names."""
    try:
        labels = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has unreadable labels ({error}): pull the model again") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{path} has labels that are not a list of names: pull the model again")
    return tuple(labels)


def classify(
    encoder: Encoder, head: CalibratedHead, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD
) -> NDArray[np.float64]:
    """Classify ecgs (B, L, T) millivolt -> (B, C) probabilities. Accepts and refuses ECGs as `embed` does."""
    return head.probabilities(embed(encoder, ecgs, sampling_rate=sampling_rate, leads=leads))

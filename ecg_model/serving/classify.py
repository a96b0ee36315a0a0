"""An encoder, a linear layer on what is read of it, and a calibration of each label: raw ECGs -> probabilities.

    probability_C = sigmoid(slope_C * (feature_F @ weight_CF.T + bias_C) + intercept_C)

or the softmax of the same over the labels, if they exclude each other. The features are the mean over the tokens, or
what a query finds among them (`ecg_model.serving.reader`); an encoder that was fine-tuned takes filtered ECGs.

In a file: safetensors with `weight` (C, F), `bias`, `slope` and `intercept` (C,), and `query` (H, D) if there is one,
float64. The key `head` of its metadata is JSON: {"format", "labels", "exclusive", "input", "pool"}. A head on the mean
whose labels go together, the only kind of earlier commits, has in its place the labels alone, as a JSON list in the key
`labels`. There is one key, since safetensors writes several in random order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import expit, softmax

from ecg_model.band_pass import band_passed
from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder_file import MOST_DIM, require_short_header
from ecg_model.serving.embed import STANDARD, judged_features
from ecg_model.serving.reader import Reader

FORMAT = "ecg-foundry head 2"
INPUTS = ("whole", "0.67-40 Hz")
"""What the encoder takes, as a file calls it: by whether it is band-passed."""
POOLS = ("mean", "attention")
"""What is read of the encoder, as a file calls it: by whether a query reads."""
MOST_LABELS, MOST_HEADS = 10_000, 256
"""The largest sizes that a file may ask for, beside those of an encoder."""

_LINEAR = frozenset(("weight", "bias", "slope", "intercept"))


@dataclass(frozen=True, kw_only=True)
class CalibratedHead:
    """Probabilities of C labels from D features. Raises ValueError if its sizes do not fit, or if a number is none."""

    labels: tuple[str, ...]
    weight_CD: NDArray[np.float64]  # of the linear layer
    bias_C: NDArray[np.float64]  # of the linear layer
    slope_C: NDArray[np.float64]  # of the calibration
    intercept_C: NDArray[np.float64]  # of the calibration
    exclusive: bool = False  # whether the labels exclude each other, so that a record's probabilities sum to 1
    query_HD: NDArray[np.float64] | None = None  # as `Reader.query_HD`
    band_passed: bool = False  # whether the encoder takes ECGs of 0.67-40 Hz, as it was fine-tuned on

    def __post_init__(self) -> None:
        sizes = {len(self.labels), len(self.weight_CD), len(self.bias_C), len(self.slope_C), len(self.intercept_C)}
        if len(sizes) != 1 or self.weight_CD.ndim != 2:
            raise ValueError(f"a head of {len(self.labels)} labels has weights of shape {self.weight_CD.shape}")
        if self.query_HD is not None and (self.query_HD.ndim != 2 or self.query_HD.size != self.weight_CD.shape[1]):
            raise ValueError(
                f"a head with weights of shape {self.weight_CD.shape} has a query of shape {self.query_HD.shape}"
            )
        for name, value in self._tensors().items():
            if not np.isfinite(value).all():
                raise ValueError(f"a head has numbers in {name!r} that are not finite")

    @property
    def dim(self) -> int:
        """The width of the encoder that it is for."""
        return (self.weight_CD if self.query_HD is None else self.query_HD).shape[1]

    def reader(self, encoder: ECGEncoder) -> Reader:
        """Return what it reads of an encoder. Raises ValueError if it is for an encoder of another width."""
        if encoder.config.dim != self.dim:
            raise ValueError(f"the head is for embeddings of {self.dim}, the encoder's have {encoder.config.dim}")
        return Reader(encoder=encoder, query_HD=self.query_HD, prepare=band_passed if self.band_passed else None)

    def probabilities(self, feature_BD: NDArray[Any]) -> NDArray[np.float64]:
        """Return calibrated probabilities of what its reader read, (B, D) -> (B, C)."""
        logit_BC = feature_BD.astype(np.float64) @ self.weight_CD.T + self.bias_C
        calibrated_BC = self.slope_C * logit_BC + self.intercept_C
        return softmax(calibrated_BC, axis=1) if self.exclusive else expit(calibrated_BC)

    def _tensors(self) -> dict[str, NDArray[np.float64]]:
        tensors = {"weight": self.weight_CD, "bias": self.bias_C, "slope": self.slope_C, "intercept": self.intercept_C}
        return tensors if self.query_HD is None else {**tensors, "query": self.query_HD}

    def to_bytes(self) -> bytes:
        """Return the head's file."""
        contiguous = {name: np.ascontiguousarray(value, np.float64) for name, value in self._tensors().items()}
        if not (self.exclusive or self.band_passed or self.query_HD is not None):
            return save(contiguous, metadata={"labels": json.dumps(self.labels)})
        about = {
            "format": FORMAT,
            "labels": self.labels,
            "exclusive": self.exclusive,
            "input": INPUTS[self.band_passed],
            "pool": POOLS[self.query_HD is not None],
        }
        return save(contiguous, metadata={"head": json.dumps(about, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> CalibratedHead:
        """Read a head's file. Raises ValueError if it is not one."""
        require_short_header(path)
        try:
            with safe_open(path, framework="numpy") as file:
                names = set(file.keys())
                about = _about(file.metadata() or {}, names, path)
                for name in names:
                    _require_size(path, name, file.get_slice(name).get_shape())
                value = {name: file.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({error}): pull the model again") from error
        try:
            return cls(
                labels=tuple(about["labels"]),
                weight_CD=value["weight"],
                bias_C=value["bias"],
                slope_C=value["slope"],
                intercept_C=value["intercept"],
                exclusive=about["exclusive"],
                query_HD=value.get("query"),
                band_passed=about["input"] == INPUTS[True],
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}: pull the model again") from error


def _about(metadata: Mapping[str, str], names: set[str], path: Path) -> dict[str, Any]:
    """Return what a file's metadata says of a head, checked. Raises ValueError if it is none, or of a newer kind.

    names: of its tensors
    """
    plain = {"exclusive": False, "input": "whole", "pool": "mean"}
    if "labels" in metadata:
        if unknown := set(metadata) - {"labels"}:
            raise ValueError(f"{path} has metadata {', '.join(unknown)}, which this code does not know: update it")
        about = {**plain, "labels": _parsed(metadata["labels"], "labels", path)}
    else:
        about = _parsed(metadata.get("head", "null"), "metadata", path)
    tensors = _LINEAR | ({"query"} if isinstance(about, dict) and about.get("pool") == "attention" else set())
    if not isinstance(about, dict) or names != tensors:
        raise ValueError(f"{path} is no calibrated head: it holds {', '.join(sorted(names)) or 'nothing'}")
    if about.get("format", FORMAT) != FORMAT:
        raise ValueError(f"{path} has format {about['format']!r}, not {FORMAT!r}: update this code")
    labels = about.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{path} has labels that are not a list of names: pull the model again")
    for name, known in (("exclusive", (False, True)), ("input", INPUTS), ("pool", POOLS)):
        if about.get(name) not in known:
            raise ValueError(f"{path} has {name} {about.get(name)!r}, which this code does not know: update it")
    return about


def _parsed(text: str, what: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} has unreadable {what} ({error}): pull the model again") from error


def _require_size(path: Path, name: str, shape: list[int]) -> None:
    """Raise ValueError if a tensor is larger than any head's, before it is read."""
    rows, columns = (MOST_HEADS, MOST_DIM) if name == "query" else (MOST_LABELS, MOST_HEADS * MOST_DIM)
    most = (rows, columns) if name in ("weight", "query") else (MOST_LABELS,)
    if len(shape) != len(most) or any(size > limit for size, limit in zip(shape, most, strict=True)):
        raise ValueError(f"{path}: {name!r} has shape {tuple(shape)}: a head has at most {most}")


def classify(
    encoder: ECGEncoder, head: CalibratedHead, ecgs: Any, *, sampling_rate: float, leads: str = STANDARD
) -> NDArray[np.float64]:
    """Classify ecgs (B, L, T) millivolt -> (B, C) probabilities. Accepts and refuses ECGs as `embed` does."""
    return head.probabilities(judged_features(head.reader(encoder), ecgs, sampling_rate=sampling_rate, leads=leads)[0])

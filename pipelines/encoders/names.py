"""The encoders that are probed and released, and the names that each goes by. Costs nothing to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncoderNames:
    """An encoder and its names.

    product: in the workspace. probe: of its probes, `probe/<task>/<probe>`, and in tables. random_baseline: of the
    probes of the same network with its initial weights. model: registered in MLflow.
    """

    product: str
    probe: str
    random_baseline: str
    model: str


OURS = EncoderNames(product="encoder", probe="pretrained", random_baseline="random", model="ecg-encoder")
"""The one that is pretrained here."""

REFERENCE = EncoderNames(
    product="reference", probe="reference", random_baseline="reference-random", model="ecg-encoder-reference"
)
"""The author's released one: a yardstick, which no gate judges."""
ENCODER_FILE = "encoder.safetensors"
HEAD_FILE = "head.safetensors"
"""The calibrated head of a classifier, beside its encoder."""

DENSE_ENCODER = "dense_encoder"
"""The product of the encoder with dense attention."""

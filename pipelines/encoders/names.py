"""The names of the encoders that this project evaluates and registers. Imports nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EncoderNames:
    """The names of one encoder."""

    product: str  # in the workspace
    probe: str  # of its probes, `probe/<task>/<probe>`, and in tables
    random_baseline: str  # of the probes of the same network with its initial weights
    model: str  # registered in MLflow


OURS = EncoderNames(product="encoder", probe="pretrained", random_baseline="random", model="ecg-encoder")
"""The encoder that is pretrained here."""

REFERENCE = EncoderNames(
    product="reference", probe="reference", random_baseline="reference-random", model="ecg-encoder-reference"
)
"""The author's released encoder: a reference for comparison, to which no gate is applied."""

REFERENCE_CPC = EncoderNames(
    product="reference_cpc",
    probe="reference-cpc",
    random_baseline="reference-cpc-random",
    model="ecg-encoder-reference-cpc",
)
"""A published encoder of ECG-CPC: a reference as well."""

RELEASED = (REFERENCE, REFERENCE_CPC)
"""The encoders that others released."""

CLASSIFIER = "ecg-classifier"
"""The registered model of our encoder with its probe on the gate's task."""

ENCODER_FILE = "encoder.safetensors"
"""The weights, in the folder of an encoder product."""

HEAD_FILE = "head.safetensors"
"""The calibrated head of a classifier, beside its encoder."""

DENSE_ENCODER = "dense_encoder"
"""The product of the encoder that is pretrained with dense attention."""

SCALING_ENCODERS = "scaling/encoder"
"""Products of the encoders of scaling curves, `scaling/encoder/<run>`."""

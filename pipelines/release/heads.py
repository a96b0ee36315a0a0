"""The files of a classifier, as they are served, from a probe and a calibration.

A probe's layer.safetensors has `weight` and `bias`, and `query` if it is an attention pool; a probe that was fine-tuned
has an encoder of its own beside it, which takes band-passed ECGs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from ecg_model.serving.classify import CalibratedHead
from pipelines.durable import write_atomically
from pipelines.encoders.names import ENCODER_FILE, HEAD_FILE
from pipelines.evaluate.probes.heads import LAYER_FILE
from pipelines.release.calibration import Calibration


def calibrated_head(probe: Path, calibration: Calibration) -> CalibratedHead:
    """Return the head of a probe, with its calibration.

    probe: the folder of a product that a head was fitted in: a linear layer, an attention pool, or a fine-tuned network

    Raises ValueError if the probe kept no layer.
    """
    if not (probe / LAYER_FILE).is_file():
        raise ValueError(f"{probe} has no {LAYER_FILE}: remove that folder and fit it again, by this version")
    layer = load_file(probe / LAYER_FILE)
    return CalibratedHead(
        labels=calibration.labels,
        weight_CD=layer["weight"].astype(np.float64),
        bias_C=layer["bias"].astype(np.float64),
        slope_C=calibration.slope_C,
        intercept_C=calibration.intercept_C,
        exclusive=calibration.exclusive,
        query_HD=layer.get("query"),
        band_passed=(probe / ENCODER_FILE).is_file(),
    )


def write_head(probe: Path, encoder: Path, into: Path, calibration: Calibration) -> None:
    """Write the encoder and the head of a classifier, ENCODER_FILE and HEAD_FILE, into a folder.

    probe: as in `calibrated_head`
    encoder: the file of the encoder that was probed; a fine-tuned probe has its own

    Raises ValueError if the probe kept no layer.
    """
    head, tuned = calibrated_head(probe, calibration), probe / ENCODER_FILE
    write_atomically(into / ENCODER_FILE, (tuned if tuned.is_file() else encoder).read_bytes())
    write_atomically(into / HEAD_FILE, head.to_bytes())

"""Check a finished pretraining: its loss is finite and fell, and its embeddings differ between ECGs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipelines.finding import Finding

# A pooled embedding that differs less than this between ECGs, relative to its size, says the same of all of them.
LEAST_SPREAD = 1e-3


def training_went_well(summary: Mapping[str, Any]) -> Finding:
    """Of a pretraining's summary: its loss is finite and fell, and its embeddings still tell ECGs apart."""
    first, last = summary["first"]["loss"], summary["last"]["loss"]
    std, rank = summary["last"]["embedding_std"], summary["last"]["effective_rank"]
    if not all(map(math.isfinite, (first, last, std, rank))):
        fault = ": not finite, use a lower peak_lr"
    elif last >= first:
        fault = ": the loss did not fall, train for more steps or change peak_lr"
    elif std <= LEAST_SPREAD:
        fault = ": all ECGs look alike (collapse), use a lower peak_lr or a larger jepa.encoder.patch_init_scale"
    else:
        fault = ""
    seen = f"loss {first:.4f} -> {last:.4f}; embeddings: std {std:.4f} over ECGs, effective rank {rank:.1f}"
    return Finding(not fault, seen + fault)

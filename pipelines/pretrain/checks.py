"""Check a finished pretraining: its loss is finite and fell, and its embeddings differ between ECGs."""

from __future__ import annotations

import math

from pipelines.corpus.split import LEAST_VALIDATION
from pipelines.finding import Finding
from pipelines.pretrain.step import MORE, EncoderFacts

# The encoder has collapsed if the spread of its pooled embeddings over ECGs is at most this.
LEAST_SPREAD = 1e-3


def training_went_well(facts: EncoderFacts) -> Finding:
    """Check that the loss is finite and fell, and that the embeddings still distinguish ECGs."""
    first, last = facts.first["loss"], facts.last["loss"]
    std, rank = facts.last["embedding_std"], facts.last["effective_rank"]
    if not all(map(math.isfinite, (first, last, std, rank))):
        fault = ": not finite, use a lower peak_lr"
    elif last >= first:
        fault = ": the loss did not fall, train for more steps or change peak_lr"
    elif 0 < facts.validation_records < LEAST_VALIDATION:
        few = facts.validation_records
        fault = f": it cannot be judged on {few} validation ECGs, {LEAST_VALIDATION} are needed: {MORE}"
    elif std <= LEAST_SPREAD:
        fault = ": all ECGs look alike (collapse), use a lower peak_lr or a larger jepa.encoder.patch_init_scale"
    else:
        fault = ""
    seen = f"loss {first:.4f} -> {last:.4f}; embeddings: std {std:.4f} over ECGs, effective rank {rank:.1f}"
    return Finding(not fault, seen + fault)

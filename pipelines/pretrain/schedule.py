"""Learning rate and teacher momentum as pure functions of the step (0 for the first update)."""

from __future__ import annotations

import math


def learning_rate(step: int, *, total: int, warmup: int, peak: float, edge: float) -> float:
    """Return the learning rate: linear from `edge` to `peak` over `warmup` steps, then half a cosine back to `edge`.

    The cosine ends at step `total`.
    """
    if step < warmup:
        return edge + (peak - edge) * step / warmup
    progress = (step - warmup) / max(total - warmup, 1)
    return edge + (peak - edge) * 0.5 * (1.0 + math.cos(math.pi * progress))


def momentum(step: int, *, total: int, start: float, end: float) -> float:
    """Return the teacher's momentum: linear from `start` at step 0 to `end` at step `total`."""
    return start + (end - start) * step / total

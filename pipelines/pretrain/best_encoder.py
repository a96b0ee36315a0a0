"""The best encoder of a run by its probe, stored beside the last.

    best.safetensors   the student at that step
    best.json          its step and figures, and the sha256 of best.safetensors

Only these files record the best encoder; a checkpoint does not. A killed run resumes from a checkpoint that may be
older than its best encoder. The steps between are done again: on a CPU with the same bits, so that none of them beats
the stored one. On a GPU the last bits may differ, and the stored encoder still matches its score. This requires that
the probe of a step comes before its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecg_model.ecg_encoder import ECGEncoder
from ecg_model.encoder_file import encoder_bytes
from pipelines.durable import replace, write_atomically
from pipelines.hashing import sha256_of_file
from pipelines.pretrain.run_state import Figures

log = logging.getLogger(__name__)

BEST_FILE = "best.safetensors"
BEST_FACTS = "best.json"
SCORE = "probe_auc"

_NEXT = "best.next.safetensors"


def load_best(out: Path, *, step: int) -> Figures:
    """Return step and figures of the best encoder in a run's folder; an empty dict if there is none.

    A replacement that a kill interrupted is finished if best.json already describes the new encoder, else undone.

    step: the step that the run resumes from. At 0 the run begins, and an earlier run's best encoder is removed.
    """
    weights, facts, pending = out / BEST_FILE, out / BEST_FACTS, out / _NEXT
    if step == 0:
        facts.unlink(missing_ok=True)
    best = _facts_in(facts)
    digest = best.pop("sha256", "")
    if digest and _sha256(pending) == digest:
        replace(pending, weights)
    for leftover in (pending, *out.glob(".best.*.tmp")):
        leftover.unlink(missing_ok=True)
    if digest and _sha256(weights) == digest:
        return best
    if digest:
        log.warning("%s is not the file that %s describes: removing both", weights, facts.name)
    facts.unlink(missing_ok=True)
    weights.unlink(missing_ok=True)
    return {}


def store_if_best(out: Path, encoder: ECGEncoder, figures: Mapping[str, float], best: Mapping[str, float]) -> Figures:
    """Store the encoder if its probe_auc is higher than the best. Return the figures of the best, old or new.

    If both are equal the earlier one stays; NaN never wins. After a kill at any point, `load_best` finds a whole pair.

    figures: `step`, `probe_auc` and others to store with them.
    best: the return value of the previous call, or of `load_best`.
    """
    if not figures[SCORE] > best.get(SCORE, float("-inf")):
        return dict(best)
    weights = encoder_bytes(encoder)
    # best.json decides: before it is written the former pair is valid, afterwards `load_best` can finish the rename.
    write_atomically(out / _NEXT, weights)
    facts = {**figures, "sha256": hashlib.sha256(weights).hexdigest()}
    write_atomically(out / BEST_FACTS, json.dumps(facts, indent=1, allow_nan=False).encode())
    replace(out / _NEXT, out / BEST_FILE)
    return dict(figures)


def _facts_in(path: Path) -> dict[str, Any]:
    """Return what best.json holds; nothing if it is absent, or, with a warning, if it cannot be read."""
    try:
        return dict(json.loads(path.read_text())) if path.is_file() else {}
    except (ValueError, TypeError):
        log.warning("%s cannot be read: the best encoder so far is not known", path)
        return {}


def _sha256(path: Path) -> str | None:
    return sha256_of_file(path) if path.is_file() else None

"""The best encoder of a run by its probe, kept beside the last.

    best.safetensors   the student at that step
    best.json          its step and figures, and the sha256 of best.safetensors

The disk alone says which one is the best so far; a checkpoint need not. A run that is killed goes on from a checkpoint
that may be older than its best encoder: the steps between are done again, on a CPU with the same bits, and none of them
beats what is kept. On a GPU their last bits may differ, and what is kept is still an encoder with its own score.
For that, a step's probe comes before its checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from ecg_model.encoder import Encoder, encoder_bytes
from pipelines.cache import write_atomically

log = logging.getLogger(__name__)

BEST_FILE = "best.safetensors"
BEST_FACTS = "best.json"
SCORE = "probe_auc"

_NEXT = "best.next.safetensors"

Facts = dict[str, float]


def kept_best(out: Path, *, step: int) -> Facts:
    """Step and figures of the best encoder in a run's folder; none where there is none.

    step: where the run goes on from. At 0 it begins: what an earlier one left is removed. A change that was cut short
    is finished, or undone where it was not yet decided.
    """
    weights, facts, pending = out / BEST_FILE, out / BEST_FACTS, out / _NEXT
    if step == 0:
        facts.unlink(missing_ok=True)
    best = json.loads(facts.read_text()) if facts.is_file() else {}
    digest = best.pop("sha256", "")
    if digest and _sha256(pending) == digest:
        pending.replace(weights)
    for left_over in (pending, *out.glob(".best.*.tmp")):
        left_over.unlink(missing_ok=True)
    if digest and _sha256(weights) == digest:
        return best
    if digest:
        log.warning("%s is not the file that %s describes: the best encoder is looked for anew", weights, facts.name)
    facts.unlink(missing_ok=True)
    weights.unlink(missing_ok=True)
    return {}


def keep_best(out: Path, encoder: Encoder, figures: Mapping[str, float], best: Mapping[str, float]) -> Facts:
    """The better of two: `best` as it was, or `figures`, with the encoder written where its probe_auc is higher.

    figures: `step`, `probe_auc` and what else is worth keeping. best: of the call before, or of `kept_best`. Of equals
    the earlier stays; a score that is not a number never wins. Killed at any point, `kept_best` finds a whole pair.
    """
    if not figures[SCORE] > best.get(SCORE, float("-inf")):
        return dict(best)
    weights = encoder_bytes(encoder)
    # The facts decide: until they are there the former pair holds, from then on `kept_best` can finish the rename.
    write_atomically(out / _NEXT, weights)
    facts = {**figures, "sha256": hashlib.sha256(weights).hexdigest()}
    write_atomically(out / BEST_FACTS, json.dumps(facts, indent=1, allow_nan=False).encode())
    (out / _NEXT).replace(out / BEST_FILE)
    return dict(figures)


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

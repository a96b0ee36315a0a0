"""Releases of small encoders, and verdicts on them that a test has made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.finding import Finding
from pipelines.release.aliases import find_alias, promote
from pipelines.release.gate import RULES, GateVerdict
from pipelines.release.model import Release, Scores
from pipelines.release.packaging import packaged_encoder
from pipelines.release.registry import model_folder, record, release_packaged
from pipelines.release.tags import CHAMPION
from pipelines.tracking import Tracking

RECIPE = {"name": "tiny", "encoder": {"dim": 32}, "steps": 3}


def scored(value: float, digest: str = "data-1", **metrics: float) -> Scores:
    return Scores(validation=value, data_digest=digest, metrics=metrics)


def put(store: Tracking, name: str, encoder: Path, scores: Scores, **more: Any) -> Release:
    return release_packaged(
        packaged_encoder(encoder),
        scores,
        provenance={"corpus_digest": "c0ffee"},
        recipe=RECIPE,
        git_commit="abc123",
        tracking=store,
        registered_name=name,
        **more,
    )


def judged(store: Tracking, release: Release, *, holds: bool = True, against: int | None = None) -> Release:
    """A release with a verdict that a test has made up."""
    rules = {name: Finding(holds, f"{name} was looked at") for name in RULES}
    return record(release, GateVerdict(against=against, rules=rules), tracking=store)


def crown(store: Tracking, name: str, encoder: Path, scores: Scores) -> Release:
    """Released and let through the gate."""
    champion = find_alias(CHAMPION, name=name, tracking=store)
    release = judged(store, put(store, name, encoder, scores), against=None if champion is None else champion.version)
    return promote(release, tracking=store)


def aliases(store: Tracking, name: str) -> dict[str, int]:
    return {alias: int(version) for alias, version in store.client().get_registered_model(name).aliases.items()}


def edit_code(release: Release, store: Tracking, file: str, old: str, new: str) -> None:
    """Change the code that a version was registered with, as if it were of an earlier commit."""
    path = model_folder(release, tracking=store) / "code" / "ecg_model" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

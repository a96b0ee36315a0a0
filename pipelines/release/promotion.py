"""Move `champion` to what passed the gate: the encoder of a workspace, then its classifier."""

from __future__ import annotations

from typing import NamedTuple

from pipelines.cache import Product, Workspace
from pipelines.release.aliases import find_alias, promote
from pipelines.release.classifier import materialize_classifier
from pipelines.release.gate import GateConfig
from pipelines.release.model import CLASSIFIER_NAME, Release
from pipelines.release.steps import Judged, current_release, gate_task_of, judge_classifier
from pipelines.release.tags import CHAMPION
from pipelines.tracking import Tracking


class Promotion(NamedTuple):
    """The encoders' champion, and the one before this call."""

    before: Release | None
    champion: Release

    @property
    def moved(self) -> bool:
        """Whether this call moved the alias."""
        return self.before is None or self.before.version != self.champion.version


def promote_current(workspace: Workspace, tracking: Tracking) -> Promotion:
    """Make the current encoder's version the champion. Raises ValueError as `promote` does."""
    release = current_release(workspace, tracking)
    before = find_alias(CHAMPION, tracking=tracking)
    return Promotion(before, promote(release, tracking=tracking))


class ClassifierRelease(NamedTuple):
    """The classifier of the current encoder, and what the gate says of it."""

    head: Product
    judged: Judged | None
    """None: its task was not scored."""
    champion: Release | None
    """Of the classifiers, after this call."""


def promote_classifier(workspace: Workspace, tracking: Tracking, *, config: GateConfig) -> ClassifierRelease:
    """Register the classifier of the gate's task, judge it, and make it champion if it passed."""
    head = materialize_classifier(workspace, gate_task_of(workspace, tracking))
    judged = judge_classifier(workspace, tracking, config=config)
    if judged is not None and judged.verdict.promote:
        promote(judged.release, tracking=tracking)
    return ClassifierRelease(head, judged, find_alias(CHAMPION, name=CLASSIFIER_NAME, tracking=tracking))

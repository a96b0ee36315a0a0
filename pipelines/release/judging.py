"""Put a release before the gate: what decides without scores, the contest with the champion, and the served version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from pipelines.finding import Finding
from pipelines.release import gate
from pipelines.release.aliases import find_alias, former_champion
from pipelines.release.gate import Contest, GateConfig, GateVerdict
from pipelines.release.model import Packaged, Release
from pipelines.release.packaging import serves
from pipelines.release.registry import record
from pipelines.release.tags import CHAMPION
from pipelines.tracking import Tracking


class Judged(NamedTuple):
    """A release and what the gate says of it."""

    release: Release
    verdict: GateVerdict
    contest: Contest | None  # None: nothing to compare, or judged before


def judge_release(
    release: Release,
    packaged: Packaged,
    tracking: Tracking,
    config: GateConfig,
    *,
    training: Finding,
    contest: Callable[[Release], Contest | Finding | None],
    on_champion: Finding | None = None,
    more: Mapping[str, Finding] | None = None,
) -> Judged:
    """Judge a release against the champion of its model, and write the verdict on it.

    The champion itself is not judged again, and a release that was champion keeps the verdict that it passed by.

    packaged: the release's files, which the served version is compared with
    training: the rule not_collapsed
    contest: compares the release with that champion, or says why it cannot; called only if scores must decide
    on_champion: the rule of that name, for the classifier of our encoder
    more: rules of the release's own kind, by name
    """
    more = more or {}
    champion = find_alias(CHAMPION, name=release.name, tracking=tracking)
    if champion is not None and champion.version == release.version:
        rules = gate.RULES if on_champion is None else gate.CLASSIFIER_RULES
        return Judged(release, gate.of_champion(release.verdict, (*rules, *more)), None)
    against = None if champion is None else champion.version
    decided = gate.decide_without_scores(
        against=against,
        was_champion=former_champion(release, champion, tracking=tracking) is not None,
        same_weights=champion is not None and champion.weights == release.weights,
        simulated=_of_simulated(release),
        champion_simulated=champion is not None and _of_simulated(champion),
    )
    contested = None
    if decided is None and champion is not None and release.scores.validation is not None:
        contested = contest(champion)
    verdict = gate.judge(
        contested if decided is None else decided,
        against=against,
        training=training,
        serving=serves(release, packaged, tracking=tracking),
        on_champion=on_champion,
        config=config,
    )
    verdict = replace(verdict, rules={**verdict.rules, **more})
    judged = release if release.moves else record(release, verdict, tracking=tracking)
    return Judged(judged, verdict, contested if isinstance(contested, Contest) else None)


def _of_simulated(release: Release) -> bool:
    """Return whether a release, or the encoder that it reads, was trained on simulated ECGs."""
    return release.simulated or release.on_simulated_encoder

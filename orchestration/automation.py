"""Automation: conditions on the assets, and the two sensors that act on them.

    corpus_follows_ecgs        builds the corpus again if harmonized ECGs changed
    training_follows_corpus    updates encoder, probes, report, release and gate if the corpus changed

Both sensors are off until somebody turns them on under Automation. The usual way to a better model is the weekly
schedule of `orchestration.schedules`, which builds the corpus itself and trains once for a week's new ECGs; the second
sensor trains at every change. Their runs have no settings, so they train the champion's recipe on a corpus with the
champion's settings (`pipelines.release.retraining`). With schedule and sensors on, the later one finds what the earlier
one trained.

A condition fires once for new data or new code: not for a run that gave the same bytes, and not twice for one change.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.corpus import corpus
from assets.evaluate import probe_assets
from assets.pretrain import encoder
from assets.release import champion, classifier, gate_verdict, released_encoder
from assets.report import evaluation_report
from assets.sources import all_source_assets
from orchestration.jobs import ALONE, TRAIN

_shards = dg.AssetSelection.assets(*(asset for asset in all_source_assets if asset.key.path[0] == "ecgs"))


def _inputs_changed() -> dg.AutomationCondition:
    """Return the condition: data or code changed, once, and all inputs exist, are not being made and passed checks.

    Of harmonized sources one partition is enough, because no data home has all 120 of them. A missing partition has no
    passed checks, so the condition asks that no check failed, not that all passed.
    """
    condition = dg.AutomationCondition
    changed = (
        condition.any_deps_match(condition.data_version_changed())
        | condition.code_version_changed()
        | condition.newly_missing()
    )
    missing = condition.any_deps_match(condition.missing()).ignore(_shards)
    failed = condition.any_deps_match(condition.any_checks_match(condition.check_failed(), blocking_only=True))
    once = changed.since_last_handled()  # pyright: ignore[reportAttributeAccessIssue]  # its own self is too narrow
    return (once & ~missing & ~failed & ~condition.any_deps_in_progress() & ~condition.in_progress()).with_label(
        "changed since it was made"
    )


FOLLOWS_ECGS = [corpus]
FOLLOWS_CORPUS = [encoder, *probe_assets, evaluation_report, released_encoder, gate_verdict, champion, classifier]

_automated_keys = {asset.key for asset in (*FOLLOWS_ECGS, *FOLLOWS_CORPUS)}


def automated(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """Give the assets that follow others their condition; return all."""
    condition = _inputs_changed()

    def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(automation_condition=condition) if spec.key in _automated_keys else spec

    return [asset.map_asset_specs(with_condition) for asset in assets]


automation_sensors = [
    dg.AutomationConditionSensorDefinition(
        "corpus_follows_ecgs",
        target=dg.AssetSelection.assets(*FOLLOWS_ECGS),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Builds the corpus again, with the champion's settings, if harmonized ECGs changed. Takes about a "
        "minute.",
    ),
    dg.AutomationConditionSensorDefinition(
        "training_follows_corpus",
        target=dg.AssetSelection.assets(*FOLLOWS_CORPUS),
        default_status=dg.DefaultSensorStatus.STOPPED,
        run_tags={ALONE: TRAIN},
        description="Trains, probes, releases and judges at every change of the corpus, with the champion's recipe or "
        "ECG_RETRAIN_RECIPE. Each change costs a training; the schedule `weekly_retraining` trains less often.",
    ),
]

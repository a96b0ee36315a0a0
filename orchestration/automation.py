"""What follows what without a click: conditions on the assets, and the two switches that act on them.

    corpus_follows_ecgs        the corpus is built again where harmonized ECGs changed
    training_follows_corpus    encoder, probes, report, release and gate follow the corpus

Both switches are off until somebody turns them on under Automation. The usual way to a better model is the weekly
schedule of `orchestration.schedules`, which builds the corpus itself and trains once for a week's new ECGs; the second
switch trains at every change. What either starts has no settings, so it is the champion's recipe on a corpus of the
champion's settings (`pipelines.release.retraining`), and with all switches on the second finds what the first has
trained.

A condition fires once for new data or new code: never for a run that gave the same bytes, never twice for one change.
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


def _follows() -> dg.AutomationCondition:
    """New data or code, once; all that it needs is there, at rest and sound.

    Of harmonized sources it is enough that one partition is there: no data home has all 120 of them. What is missing
    would never let a check pass, so of them none may have failed.
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

_following = {asset.key for asset in (*FOLLOWS_ECGS, *FOLLOWS_CORPUS)}


def automated(assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, those that follow others with their condition."""
    condition = _follows()

    def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(automation_condition=condition) if spec.key in _following else spec

    return [asset.map_asset_specs(with_condition) for asset in assets]


automation_sensors = [
    dg.AutomationConditionSensorDefinition(
        "corpus_follows_ecgs",
        target=dg.AssetSelection.assets(*FOLLOWS_ECGS),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Builds the corpus again, with the champion's settings, where harmonized ECGs changed. Costs a "
        "minute.",
    ),
    dg.AutomationConditionSensorDefinition(
        "training_follows_corpus",
        target=dg.AssetSelection.assets(*FOLLOWS_CORPUS),
        default_status=dg.DefaultSensorStatus.STOPPED,
        run_tags={ALONE: TRAIN},
        description="Trains, probes, releases and judges at every change of the corpus, by the champion's recipe or "
        "ECG_RETRAIN_RECIPE. Costs what a training costs; the schedule `weekly_retraining` is the thriftier way.",
    ),
]

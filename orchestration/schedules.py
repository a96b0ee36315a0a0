"""Retraining by the week, where there is something to learn from."""

from __future__ import annotations

import os

import dagster as dg

from assets.resources import DataHome
from orchestration.jobs import ALONE, TRAIN, train_job

# Not those that were created and never queued: a tick that died in between is to be ended by the next.
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.schedule(
    job=train_job,
    name="weekly_retraining",
    cron_schedule="0 20 * * 1",
    execution_timezone=os.environ.get("ECG_TIMEZONE") or "UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Monday 20:00 (zone: ECG_TIMEZONE): corpus, pretraining, evaluation, release and gate, where the "
    "corpus or the recipe is another than any that the gate has judged; else it says why not. ECG_RETRAIN_RECIPE names "
    "the recipe (empty: the champion's), ECG_RETRAIN_CHANGES its changes as JSON, ECG_RETRAIN_START is scratch or "
    "champion.",
)
def weekly_retraining(context: dg.ScheduleEvaluationContext, data_home: DataHome) -> dg.RunRequest | dg.SkipReason:
    """The run key is made of the corpus, the recipe and the start: two ticks of one time request one run. A training
    that failed is requested again a week later, and goes on from its last checkpoint. The run has no settings: what it
    trains is what the automation would, and the second of the two finds it."""
    from pipelines.release.retraining import NotDue, RetrainingConfig, plan

    running = context.instance.get_runs(dg.RunsFilter(tags={ALONE: TRAIN}, statuses=UNFINISHED), limit=1)
    if running:
        return dg.SkipReason(f"run {running[0].run_id[:8]} of {TRAIN}, or of the automation, is not finished")
    home = data_home.open()
    settings = RetrainingConfig.from_environment()
    found = plan(home.workspace(), data_home.tracking(), settings, simulated=home.simulated)
    if isinstance(found, NotDue):
        return dg.SkipReason(found.why)
    context.log.info(found.why)
    return dg.RunRequest(run_key=found.key, tags={"ecg/why": found.why[:200]})

"""The weekly retraining, which trains only if the corpus or the recipe changed."""

from __future__ import annotations

import os

import dagster as dg

from assets.resources import DataHome
from orchestration.jobs import ALONE, TRAIN, train_job

# Without runs that were created and never queued: if a tick died in between, the next one has to finish its work.
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
    description="Monday 20:00 (time zone: ECG_TIMEZONE): corpus, pretraining, evaluation, release and gate, if the "
    "gate has not judged a version of this corpus and recipe yet; otherwise the tick says why nothing is trained. "
    "ECG_RETRAIN_RECIPE names the recipe (empty: the champion's), ECG_RETRAIN_CHANGES its changes as JSON, "
    "ECG_RETRAIN_START is scratch or champion.",
)
def weekly_retraining(context: dg.ScheduleEvaluationContext, data_home: DataHome) -> dg.RunRequest | dg.SkipReason:
    """Request a run if a training is due.

    The run key is made of the corpus, the recipe and the start, so two ticks at one time request one run. A training
    that failed is requested again a week later and resumes from its last checkpoint. The run has no settings: it trains
    what the automation would train, and whichever comes second finds that.
    """
    from pipelines.release.retraining import NotDue, RetrainingConfig, plan

    running = context.instance.get_runs(dg.RunsFilter(tags={ALONE: TRAIN}, statuses=UNFINISHED), limit=1)
    if running:
        return dg.SkipReason(f"run {running[0].run_id[:8]} of {TRAIN}, or of the automation, is not finished")
    home = data_home.open()
    settings = RetrainingConfig.from_environment()
    due = plan(home.workspace(), data_home.tracking(), settings, simulated=home.simulated)
    if isinstance(due, NotDue):
        return dg.SkipReason(due.why)
    context.log.info(due.why)
    return dg.RunRequest(run_key=due.key, tags={"ecg/why": due.why[:200]})

"""New data: a drop that is complete becomes a partition, and its run is requested, once for what it holds."""

from __future__ import annotations

import json

import dagster as dg

from assets.resources import DataHome
from assets.sources import incoming_drops
from orchestration.jobs import incoming_job
from pipelines.sources.incoming.drops import MARKER, complete_drops, misnamed_drops

MOST_AT_ONCE = 50


@dg.sensor(
    job=incoming_job,
    name="incoming_drops",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes drops of own ECGs from $ECG_INCOMING (a folder or a bucket) or $ECG_HOME/incoming as soon as "
    f"their {MARKER} is there, and takes one again when it changed. On from the start: without drops it does nothing.",
)
def incoming_sensor(context: dg.SensorEvaluationContext, data_home: DataHome) -> dg.SensorResult | dg.SkipReason:
    """The cursor says of each drop which content was requested last. It saves asking, no more: run keys are made of
    the drop's name and content, so a tick that died between adding a partition and requesting its run is mended by the
    next, and a lost cursor requests nothing twice."""
    from pipelines.sources.incoming.bucket import place_of

    home = data_home.open()
    place = place_of(home.incoming)
    if not place.is_there():
        return dg.SkipReason(f"{place} is not there: make it, and a sub-folder in it for each drop")
    if home.simulated:
        return dg.SkipReason(
            f"ECGs come from {home.mirror}, which are simulated, and own ones do not join them: `ecg mirror hosts`"
        )
    misnamed = misnamed_drops(place)
    if misnamed:
        context.log.warning(f"{place}: no drops by their names: {', '.join(misnamed)}")
    drops = complete_drops(place)
    requested: dict[str, str] = json.loads(context.cursor or "{}")
    new = [drop for drop in drops if requested.get(drop.name) != drop.listing.digest][:MOST_AT_ONCE]
    if not new:
        return dg.SkipReason(f"{len(drops)} complete drops in {place}, none of them new or changed")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=f"{drop.name}@{drop.listing.digest[:24]}", partition_key=drop.name) for drop in new
        ],
        dynamic_partitions_requests=[incoming_drops.build_add_request([drop.name for drop in new])],
        cursor=json.dumps(
            {drop.name: requested[drop.name] for drop in drops if drop.name in requested}
            | {drop.name: drop.listing.digest for drop in new}
        ),
    )

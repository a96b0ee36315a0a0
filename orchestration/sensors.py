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
    """The cursor says of each drop which contents were requested, the last one last, and null where it was gone. Run
    keys are made of the drop's name, its content and how often that was requested before: so a tick that died between
    adding a partition and requesting its run is mended by the next, a lost cursor requests nothing that is as it was
    at first, and a drop that goes back to an earlier content is taken again."""
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
    past: dict[str, list[str | None]] = json.loads(context.cursor or "{}")
    # A place of its own for each space: own ECGs join those of every mirror that is chosen.
    now = {f"{home.space}/{drop.name}": drop.listing.digest[:24] for drop in drops}
    gone = [name for name in past if name.startswith(f"{home.space}/") and name not in now and past[name][-1]]
    new = [name for name in now if past.get(name, [None])[-1] != now[name]][:MOST_AT_ONCE]
    keys = {name: f"{name}@{now[name]}" for name in new}
    for name in new:
        if times := past.get(name, []).count(now[name]):
            keys[name] += f".{times}"
    cursor = past | {name: [*past[name], None] for name in gone}
    cursor |= {name: [*past.get(name, []), now[name]] for name in new}
    partitions = [name.removeprefix(f"{home.space}/") for name in new]
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(run_key=keys[name], partition_key=partition)
            for name, partition in zip(new, partitions, strict=True)
        ],
        skip_reason=None if new else f"{len(drops)} complete drops in {place}, none of them new or changed",
        dynamic_partitions_requests=[incoming_drops.build_add_request(partitions)] if new else [],
        cursor=json.dumps(cursor),
    )

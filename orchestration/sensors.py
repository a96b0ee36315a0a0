"""New data: a drop that is complete becomes a partition, and its run is requested, once for what it holds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import dagster as dg

from assets.resources import DataHome
from assets.sources import incoming_drops
from orchestration.jobs import incoming_job
from pipelines.incoming.listing import MARKER, complete_drops, misnamed_drops

MOST_AT_ONCE = 50

Past = dict[str, list[str | None]]
"""Of each drop, by `<space>/<name>`, which contents were requested, in order; None where it was gone."""


@dg.sensor(
    job=incoming_job,
    name="incoming_drops",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes drops of own ECGs from $ECG_INCOMING (a folder or a bucket) or $ECG_HOME/incoming as soon as "
    f"their {MARKER} is there, and takes one again when it changed. On from the start: without drops it does nothing.",
)
def incoming_sensor(context: dg.SensorEvaluationContext, data_home: DataHome) -> dg.SensorResult | dg.SkipReason:
    """The cursor is `Past`. A tick that died between adding a partition and requesting its run is mended by the next,
    which has the same run keys; a lost cursor requests nothing that is as it was at first; and a drop that goes back to
    an earlier content is taken again."""
    from pipelines.incoming.bucket import place_of
    from pipelines.incoming.step import held_drops

    home = data_home.open()
    place = place_of(home.incoming)
    if not place.is_there():
        return dg.SkipReason(f"{place} is not there: make it, and a sub-folder in it for each drop")
    if home.simulated:
        return dg.SkipReason(
            f"ECGs come from {home.mirror}, which are simulated, and own ones do not join them: `ecg mirror hosts`, or "
            "`ecg mirror FOLDER` with any other folder"
        )
    misnamed = misnamed_drops(place)
    if misnamed:
        context.log.warning(f"{place}: no drops by their names: {', '.join(misnamed)}")
    drops = complete_drops(place)
    past: Past = json.loads(context.cursor or "{}")
    # By space: own ECGs join those of every mirror that is chosen.
    prefix = f"{home.space}/"
    now = {prefix + drop.name: drop.listing.digest[:24] for drop in drops}
    keys = run_keys(past, now)
    cursor = remembered(past, now, keys, prefix)
    partitions = {name: name.removeprefix(prefix) for name in keys}
    # Of a drop that is gone from its place and was withdrawn, nothing is left to materialize.
    away = {name.partition("/")[2] for name, contents in cursor.items() if contents[-1] is None}
    away &= set(incoming_drops.get_partition_keys(dynamic_partitions_store=context.instance))
    forgotten = away.difference((drop.name for drop in drops), *held_drops(home).values())
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=keys[name], partition_key=partitions[name]) for name in keys],
        skip_reason=None if keys else f"{len(drops)} complete drops in {place}, none of them new or changed",
        dynamic_partitions_requests=[
            *([incoming_drops.build_add_request([*partitions.values()])] if keys else []),
            *([incoming_drops.build_delete_request(sorted(forgotten))] if forgotten else []),
        ],
        cursor=json.dumps(cursor),
    )


def run_keys(past: Past, now: Mapping[str, str]) -> dict[str, str]:
    """Of the drops that are new or changed, by name. now: their contents. Made of the drop's name, its content and how
    often that was requested before."""
    new = [name for name, content in now.items() if past.get(name, [None])[-1] != content][:MOST_AT_ONCE]
    times = {name: past.get(name, []).count(now[name]) for name in new}
    return {name: f"{name}@{now[name]}" + (f".{times[name]}" if times[name] else "") for name in new}


def remembered(past: Past, now: Mapping[str, str], asked: Iterable[str], prefix: str) -> Past:
    """What is known after a tick: contents that were asked for, and drops of this space that are gone."""
    gone = [name for name in past if name.startswith(prefix) and name not in now and past[name][-1] is not None]
    return (
        past | {name: [*past[name], None] for name in gone} | {name: [*past.get(name, []), now[name]] for name in asked}
    )

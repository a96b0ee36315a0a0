"""Watch for own ECGs: a complete drop becomes a partition, and a run is requested once for each of its contents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import dagster as dg

from assets.resources import DataHome
from assets.sources import incoming_drops
from orchestration.jobs import incoming_job
from pipelines.incoming.listing import MARKER, complete_drops, misnamed_drops

MOST_AT_ONCE = 50
"""Runs that one tick requests at most."""

Past = dict[str, list[str | None]]
"""The contents that were requested of each drop, by `<space>/<name>`, in order; None: the drop was gone."""


@dg.sensor(
    job=incoming_job,
    name="incoming_drops",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Copies drops of own ECGs from $ECG_INCOMING (a folder or a bucket) or $ECG_HOME/incoming as soon as "
    f"their {MARKER} exists, and again if a drop changed. It is on by default; without drops it does nothing.",
)
def incoming_sensor(context: dg.SensorEvaluationContext, data_home: DataHome) -> dg.SensorResult | dg.SkipReason:
    """Request a run for each drop that is new or changed.

    The cursor is `Past`. If a tick dies between adding a partition and requesting its run, the next one completes it,
    with the same run keys. If the cursor is lost, a drop with its first content is not requested again. A drop that
    returns to an earlier content is requested again.
    """
    from pipelines.incoming.bucket import place_of
    from pipelines.incoming.step import held_drops

    home = data_home.open()
    place = place_of(home.incoming)
    if not place.is_there():
        return dg.SkipReason(f"{place} is not there: make it, and a sub-folder in it for each drop")
    if home.simulated:
        return dg.SkipReason(
            f"the mirror {home.mirror} holds simulated ECGs, and own ECGs are never mixed with them: use `ecg mirror "
            "hosts`, or `ecg mirror FOLDER` with another folder"
        )
    misnamed = misnamed_drops(place)
    if misnamed:
        context.log.warning(
            f"{place}: not taken, as these are no names of drops: {', '.join(misnamed)}; use 1 to 64 letters, digits, "
            "'_', '-' and '.', no '..', and a letter or digit first"
        )
    drops = complete_drops(place)
    past: Past = json.loads(context.cursor or "{}")
    # Keys carry the space: own ECGs are copied again for each mirror that is chosen.
    prefix = f"{home.space}/"
    now = {prefix + drop.name: drop.listing.digest[:24] for drop in drops}
    keys = run_keys(past, now)
    cursor = updated_past(past, now, keys, prefix)
    partitions = {name: name.removeprefix(prefix) for name in keys}
    # A drop that is gone from its place and was withdrawn has nothing left to materialize: its partition goes, too.
    gone = {name.partition("/")[2] for name, contents in cursor.items() if contents[-1] is None}
    gone &= set(incoming_drops.get_partition_keys(dynamic_partitions_store=context.instance))
    withdrawn = gone.difference((drop.name for drop in drops), *held_drops(home).values())
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=keys[name], partition_key=partitions[name]) for name in keys],
        skip_reason=None if keys else f"{len(drops)} complete drops in {place}, none of them new or changed",
        dynamic_partitions_requests=[
            *([incoming_drops.build_add_request([*partitions.values()])] if keys else []),
            *([incoming_drops.build_delete_request(sorted(withdrawn))] if withdrawn else []),
        ],
        cursor=json.dumps(cursor),
    )


def run_keys(past: Past, now: Mapping[str, str]) -> dict[str, str]:
    """Return the run keys of the drops that are new or changed, by name.

    A key is made of the drop's name, its content and how often that was requested before. now: the drops' contents.
    """
    new = [name for name, content in now.items() if past.get(name, [None])[-1] != content][:MOST_AT_ONCE]
    times = {name: past.get(name, []).count(now[name]) for name in new}
    return {name: f"{name}@{now[name]}" + (f".{times[name]}" if times[name] else "") for name in new}


def updated_past(past: Past, now: Mapping[str, str], requested: Iterable[str], prefix: str) -> Past:
    """Return the cursor after a tick, with the contents that were requested and the drops of this space that are gone.

    now: the drops' contents. prefix: of this space's names.
    """
    gone = [name for name in past if name.startswith(prefix) and name not in now and past[name][-1] is not None]
    return (
        past
        | {name: [*past[name], None] for name in gone}
        | {name: [*past.get(name, []), now[name]] for name in requested}
    )

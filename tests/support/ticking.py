"""One tick of the daemon's sensors or schedules on the instance of DAGSTER_HOME, killed where it is asked to be.

python ticking.py sensors|schedules [partitions_added|RUN_IDS_RESERVED|RUN_CREATED|TICK_HELD]
"""

import logging
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget, create_test_daemon_workspace_context, freeze_time
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon import sensor
from dagster._scheduler.scheduler import launch_scheduled_runs

MONDAY = datetime(2031, 1, 6, 20, 0, 30, tzinfo=UTC)
NAMES = {"sensors": "incoming_drops", "schedules": "weekly_retraining"}


def main(kind: str, killed_at: str | None = None) -> None:
    log = logging.getLogger("ticking")
    flags: Any = {NAMES[kind]: {killed_at: signal.SIGKILL}} if killed_at else None
    if killed_at == "partitions_added":
        add = sensor._handle_dynamic_partitions_requests

        def added(*arguments: Any) -> None:
            add(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        sensor._handle_dynamic_partitions_requests = added
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="orchestration.definitions")
    here = InProcessTestWorkspaceLoadTarget(InProcessCodeLocationOrigin(target, location_name="ecg-foundry"))
    # A sensor rests between two ticks; each of these is two minutes after the one before.
    clock = Path(os.environ["DAGSTER_HOME"], "clock")
    minutes = int(clock.read_text()) + 2 if clock.is_file() else 0
    clock.write_text(str(minutes))
    with (
        freeze_time(datetime.now(UTC) + timedelta(minutes=minutes)),
        dg.DagsterInstance.get() as instance,
        create_test_daemon_workspace_context(here, instance) as workspace,
    ):
        if kind == "sensors":
            ticks = sensor.execute_sensor_iteration(workspace, log, None, None, debug_crash_flags=flags)
        else:
            location = workspace.create_request_context().get_code_location("ecg-foundry")
            (repository,) = location.get_repositories().values()
            found = repository.get_schedule(NAMES[kind])
            if instance.get_instigator_state(found.get_remote_origin_id(), found.selector_id) is None:
                instance.start_schedule(found)
            ticks = launch_scheduled_runs(workspace, log, MONDAY, {}, debug_crash_flags=flags)
        for failure in ticks:
            assert failure is None or not hasattr(failure, "message"), failure


if __name__ == "__main__":
    main(*sys.argv[1:])

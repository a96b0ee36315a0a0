"""Run a job in this process, as a run of the code location that `make ui` serves.

A run of `execute_in_process` names no code location: the UI lists it under *Runs*, but shows it neither on the timeline
of *Overview* nor under its job. Here the run is created with its origin, as the daemon would, and then executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from orchestration.code_server import LOCATION
from orchestration.definitions import defs


def run_here(
    job: str, instance: dg.DagsterInstance, *, partition: str | None = None, config: Mapping[str, Any] | None = None
) -> dg.JobExecutionResult:
    """Run a job step by step in this process; a failed step does not raise.

    Raises DagsterInvalidConfigError for a wrong setting, and DagsterUnknownPartitionError for an unknown partition,
    before anything runs.
    """
    definition = defs.resolve_job_def(job)
    tags = dict(definition.run_tags)
    if partition is not None:
        with partition_loading_context(dynamic_partitions_store=instance) as partitions:
            definition.validate_partition_key(partition, selected_asset_keys=None, context=partitions)
        tags |= definition.get_tags_for_partition_key(partition, selected_asset_keys=None)
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), defs.get_repository_def().name)
    run = instance.create_run_for_job(
        definition,
        run_config={**(config or {}), "execution": {"config": {"in_process": {}}}},
        tags=tags,
        remote_job_origin=repository.get_job_origin(job),
    )
    return execute_run(InMemoryJob(definition), run, instance)

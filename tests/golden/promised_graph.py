"""What Dagster's storage, saved launchpads and people's clicks name: assets, checks, jobs, settings, switches."""

from __future__ import annotations

import os
from typing import Any

import dagster as dg

from orchestration.definitions import defs
from orchestration.limits import LIMITS
from pipelines.hashing import digest_of


def graph() -> dict[str, Any]:
    """The definitions as people and Dagster's storage know them."""
    zone = os.environ.get("ECG_TIMEZONE") or "UTC"
    resolved = defs.resolve_asset_graph()
    definitions = {key: one for one in resolved.assets_defs for key in one.keys}
    return {
        "assets": {
            key.to_user_string(): _asset(definitions[key], key)
            for key in sorted(definitions, key=dg.AssetKey.to_user_string)
        },
        "checks": sorted(
            f"{spec.asset_key.to_user_string()}: {spec.name}{' (blocking)' if spec.blocking else ''}"
            for one in resolved.assets_defs
            for spec in one.check_specs
        ),
        "jobs": {
            job.name: {
                "ops": {node.name: _fields(node.definition.config_schema) for node in job.graph.nodes},
                "pools": sorted({pool for node in job.graph.nodes for pool in node.definition.pools}),
                "tags": {name: value for name, value in job.tags.items() if name.startswith(("ecg/", "dagster/max"))},
                "assets": sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys),
                "partitions": None if job.partitions_def is None else type(job.partitions_def).__name__,
            }
            for job in (defs.resolve_job_def(one.name) for one in defs.jobs or ())
        },
        "schedules": {
            one.name: {
                "job": one.job_name,
                "cron": one.cron_schedule,
                "zone": str(one.execution_timezone).replace(zone, "ECG_TIMEZONE or UTC"),
                "status": one.default_status.value,
            }
            for one in map(defs.resolve_schedule_def, (one.name for one in defs.schedules or ()))
        },
        "sensors": {
            one.name: {
                "kind": one.sensor_type.value,
                "jobs": sorted(target.job_name for target in one.targets if target.job_name),
                "assets": sorted(key.to_user_string() for key in one.asset_selection.resolve(resolved))
                if one.asset_selection is not None
                else [],
                "status": one.default_status.value,
                "seconds": one.minimum_interval_seconds,
                "run tags": dict(getattr(one, "run_tags", None) or {}),
            }
            for one in map(defs.resolve_sensor_def, (one.name for one in defs.sensors or ()))
        },
        "resources": {
            name: {field: repr(info.default) for field, info in type(one).model_fields.items()}
            for name, one in (defs.resources or {}).items()
        },
        "pools": sorted(LIMITS),
    }


def _asset(asset: dg.AssetsDefinition, key: dg.AssetKey) -> dict[str, Any]:
    spec = next(one for one in asset.specs if one.key == key)
    condition, partitions, retry = spec.automation_condition, spec.partitions_def, asset.op.retry_policy
    keys = partitions.get_partition_keys() if isinstance(partitions, dg.StaticPartitionsDefinition) else []
    return {
        "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "group": spec.group_name,
        "code version": spec.code_version,
        "kinds": sorted(spec.kinds),
        "tags": {name: value for name, value in spec.tags.items() if not name.startswith("dagster/kind/")},
        "pool": asset.op.pool,
        "op": asset.op.name,
        "retries": None if retry is None else retry.max_retries,
        "config": _fields(asset.op.config_schema),
        "partitions": {
            "kind": None if partitions is None else type(partitions).__name__,
            "name": getattr(partitions, "name", None),
            "number": len(keys),
            "keys": digest_of(list(keys))[:16],
        },
        "automation": None
        if condition is None
        else {"label": condition.get_label(), "of": digest_of(_described(condition))[:16]},
    }


def _described(condition: dg.AutomationCondition) -> list[Any]:
    """A condition by its labels and names, from its root down."""
    said = condition.get_label() or condition.name or type(condition).__name__
    return [said, [_described(child) for child in condition.children]]


def _fields(schema: Any) -> Any:
    """Setting -> its type and its default, None where there are no settings."""
    if schema is None or not hasattr(schema.config_type, "fields"):
        return None
    return {
        name: {
            "type": _type(field.config_type),
            "default": repr(field.default_value) if field.default_provided else None,
            "required": field.is_required,
        }
        for name, field in schema.config_type.fields.items()
    }


def _type(config_type: Any) -> str:
    """As `Int`, or `Int?` where a setting may be null."""
    inner = getattr(config_type, "inner_type", None)
    optional = str(config_type.kind.value) == "NONEABLE"
    if optional and inner is not None:
        return f"{_type(inner)}?"
    scalar = getattr(config_type, "scalar_type", None)  # of a setting that may come from the environment
    if scalar is not None:
        return _type(scalar)
    return config_type.given_name or str(config_type.kind.value).lower()

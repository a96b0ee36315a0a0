"""What runs at once, what is tried again, and what ends a run that hangs."""

from pathlib import Path

import dagster as dg
import yaml

from assets.delineation import wave_assets
from assets.dense import dense_assets
from assets.evaluate import probe_assets, reference_cpc_probe_assets, reference_probe_assets, suite_assets
from orchestration.definitions import defs
from orchestration.jobs import ALONE, TRAIN, harvest_job_name
from orchestration.limits import LIMITS, seed
from pipelines.sources import SOURCES
from tests.support.paths import ROOT


def assets() -> dict[str, dg.AssetsDefinition]:
    return {asset.key.to_user_string(): asset for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)}


def instance_of(folder: Path) -> dg.DagsterInstance:
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    return dg.DagsterInstance.local_temp(str(folder), overrides=settings)


def test_each_pool_has_a_limit_and_each_network_and_host_its_pool():
    pools = {name: asset.op.pool for name, asset in assets().items()}
    assert {pool for pool in pools.values() if pool} == LIMITS.keys()
    for source in (*SOURCES, "incoming"):
        assert (pools[f"raw/{source}"], pools[f"ecgs/{source}"]) == ("download", "harmonize")
    probes = (*probe_assets, *reference_probe_assets, *reference_cpc_probe_assets)
    evaluating = (*probes, *suite_assets, *wave_assets, *dense_assets)
    evaluations = {asset.key.to_user_string() for asset in evaluating}
    others = {"encoder", "gate_verdict", "classifier", "encoder_comparison", "own_classifier", "scaling"}
    assert {name for name, pool in pools.items() if pool == "gpu"} == evaluations | others
    assert LIMITS["gpu"] == 1


def test_a_step_is_tried_once_more_and_a_download_oftener():
    policies = {name: asset.op.retry_policy for name, asset in assets().items()}
    for name, policy in policies.items():
        assert policy is not None, name
        assert policy.max_retries == (3 if name.startswith("raw/") else 1), name
    policy = policies["raw/chapman"]
    assert policy is not None
    assert (policy.backoff, policy.jitter) == (dg.Backoff.EXPONENTIAL, dg.Jitter.FULL)


def test_limits_are_set_once_what_hangs_ends_and_what_was_killed_starts_again(tmp_path):
    with instance_of(tmp_path) as instance:
        instance.event_log_storage.set_concurrency_slots("download", 9)
        seed(instance)
        seed(instance)
        limits = {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}
        assert limits == {**LIMITS, "download": 9}
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        assert instance.run_retries_max_retries == 2
        (alone,) = instance.get_concurrency_config().run_queue_config.tag_concurrency_limits
        assert (alone["key"], alone["limit"]) == (ALONE, 1)
        longest = instance.run_monitoring_max_runtime_seconds
    limit = "dagster/max_runtime"
    for source in (*SOURCES, "incoming"):
        assert 0 < int(defs.resolve_job_def(harvest_job_name(source)).tags[limit]) < longest
    assert defs.resolve_job_def(TRAIN).tags[ALONE] == TRAIN
    assert limit not in defs.resolve_job_def(TRAIN).tags

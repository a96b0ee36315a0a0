"""The sensor that takes drops, and the schedule that trains again: what a tick requests, and what it says where not."""

import json
import os
import shutil
from collections.abc import Iterator

import dagster as dg
import pytest

from assets.resources import DataHome
from assets.sources import incoming_drops
from orchestration.automation import automation_sensors
from orchestration.definitions import defs
from orchestration.jobs import TRAIN
from orchestration.schedules import weekly_retraining
from orchestration.sensors import incoming_sensor
from pipelines.home import HOSTS
from pipelines.incoming.listing import MARKER
from pipelines.incoming.step import materialize_drop
from pipelines.incoming.withdraw import withdraw_drop
from pipelines.release.retraining import NotDue, Plan, RetrainingConfig, plan
from tests.support.registered import SETTINGS, TINY, corpus_built, harmonized, released, write_drop


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def tick(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, definitions=defs, resources={"data_home": DataHome()}
    )
    result = incoming_sensor(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def requested(instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    """A tick that requests something, with its partitions added as the daemon adds them."""
    result = tick(instance, cursor)
    assert isinstance(result, dg.SensorResult)
    for request in result.dynamic_partitions_requests or ():
        if isinstance(request, dg.DeleteDynamicPartitionsRequest):
            continue
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result


def skipped(result: dg.SensorResult | dg.SkipReason) -> str | None:
    """Why a tick requested nothing."""
    reason = result.skip_reason if isinstance(result, dg.SensorResult) else result
    return reason.skip_message if isinstance(reason, dg.SkipReason) else reason


def requested_again(instance: dg.DagsterInstance, cursor: str | None) -> dict[str | None, str | None]:
    result = tick(instance, cursor)
    return keys(result) if isinstance(result, dg.SensorResult) else {}


def keys(result: dg.SensorResult) -> dict[str | None, str | None]:
    return {request.partition_key: request.run_key for request in result.run_requests or ()}


def test_without_a_folder_and_without_drops_it_says_so(home, instance):
    assert "is not there: make it" in str(tick(instance).skip_message)
    home.incoming.mkdir(parents=True)
    assert "0 complete drops" in str(skipped(tick(instance)))


def test_complete_drops_alone_become_partitions_with_a_run_each(home, instance):
    write_drop(home, "monday")
    write_drop(home, "tuesday", complete=False)
    (home.incoming / "a drop").mkdir()
    result = requested(instance)
    assert set(keys(result)) == {"monday"}
    assert instance.get_dynamic_partitions(incoming_drops.name) == ["monday"]
    assert "1 complete drops" in str(skipped(tick(instance, result.cursor)))
    write_drop(home, "tuesday")
    assert set(keys(requested(instance, result.cursor))) == {"tuesday"}


def test_a_changed_drop_has_another_run_key_and_an_unchanged_one_the_same(home, instance):
    write_drop(home, "monday")
    first = requested(instance)
    write_drop(home, "monday", "another ecg")
    second = requested(instance, first.cursor)
    assert set(keys(second)) == {"monday"}
    assert keys(second) != keys(first)
    assert keys(requested(instance, None)) == keys(second), "a lost cursor asks for runs that Dagster knows"
    assert instance.get_dynamic_partitions(incoming_drops.name) == ["monday"]


def test_a_tick_that_died_after_the_partition_was_added_is_mended_by_the_next(home, instance):
    write_drop(home, "monday")
    meant = requested(instance)  # the partition is there; neither a run nor a cursor was written
    again = requested(instance, None)
    assert keys(again) == keys(meant)
    assert instance.get_dynamic_partitions(incoming_drops.name) == ["monday"]


def test_a_drop_that_goes_back_to_what_it_was_is_taken_again(home, instance):
    write_drop(home, "monday")
    wrong = home.incoming / "monday" / "wrong.csv"
    run_keys, cursor = [], None
    for change in (lambda: None, lambda: wrong.write_text("x"), wrong.unlink, lambda: wrong.write_text("x")):
        change()
        os.utime(wrong, ns=(0, 0)) if wrong.is_file() else None  # the very listing of before
        result = requested(instance, cursor)
        run_keys, cursor = [*run_keys, keys(result)["monday"]], result.cursor
        assert requested_again(instance, cursor) == {}
    assert len(set(run_keys)) == 4
    away = home.incoming / ".monday"  # withdrawn, and put there once more
    (home.incoming / "monday").rename(away)
    cursor = tick(instance, cursor).cursor
    away.rename(home.incoming / "monday")
    result = requested(instance, cursor)
    assert keys(result)["monday"] not in run_keys
    assert requested_again(instance, result.cursor) == {}


def test_a_drop_that_was_withdrawn_and_is_gone_is_no_partition_any_more(home, instance):
    for name in ("monday", "tuesday"):
        write_drop(home, name)
        materialize_drop(home, name)
    cursor = requested(instance).cursor
    for name in ("monday", "tuesday"):
        shutil.rmtree(home.incoming / name)
    withdraw_drop(home, "monday")
    result = requested(instance, cursor)
    assert keys(result) == {}
    (request,) = result.dynamic_partitions_requests or ()
    assert isinstance(request, dg.DeleteDynamicPartitionsRequest)
    assert list(request.partition_keys) == ["monday"], "of tuesday there is our copy"
    instance.delete_dynamic_partition(incoming_drops.name, "monday")
    assert not tick(instance, result.cursor).dynamic_partitions_requests


def test_own_ecgs_join_those_of_another_mirror_too(home, instance, tmp_path):
    write_drop(home, "monday")
    first = requested(instance)
    home.set_mirror(str(tmp_path))
    second = requested(instance, first.cursor)
    assert set(keys(second)) == {"monday"}
    assert keys(second) != keys(first)
    home.set_mirror(HOSTS)
    assert requested_again(instance, second.cursor) == {}


def test_many_drops_come_in_parts_and_removed_ones_are_remembered_as_gone(home, instance, monkeypatch):
    monkeypatch.setattr("orchestration.sensors.MOST_AT_ONCE", 2)
    for name in ("a", "b", "c"):
        write_drop(home, name)
    first = requested(instance)
    assert set(keys(first)) == {"a", "b"}
    (home.incoming / "a" / MARKER).unlink()
    second = requested(instance, first.cursor)
    assert set(keys(second)) == {"c"}
    assert {name: past[-1] is None for name, past in json.loads(second.cursor or "").items()} == {
        f"{HOSTS}/a": True,
        f"{HOSTS}/b": False,
        f"{HOSTS}/c": False,
    }


def test_own_ecgs_do_not_join_simulated_ones(home, instance):
    write_drop(home, "monday")
    home.simulated_mirror.mkdir(parents=True)
    home.set_mirror(str(home.simulated_mirror))
    assert "`ecg mirror hosts`, or `ecg mirror FOLDER`" in str(tick(instance).skip_message)


# The schedule


ONE, TWO = "1" * 64, "2" * 64


def test_without_a_champion_or_ecgs_nothing_is_due(home, tracking):
    assert plan(home.workspace(), tracking, RetrainingConfig(), simulated=False) == NotDue(
        "there is no champion of recorded ECGs yet: train and release a first encoder by hand"
    )
    released(tracking, ONE, TINY, "promoted", champion=True)
    due = plan(home.workspace(), tracking, RetrainingConfig(), simulated=False)
    assert isinstance(due, NotDue)
    assert "no harmonized ECGs" in due.why


def test_a_training_is_due_for_a_new_corpus_or_recipe_alone(home, tracking):
    workspace = home.workspace()
    harmonized(workspace, {"chapman/01": "a", "ptbxl/00000": "p"})
    corpus_built(workspace, ONE)
    released(tracking, ONE, TINY, "promoted: it was the first", champion=True)

    same = plan(workspace, tracking, RetrainingConfig(), simulated=False)
    assert isinstance(same, NotDue)
    assert ONE[:12] in same.why
    assert TINY.digest[:12] in same.why

    other = plan(
        workspace, tracking, RetrainingConfig(recipe="demo", changes={"steps": 9, "peak_lr": 1e-3}), simulated=False
    )
    assert isinstance(other, Plan)
    assert "steps: 8 -> 9" in other.why

    harmonized(workspace, {"chapman/02": "b"})
    corpus_built(workspace, TWO)
    changed = plan(workspace, tracking, RetrainingConfig(start="champion"), simulated=False)
    assert isinstance(changed, Plan)
    assert f"corpus {ONE[:12]} -> {TWO[:12]}" in changed.why
    cold = plan(workspace, tracking, RetrainingConfig(), simulated=False)
    assert isinstance(cold, Plan)
    assert cold.key != changed.key

    lost = released(tracking, TWO, TINY, "kept as challenger: -0.0200")
    again = plan(workspace, tracking, RetrainingConfig(), simulated=False)
    assert isinstance(again, NotDue), "it was trained, and lost"
    assert f"version {lost}: kept as challenger" in again.why


def test_a_version_that_was_not_judged_is_due_still(home, tracking):
    workspace = home.workspace()
    harmonized(workspace, {"chapman/01": "a"})
    corpus_built(workspace, TWO)
    released(tracking, ONE, TINY, "promoted", champion=True)
    released(tracking, TWO, TINY, None)
    assert isinstance(plan(workspace, tracking, RetrainingConfig(), simulated=False), Plan)


@pytest.mark.parametrize(
    ("sources", "new", "due"),
    [
        (None, "code15/0", True),
        (["chapman"], "code15/0", False),
        (["chapman"], "chapman/02", True),
        (["chapman"], "ptbxl/01000", True),
    ],
)
def test_new_ecgs_are_seen_before_the_corpus_is_built_of_them(home, tracking, sources, new, due):
    workspace = home.workspace()
    harmonized(workspace, {"chapman/01": "a", "ptbxl/00000": "p"})
    corpus_built(workspace, ONE, sources)
    released(tracking, ONE, TINY, "promoted", champion=True, settings={**SETTINGS, "sources": sources})
    assert isinstance(plan(workspace, tracking, RetrainingConfig(), simulated=False), NotDue)
    harmonized(workspace, {new: "b"})
    training = plan(workspace, tracking, RetrainingConfig(), simulated=False)
    assert isinstance(training, Plan) is due
    if due:
        assert "harmonized ECGs changed" in training.why


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ECG_RETRAIN_START": "warm"}, "start='warm': use scratch or champion"),
        ({"ECG_RETRAIN_CHANGES": "epochs=3"}, "use a JSON object"),
        ({"ECG_RETRAIN_CHANGES": '{"epochs": 3}'}, "name the recipe that they change"),
        ({"ECG_RETRAIN_RECIPE": "huge"}, "recipe .huge.: use demo"),
        ({"ECG_RETRAIN_RECIPE": "small", "ECG_RETRAIN_CHANGES": '{"epoch": 3}'}, "epoch"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, settings, message):
    monkeypatch.delenv("ECG_RETRAIN_RECIPE", raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        RetrainingConfig.from_environment()


def test_the_schedule_requests_a_run_that_the_job_takes_and_says_why_not(home, tracking, tmp_path):
    workspace = home.workspace()
    harmonized(workspace, {"chapman/01": "a"})
    corpus_built(workspace, TWO)
    released(tracking, ONE, TINY, "promoted", champion=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:  # a schedule asks for no other
        context = dg.build_schedule_context(instance=instance, resources={"data_home": DataHome()})
        request, second = weekly_retraining(context), weekly_retraining(context)
        assert isinstance(request, dg.RunRequest)
        assert isinstance(second, dg.RunRequest)
        assert request.run_key == second.run_key, "two ticks of one time are one run"
        assert not request.run_config, "what is trained without settings is the champion's recipe"
        job = defs.resolve_job_def(TRAIN)
        dg.validate_run_config(job, request.run_config)
        following = next(sensor for sensor in automation_sensors if sensor.name == "training_follows_corpus")
        for tags in (job.tags, following.run_tags):
            running = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
            skipped = weekly_retraining(context)
            assert isinstance(skipped, dg.SkipReason)
            assert f"run {running.run_id[:8]} of {TRAIN}, or of the automation, is not" in str(skipped.skip_message)
            instance.report_run_canceled(running)
        assert isinstance(weekly_retraining(context), dg.RunRequest)
        released(tracking, TWO, TINY, "kept as challenger")
        skipped = weekly_retraining(context)
        assert isinstance(skipped, dg.SkipReason)
        assert TWO[:12] in str(skipped.skip_message)


def test_the_schedule_is_off_at_first_and_the_sensor_on():
    assert weekly_retraining.default_status == dg.DefaultScheduleStatus.STOPPED
    assert weekly_retraining.execution_timezone
    assert incoming_sensor.default_status == dg.DefaultSensorStatus.RUNNING
